"""python -m hw3_q_learning.run sac-pendulum --seed 3 --algo.lr 5e-4"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field, replace

import torch

from common import checkpoint, cli, device
from common.cuda_graph import CapturedUpdate
from common.envs import registry
from common.logger import RunLogger
from common.prioritized_replay import PrioritizedReplay
from common.replay import Replay
from common.rollout import Collector
from common.schedules import Linear
from common.seeding import seed_everything
from common.session import conclude, resume_point
from common.types import EnvSpec, require
from hw3_q_learning.cem_q import CEMQ, CEMQConfig
from hw3_q_learning.crossq import CrossQ, CrossQConfig
from hw3_q_learning.ddpg import DDPG, DDPGConfig, TD3Config
from hw3_q_learning.distributional import C51, QR, C51Config, QRConfig
from hw3_q_learning.dqn import DQN, DQNConfig
from hw3_q_learning.naf import NAF, NAFConfig
from hw3_q_learning.sac import SAC, SACConfig
from hw3_q_learning.trainer import TrainConfig, train

HOMEWORK = "hw3_q_learning"
AGENTS = {
    DQNConfig: DQN,
    C51Config: C51,
    QRConfig: QR,
    SACConfig: SAC,
    DDPGConfig: DDPG,
    TD3Config: DDPG,
    CrossQConfig: CrossQ,
    NAFConfig: NAF,
    CEMQConfig: CEMQ,
}
CAPTURED = {SACConfig, DDPGConfig, TD3Config}  # whose settings stand still
Algo = (
    DQNConfig
    | C51Config
    | QRConfig
    | SACConfig
    | DDPGConfig
    | TD3Config
    | CrossQConfig
    | NAFConfig
    | CEMQConfig
)


@dataclass(frozen=True, kw_only=True)
class RunConfig(cli.RunOptions):
    algo: Algo  # settings of the algorithm
    train: TrainConfig = field(default_factory=TrainConfig)  # settings of the loop
    capture: bool = False  # on CUDA, launch an update as one graph: SAC, DDPG and TD3

    def __post_init__(self):
        super().__post_init__()
        ok = not self.capture or type(self.algo) in CAPTURED
        require(ok, f"capture must be off for {type(self.algo).__name__.removesuffix('Config')}")
        ok = self.train.batch_size > 1 or not isinstance(self.algo, CrossQConfig)
        require(ok, "batch_size must be at least 2 for CrossQ, which normalises over it, got 1")


CARTPOLE = TrainConfig(
    total_steps=50_000,
    collect_steps=4,
    updates=2,
    batch_size=128,
    capacity=100_000,
    n_step=10,
    eval_every=2_500,
)
BOX2D = TrainConfig(
    total_steps=100_000, collect_steps=4, updates=4, batch_size=128, capacity=100_000, eval_every=5_000
)
PENDULUM = TrainConfig(total_steps=20_000, capacity=20_000, eval_every=1_000, save_every=10_000)
MUJOCO = TrainConfig(
    total_steps=100_000, learning_starts=5_000, capacity=1_000_000, eval_every=10_000, eval_episodes=10
)
LONG = replace(MUJOCO, total_steps=300_000)
SMALL = (128, 128)
PRESETS = {
    config.preset: config
    for config in (
        RunConfig(
            preset="dqn-cartpole",
            env_id="CartPole-v1",
            algo=DQNConfig(lr=1e-3, epsilon_final=0.04, epsilon_steps=8_000),
            train=CARTPOLE,
        ),
        # The lecture's three processes at other rates: see trainer.py.
        RunConfig(
            preset="online-q-cartpole",
            env_id="CartPole-v1",
            algo=DQNConfig(double=False, target_period=1, tau=1.0, lr=1e-4),
            train=replace(
                CARTPOLE, collect_steps=1, updates=1, learning_starts=1, batch_size=1, capacity=1, n_step=1
            ),
        ),
        RunConfig(
            preset="fitted-q-cartpole",
            env_id="CartPole-v1",
            algo=DQNConfig(double=False, target_period=100, tau=1.0),
            train=replace(CARTPOLE, collect_steps=1_000, updates=1_000, n_step=1),
        ),
        RunConfig(
            preset="c51-cartpole",
            env_id="CartPole-v1",
            algo=C51Config(lr=1e-3, epsilon_steps=8_000),
            train=CARTPOLE,
        ),
        RunConfig(
            preset="qr-cartpole",
            env_id="CartPole-v1",
            algo=QRConfig(lr=1e-3, epsilon_steps=8_000),
            train=CARTPOLE,
        ),
        RunConfig(
            preset="rainbow-cartpole",
            env_id="CartPole-v1",
            algo=C51Config(lr=1e-3, epsilon_steps=8_000, duelling=True),
            train=replace(CARTPOLE, priority=0.5),
        ),
        RunConfig(
            preset="dqn-acrobot",
            env_id="Acrobot-v1",
            algo=DQNConfig(epsilon_steps=20_000),
            train=replace(BOX2D, updates=2),
        ),
        RunConfig(
            preset="dqn-mountaincar",
            env_id="MountainCar-v0",
            # Dithering never gets up the hill: random actions are held.
            algo=DQNConfig(lr=1e-3, gamma=0.98, epsilon_final=0.07, epsilon_steps=24_000, zeta=2.0),
            train=replace(BOX2D, total_steps=120_000, updates=2, n_step=5),
        ),
        RunConfig(
            preset="dqn-lunarlander",
            env_id="LunarLander-v3",
            # Landing and crashing earn 100 each way; linear from 1 on the loss would learn their median.
            algo=DQNConfig(
                lr=6e-4,
                huber=100.0,
                max_grad_norm=100.0,
                epsilon_final=0.1,
                epsilon_steps=12_000,
                zeta=3.0,  # or it may hover for ever
            ),
            train=replace(BOX2D, n_step=3),
        ),
        RunConfig(
            preset="sac-pendulum",
            env_id="Pendulum-v1",
            algo=SACConfig(lr=1e-3, hidden=SMALL),
            train=PENDULUM,
        ),
        RunConfig(
            preset="ddpg-pendulum",
            env_id="Pendulum-v1",
            algo=DDPGConfig(gamma=0.98, hidden=SMALL),
            train=PENDULUM,
        ),
        RunConfig(
            preset="td3-pendulum",
            env_id="Pendulum-v1",
            algo=TD3Config(gamma=0.98, lr=1e-3, hidden=SMALL),
            train=PENDULUM,
        ),
        RunConfig(
            preset="crossq-pendulum",
            env_id="Pendulum-v1",
            algo=CrossQConfig(hidden=SMALL, critic_hidden=SMALL, actor_period=2),
            train=PENDULUM,
        ),
        RunConfig(preset="naf-pendulum", env_id="Pendulum-v1", algo=NAFConfig(gamma=0.98), train=PENDULUM),
        RunConfig(
            preset="cem-q-pendulum",
            env_id="Pendulum-v1",
            algo=CEMQConfig(gamma=0.98),
            train=replace(PENDULUM, batch_size=128),
        ),
        RunConfig(
            preset="sac-inverteddoublependulum",
            env_id="InvertedDoublePendulum-v5",
            algo=SACConfig(lr=1e-3, hidden=SMALL),
            train=replace(MUJOCO, total_steps=20_000, learning_starts=1_000, eval_every=2_000),
        ),
        RunConfig(
            preset="sac-halfcheetah",
            env_id="HalfCheetah-v5",
            algo=SACConfig(lr=1e-3, target_entropy=-3.0),
            train=MUJOCO,
        ),
        RunConfig(
            preset="td3-halfcheetah",
            env_id="HalfCheetah-v5",
            algo=TD3Config(lr=1e-3, tau=0.01, layer_norm=True),
            train=MUJOCO,
        ),
        RunConfig(
            preset="crossq-halfcheetah",
            env_id="HalfCheetah-v5",
            algo=CrossQConfig(target_entropy=-3.0),
            train=MUJOCO,
        ),
        RunConfig(
            preset="sac-hopper",
            env_id="Hopper-v5",
            algo=SACConfig(lr=1e-3, target_entropy=-1.0),
            train=LONG,
        ),
    )
}


def make_replay(config: RunConfig, spec: EnvSpec, device: torch.device) -> Replay:
    train, gamma = config.train, config.algo.gamma
    if train.priority == 0:
        return Replay(train.capacity, spec, device, train.n_step, gamma)
    beta = Linear(train.priority_weight, 1.0, train.total_steps)
    return PrioritizedReplay(train.capacity, spec, device, train.priority, beta, train.n_step, gamma)


def run(config: RunConfig) -> str:
    torch_device = device.setup(config.device, config.threads)
    seed_everything(config.seed)
    envs = registry.make_envs(config.env_id, config.train.num_envs)
    eval_envs = registry.make_envs(config.env_id, config.train.eval_episodes)
    spec = registry.spec(envs)
    agent = AGENTS[type(config.algo)](
        spec, config.algo, config.train.total_updates, torch_device, config.seed
    )
    replay = make_replay(config, spec, torch_device)
    update = CapturedUpdate(agent, config.algo.actor_period) if config.capture else agent.update
    start = resume_point(config, torch_device)
    if "agent" in start:
        checkpoint.restore(agent, start["agent"])
        replay.load_state_dict(start["replay"])
    directory = cli.run_directory(config, HOMEWORK)
    logger = RunLogger(directory, config.train.total_steps, start["step"], start["wall_s"])
    status = "failed"
    try:
        collector = Collector(envs, torch_device)
        status = train(
            agent, collector, replay, eval_envs, logger, config.train, config.seed, start["step"], update
        )
    finally:
        command = shlex.join(["python", "-m", f"{HOMEWORK}.run", *sys.argv[1:]])
        logger.close(status, command=command, device=str(torch_device))
        envs.close()
        eval_envs.close()
    return conclude(config, HOMEWORK, status, logger, agent.act)


if __name__ == "__main__":
    cli.main(PRESETS, default="dqn-cartpole", run=run)
