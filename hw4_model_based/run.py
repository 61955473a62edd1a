"""python -m hw4_model_based.run mpc-obstacles --seed 3 --algo.search random"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field, replace

import torch

from common import checkpoint, cli, device
from common.envs import registry
from common.envs.model_tasks import ModelTask, model_task
from common.envs.pixels import FRAMES, SIZE
from common.logger import RunLogger
from common.replay import Replay
from common.rollout import Collector
from common.seeding import child_seed, seed_everything
from common.session import conclude, resume_point
from common.types import EnvSpec, require
from common.video import opener
from hw2_policy_gradient.ppo import PPO, PPOConfig
from hw3_q_learning.ddpg import DDPG, DDPGConfig
from hw3_q_learning.naf import NAF, NAFConfig
from hw3_q_learning.sac import SAC, SACConfig
from hw4_model_based import dyna_trainer
from hw4_model_based.dyna_trainer import DynaTrainConfig
from hw4_model_based.dynamics import DynamicsConfig
from hw4_model_based.e2c import E2C, E2CConfig
from hw4_model_based.filmstrip import film
from hw4_model_based.finetune import Finetune, FinetuneConfig
from hw4_model_based.latent_dynamics import LatentConfig, LatentModelConfig, LatentMPC
from hw4_model_based.latent_lqr import LatentLQR, LatentLQRConfig
from hw4_model_based.mbpo import MBPO, MBPOConfig
from hw4_model_based.mpc import MPC, MPCConfig
from hw4_model_based.mve import MVE, STEVE, MVEConfig, STEVEConfig
from hw4_model_based.pets import PETS, PETSConfig
from hw4_model_based.pilco import PILCO, PILCOConfig, goal_of
from hw4_model_based.policy_backprop import Backprop, BackpropConfig
from hw4_model_based.rssm import PlaNet, RSSMConfig
from hw4_model_based.trainer import TrainConfig, train
from hw4_model_based.video_prediction import FlowConfig, Foresight, ForesightConfig
from hw5_planning_control.lqr import lqr

HOMEWORK = "hw4_model_based"


class SOLAR(LatentLQR):
    """With homework 5's LQR."""

    @staticmethod
    def solve(*problem: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        solution = lqr(*problem)
        return solution.K, solution.k


AGENTS = {MPCConfig: MPC, PETSConfig: PETS, BackpropConfig: Backprop, PILCOConfig: PILCO}
IMAGINATIONS = {MBPOConfig: MBPO, MVEConfig: MVE, STEVEConfig: STEVE}
LEARNERS = {SACConfig: SAC, DDPGConfig: DDPG, NAFConfig: NAF}  # of homework 3
PIXEL_AGENTS = {  # they know no reward
    LatentConfig: LatentMPC,
    E2CConfig: E2C,
    LatentLQRConfig: SOLAR,
    RSSMConfig: PlaNet,
    ForesightConfig: Foresight,
}
Planning = MPCConfig | PETSConfig | LatentConfig | E2CConfig | LatentLQRConfig | RSSMConfig | ForesightConfig
Algorithm = Planning | BackpropConfig | PILCOConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig(cli.RunOptions):
    algo: Algorithm  # settings of the model and of its use
    train: TrainConfig = field(default_factory=TrainConfig)  # settings of the loop


@dataclass(frozen=True, kw_only=True)
class DynaRunConfig(cli.RunOptions):
    algo: MBPOConfig | MVEConfig | STEVEConfig  # settings of the model and of what is imagined
    learner: SACConfig | DDPGConfig | NAFConfig  # settings of the model-free agent that learns from it
    train: DynaTrainConfig = field(default_factory=DynaTrainConfig)  # settings of the loop

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.algo, STEVEConfig):
            critics = self.learner.critics
            require(critics >= 2, f"critics must be at least 2 for STEVE, got {critics}")
        if not isinstance(self.algo, MBPOConfig):
            noise = self.learner.smoothing
            require(noise == 0, f"smoothing must be 0 for value expansion, got {noise}")


@dataclass(frozen=True, kw_only=True)
class FinetuneRunConfig(cli.RunOptions):
    algo: FinetuneConfig  # settings of the model, the planner and the imitation of it
    learner: PPOConfig  # settings of the policy gradient
    train: TrainConfig = field(default_factory=TrainConfig)  # settings of the loop

    def __post_init__(self):
        super().__post_init__()
        require(self.train.aggregate, "aggregate must be on: it is trials that are imitated")
        trials, rounds = self.algo.trials, self.train.rounds
        require(trials < rounds, f"trials must be below the number of all, {rounds}, got {trials}")


# CS 285's: means only.
MEAN = DynamicsConfig(
    members=3, elites=3, hidden=(128, 128), probabilistic=False, max_epochs=100, patience=10
)
LARGE = replace(MEAN, max_epochs=60, patience=5)  # for more data
SMALL = (128, 128)
# A likelihood would spend its effort where the change is easily told, not where the speed meets its limit.
MEANS = DynamicsConfig(members=4, elites=4, hidden=SMALL, probabilistic=False)
PENDULUM = DynaTrainConfig(total_steps=3_000)
ROUGH = DynamicsConfig(hidden=SMALL, batch_size=256, max_epochs=10, patience=3)  # of many states, often
RUNNING = DynaTrainConfig(
    total_steps=20_000, learning_starts=5_000, fit_every=500, updates=2, log_every=1_000, eval_every=1_000
)
PRESETS = {
    config.preset: config
    for config in (
        RunConfig(
            preset="mpc-obstacles",
            env_id="course/Obstacles-v0",
            algo=MPCConfig(horizon=10, samples=80, iterations=3, elites=8, model=MEAN),
            train=TrainConfig(total_steps=4_000, initial_steps=2_000, num_envs=5, trial_steps=100),
        ),
        RunConfig(
            preset="mpc-reacher",
            env_id="course/Reacher-v0",
            algo=MPCConfig(horizon=10, model=LARGE),
            train=TrainConfig(total_steps=8_000, initial_steps=2_000, num_envs=5),
        ),
        RunConfig(
            preset="mpc-cheetah",
            env_id="course/CheetahRun-v0",
            algo=MPCConfig(horizon=15, model=LARGE),
            train=TrainConfig(total_steps=20_000, initial_steps=5_000, num_envs=5, trial_steps=500),
        ),
        RunConfig(
            preset="pets-cartpole",
            env_id="course/CartPoleSwingUpDense-v0",
            algo=PETSConfig(horizon=25, samples=50, iterations=2, elites=5),
            train=TrainConfig(total_steps=2_200),
        ),
        RunConfig(
            preset="pddm-cartpole",
            env_id="course/CartPoleSwingUpDense-v0",
            algo=MPCConfig(
                search="mppi",
                noise_beta=0.5,
                std=1.0,
                temperature=0.3,
                horizon=25,
                samples=50,
                iterations=2,
            ),
            train=TrainConfig(total_steps=2_200),
        ),
        RunConfig(
            preset="pets-pendulum",
            env_id="Pendulum-v1",
            algo=PETSConfig(horizon=20, samples=100, iterations=3, elites=10),
            train=TrainConfig(total_steps=2_000),
        ),
        RunConfig(
            preset="pets-invertedpendulum",
            env_id="InvertedPendulum-v5",
            algo=PETSConfig(horizon=15, samples=60, iterations=2, elites=6),
            train=TrainConfig(total_steps=1_000, trial_steps=100),
        ),
        DynaRunConfig(
            preset="mbpo-invertedpendulum",
            env_id="InvertedPendulum-v5",
            algo=MBPOConfig(real_ratio=0.1, branches=500, horizon=10, final_horizon=10),
            learner=SACConfig(gamma=0.98, lr=1e-3, hidden=(64, 64), tau=0.02, alpha=0.2),
            train=DynaTrainConfig(
                total_steps=1_500, learning_starts=250, fit_every=125, updates=10, eval_episodes=5
            ),
        ),
        DynaRunConfig(
            preset="mbpo-cheetah",
            env_id="course/CheetahRun-v0",
            algo=MBPOConfig(branches=2_500, horizon=10, final_horizon=10, capacity=100_000, model=ROUGH),
            learner=SACConfig(lr=1e-3, hidden=SMALL),
            train=RUNNING,
        ),
        DynaRunConfig(
            preset="mbpo-hopper",
            env_id="Hopper-v5",
            algo=MBPOConfig(branches=10_000, capacity=40_000, model=ROUGH),
            learner=SACConfig(lr=1e-3, hidden=SMALL, target_entropy=-1.0),
            train=replace(RUNNING, total_steps=15_000, learning_starts=1_000, updates=10),
        ),
        DynaRunConfig(
            preset="imagined-naf-pendulum",
            env_id="Pendulum-v1",
            algo=MBPOConfig(real_ratio=0.5, horizon=5, final_horizon=5, model=MEANS),
            learner=NAFConfig(gamma=0.98, tau=0.01),
            train=replace(PENDULUM, total_steps=2_000, updates=5),
        ),
        DynaRunConfig(
            preset="mve-pendulum",
            env_id="Pendulum-v1",
            algo=MVEConfig(model=replace(MEANS, members=1, elites=1)),
            learner=DDPGConfig(gamma=0.98, hidden=SMALL),
            train=PENDULUM,
        ),
        DynaRunConfig(
            preset="steve-pendulum",
            env_id="Pendulum-v1",
            algo=STEVEConfig(model=MEANS),
            learner=DDPGConfig(gamma=0.98, hidden=SMALL, critics=4),
            train=PENDULUM,
        ),
        RunConfig(
            preset="backprop-pendulum",
            env_id="Pendulum-v1",
            algo=BackpropConfig(
                model=DynamicsConfig(members=3, elites=3, probabilistic=False, max_epochs=60, patience=10)
            ),
            train=TrainConfig(total_steps=1_600),
        ),
        RunConfig(
            preset="pilco-pendulum",
            env_id="course/PendulumSwingUpDense-v0",
            algo=PILCOConfig(),
            train=TrainConfig(total_steps=320, initial_steps=40, trial_steps=40),
        ),
        FinetuneRunConfig(
            preset="finetune-pendulum",
            env_id="Pendulum-v1",
            algo=FinetuneConfig(horizon=20, samples=50, iterations=2, elites=5),
            learner=PPOConfig(gamma=0.95, log_std=-1.5, normalize_reward=True),
            train=TrainConfig(total_steps=40_000, initial_steps=1_000, num_envs=5),
        ),
        *(
            RunConfig(
                preset=f"{name}-pointmass",
                env_id="course/PointMassPixels-v0",
                algo=kind(horizon=8),
                train=TrainConfig(total_steps=2_600, initial_steps=1_000, num_envs=5, trial_steps=40),
            )
            for name, kind in (
                ("latent", LatentConfig),
                ("e2c", E2CConfig),
                ("solar", LatentLQRConfig),
                ("rssm", RSSMConfig),
            )
        ),
        RunConfig(
            preset="foresight-push",
            env_id="course/PushPixels-v0",
            # The way around the block is long: noise that trembles does not find it.
            algo=ForesightConfig(
                search="mppi",
                noise_beta=0.3,
                std=3.0,
                temperature=1.0,
                horizon=10,
                samples=60,
                model=FlowConfig(first_updates=3_000),
            ),
            train=TrainConfig(total_steps=4_700, initial_steps=4_000, num_envs=16, trial_steps=24),
        ),
        RunConfig(
            preset="latent-pendulum",
            env_id="course/PendulumPixels-v0",
            algo=LatentConfig(
                horizon=15, samples=150, iterations=4, elites=15, model=LatentModelConfig(first_updates=1_000)
            ),
            train=TrainConfig(total_steps=8_000, initial_steps=2_000, num_envs=4, trial_steps=100),
        ),
    )
}


def task_of(config: RunConfig | FinetuneRunConfig) -> ModelTask | None:
    """What is known of the task, or a refusal; from pixels nothing is."""
    if type(config.algo) in PIXEL_AGENTS:
        return None
    return (goal_of if isinstance(config.algo, PILCOConfig) else model_task)(config.env_id)


def build(config: RunConfig | FinetuneRunConfig, spec: EnvSpec, task: ModelTask | None) -> MPC:
    algo, seed = config.algo, config.seed
    if task is None:
        ok = spec.obs_dim == FRAMES * SIZE**2 or isinstance(algo, ForesightConfig)  # which sees to it
        require(ok, f"env_id must show pixels, as course/PointMassPixels-v0 does, got {config.env_id!r}")
        return PIXEL_AGENTS[type(algo)](spec, algo, seed)
    if isinstance(config, RunConfig):
        return AGENTS[type(algo)](spec, task, algo, seed)
    learner = PPO(spec, config.learner, config.train.rounds, torch.device("cpu"), seed)
    return Finetune(spec, task, algo, learner, seed)


def run(config: RunConfig | FinetuneRunConfig | DynaRunConfig) -> str:
    if isinstance(config, DynaRunConfig):
        return run_dyna(config)
    cpu = begin(config)
    task = task_of(config)
    envs = registry.make_envs(config.env_id, config.train.num_envs)
    spec = registry.spec(envs)
    agent = build(config, spec, task)
    replay = Replay(config.train.end, spec, cpu)
    start = resume_point(config, cpu)
    if "agent" in start:
        checkpoint.restore(agent, start["agent"])
        replay.load_state_dict(start["replay"])
    directory = cli.run_directory(config, HOMEWORK)
    logger = RunLogger(directory, config.train.end, start["step"], start["wall_s"])
    status = "failed"
    try:
        collector = Collector(envs, cpu)
        status = train(agent, collector, replay, logger, config.train, config.seed, start["step"])
    finally:
        command = shlex.join(["python", "-m", f"{HOMEWORK}.run", *sys.argv[1:]])
        logger.close(status, command=command, device="cpu")
        envs.close()
    if task is None and status == "finished":
        path = film(agent, config.env_id, child_seed(config.seed, "film"), directory / "frames.png")
        print(f"frames, seen and foreseen: {opener()} {path}")
    return conclude(config, HOMEWORK, status, logger, agent.act)


def begin(config: cli.RunOptions) -> torch.device:
    """What every run does first; the device is the CPU."""
    cpu = device.setup(config.device, config.threads)
    require(cpu.type == "cpu", f"device must be cpu for this homework, got {cpu.type}")
    seed_everything(config.seed)
    return cpu


def run_dyna(config: DynaRunConfig) -> str:
    cpu = begin(config)
    task = model_task(config.env_id)
    envs = registry.make_envs(config.env_id, 1)
    eval_envs = registry.make_envs(config.env_id, config.train.eval_episodes)
    spec = registry.spec(envs)
    learner = LEARNERS[type(config.learner)](
        spec, config.learner, config.train.total_updates, cpu, config.seed
    )
    imagination = IMAGINATIONS[type(config.algo)](spec, task, config.algo, config.seed)
    replay = Replay(config.train.total_steps, spec, cpu)
    start = resume_point(config, cpu)
    if "agent" in start:
        checkpoint.restore(learner, start["agent"])
        checkpoint.restore(imagination, start["imagination"])
        replay.load_state_dict(start["replay"])
    directory = cli.run_directory(config, HOMEWORK)
    logger = RunLogger(directory, config.train.total_steps, start["step"], start["wall_s"])
    status = "failed"
    try:
        status = dyna_trainer.train(
            learner,
            imagination,
            Collector(envs, cpu),
            replay,
            eval_envs,
            logger,
            config.train,
            config.seed,
            start["step"],
        )
    finally:
        command = shlex.join(["python", "-m", f"{HOMEWORK}.run", *sys.argv[1:]])
        logger.close(status, command=command, device="cpu")
        envs.close()
        eval_envs.close()
    return conclude(config, HOMEWORK, status, logger, learner.act)


if __name__ == "__main__":
    cli.main(PRESETS, default="mpc-obstacles", run=run)
