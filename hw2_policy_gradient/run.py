"""python -m hw2_policy_gradient.run ppo-cartpole --seed 3 --algo.lr 5e-4"""

from __future__ import annotations

import shlex
import sys
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from gymnasium.vector import VectorEnv

from common import checkpoint, cli, device
from common.envs import registry
from common.logger import RunLogger
from common.population import Players, Search, Workers, groups
from common.rollout import Collector
from common.seeding import seed_everything
from common.session import conclude, resume_point
from common.types import Agent
from hw2_policy_gradient import a3c, evolution_trainer
from hw2_policy_gradient.a2c import A2C, A2CConfig
from hw2_policy_gradient.a3c import A3C, A3CConfig
from hw2_policy_gradient.actor_critic import ActorCritic, ActorCriticConfig
from hw2_policy_gradient.evolution import CMAES, CMAESConfig, Evolution, EvolutionConfig
from hw2_policy_gradient.evolution_trainer import EvolutionTrainConfig
from hw2_policy_gradient.natural_gradient import NaturalGradient, NaturalGradientConfig
from hw2_policy_gradient.off_policy_actor_critic import OffPolicyActorCritic, OffPolicyActorCriticConfig
from hw2_policy_gradient.ppo import PPO, PPOConfig
from hw2_policy_gradient.ppo_penalty import PPOPenalty, PPOPenaltyConfig
from hw2_policy_gradient.recurrent import RecurrentPPO, RecurrentPPOConfig
from hw2_policy_gradient.reinforce import Reinforce, ReinforceConfig
from hw2_policy_gradient.trainer import TrainConfig, train
from hw2_policy_gradient.trpo import TRPO, TRPOConfig

HOMEWORK = "hw2_policy_gradient"
AGENTS = {
    ReinforceConfig: Reinforce,
    ActorCriticConfig: ActorCritic,
    A2CConfig: A2C,
    A3CConfig: A3C,
    OffPolicyActorCriticConfig: OffPolicyActorCritic,
    NaturalGradientConfig: NaturalGradient,
    TRPOConfig: TRPO,
    PPOConfig: PPO,
    PPOPenaltyConfig: PPOPenalty,
    RecurrentPPOConfig: RecurrentPPO,
}
SEARCHES = {EvolutionConfig: Evolution, CMAESConfig: CMAES}  # without a gradient
Algo = (
    ReinforceConfig
    | ActorCriticConfig
    | A2CConfig
    | A3CConfig
    | OffPolicyActorCriticConfig
    | NaturalGradientConfig
    | TRPOConfig
    | PPOConfig
    | PPOPenaltyConfig
    | RecurrentPPOConfig
    | EvolutionConfig
    | CMAESConfig
)


@dataclass(frozen=True, kw_only=True)
class RunConfig(cli.RunOptions):
    algo: Algo  # settings of the algorithm
    train: TrainConfig | EvolutionTrainConfig = field(default_factory=TrainConfig)  # settings of the loop

    def __post_init__(self):
        super().__post_init__()
        if type(self.algo) in SEARCHES:
            groups(self.algo.population, self.train.num_envs)


LONG = TrainConfig(total_steps=1_000_000, eval_every=50_000, save_every=100_000)
MUJOCO = replace(LONG, rollout_steps=128, eval_episodes=10)
PRESETS = {
    config.preset: config
    for config in (
        RunConfig(
            preset="ppo-cartpole",
            env_id="CartPole-v1",
            algo=PPOConfig(
                lam=0.9, lr=2e-3, clip_decay=True, epochs=6, batch_size=256, recompute_advantage=False
            ),
            train=TrainConfig(num_envs=32, rollout_steps=32),
        ),
        RunConfig(
            preset="reinforce-cartpole",
            env_id="CartPole-v1",
            algo=ReinforceConfig(),
            train=TrainConfig(num_envs=8, rollout_steps=250),
        ),
        RunConfig(
            preset="actor-critic-cartpole",
            env_id="CartPole-v1",
            algo=ActorCriticConfig(),
            train=TrainConfig(num_envs=16, rollout_steps=64),
        ),
        RunConfig(
            preset="off-policy-actor-critic-cartpole",
            env_id="CartPole-v1",
            algo=OffPolicyActorCriticConfig(hidden=(128, 128)),
            train=TrainConfig(num_envs=8, rollout_steps=16),
        ),
        RunConfig(
            preset="es-cartpole",
            env_id="CartPole-v1",
            algo=EvolutionConfig(),
            train=EvolutionTrainConfig(),
        ),
        RunConfig(
            preset="cma-es-cartpole",
            env_id="CartPole-v1",
            algo=CMAESConfig(),
            train=EvolutionTrainConfig(),
        ),
        RunConfig(
            preset="cma-es-swimmer",
            env_id="Swimmer-v5",
            algo=CMAESConfig(population=12, sigma=1.0, normalize_obs=True),
            train=EvolutionTrainConfig(
                total_steps=500_000, num_envs=12, eval_every=25_000, eval_episodes=10, save_every=100_000
            ),
        ),
        RunConfig(
            preset="actor-critic-invertedpendulum",
            env_id="InvertedPendulum-v5",
            algo=ActorCriticConfig(),
            train=TrainConfig(num_envs=8, rollout_steps=64, eval_every=10_000, eval_episodes=10),
        ),
        RunConfig(
            preset="online-actor-critic-cartpole",
            env_id="CartPole-v1",
            algo=A2CConfig(gamma=0.98, lr=3e-4, entropy_weight=0.01),
            train=TrainConfig(num_envs=1, rollout_steps=1),
        ),
        RunConfig(
            preset="a2c-cartpole",
            env_id="CartPole-v1",
            algo=A2CConfig(gamma=0.98, lr=2e-3, entropy_weight=0.01),
            train=TrainConfig(num_envs=8, rollout_steps=8),
        ),
        RunConfig(
            preset="a2c-lunarlander",
            env_id="LunarLander-v3",
            algo=A2CConfig(gamma=0.995, lam=1.0, lr=4e-4, entropy_weight=1e-5),
            train=TrainConfig(total_steps=1_000_000, rollout_steps=5, eval_every=50_000, save_every=100_000),
        ),
        RunConfig(
            preset="a3c-cartpole",
            env_id="CartPole-v1",
            algo=A3CConfig(gamma=0.98, lr=2e-3, entropy_weight=0.01),
            train=TrainConfig(num_envs=8, rollout_steps=8),
        ),
        RunConfig(
            preset="ppo-pendulum",
            env_id="Pendulum-v1",
            algo=PPOConfig(gamma=0.95, lr=1e-3, value_weight=0.25, normalize_obs=True, normalize_reward=True),
            train=TrainConfig(num_envs=4, eval_every=10_000, eval_episodes=50),
        ),
        RunConfig(
            preset="npg-cartpole",
            env_id="CartPole-v1",
            algo=NaturalGradientConfig(lam=0.98, max_kl_decay=True, damping=1e-3),
            train=TrainConfig(num_envs=16, rollout_steps=64),
        ),
        RunConfig(
            preset="trpo-cartpole",
            env_id="CartPole-v1",
            algo=TRPOConfig(lam=0.98, max_kl_decay=True, damping=1e-3),
            train=TrainConfig(num_envs=16, rollout_steps=64),
        ),
        RunConfig(
            preset="ppo-penalty-cartpole",
            env_id="CartPole-v1",
            algo=PPOPenaltyConfig(lam=0.9, lr=1e-3, batch_size=256, normalize_reward=True),
            train=TrainConfig(num_envs=32, rollout_steps=32),
        ),
        RunConfig(
            preset="recurrent-ppo-cartpole",
            env_id="course/CartPoleNoVelocity-v0",
            algo=RecurrentPPOConfig(lam=0.9, lr=2e-3, clip_decay=True, epochs=4, batch_envs=16),
            train=TrainConfig(num_envs=32, rollout_steps=32),
        ),
        RunConfig(
            preset="trpo-acrobot",
            env_id="Acrobot-v1",
            algo=TRPOConfig(normalize_obs=True, normalize_reward=True),
            train=TrainConfig(num_envs=16, rollout_steps=128),
        ),
        RunConfig(
            preset="trpo-lunarlander",
            env_id="LunarLander-v3",
            algo=TRPOConfig(gamma=0.999, lam=0.98, damping=1e-2, normalize_reward=True),
            train=replace(LONG, num_envs=16, rollout_steps=256),
        ),
        RunConfig(
            preset="trpo-halfcheetah",
            env_id="HalfCheetah-v5",
            algo=TRPOConfig(
                gamma=0.98,
                lam=0.92,
                max_kl=0.02,
                damping=0.01,
                value_epochs=5,
                log_std=-1.0,
                normalize_obs=True,
                normalize_reward=True,
            ),
            train=MUJOCO,
        ),
        RunConfig(
            preset="trpo-hopper",
            env_id="Hopper-v5",
            algo=TRPOConfig(
                max_kl=0.02, max_kl_decay=True, log_std=-0.5, normalize_obs=True, normalize_reward=True
            ),
            train=replace(MUJOCO, num_envs=16),
        ),
        RunConfig(
            preset="ppo-lunarlander",
            env_id="LunarLander-v3",
            algo=PPOConfig(gamma=0.999, lam=0.98, epochs=4, entropy_weight=0.01, normalize_reward=True),
            train=replace(LONG, num_envs=16, rollout_steps=1024),
        ),
        RunConfig(
            preset="ppo-halfcheetah",
            env_id="HalfCheetah-v5",
            algo=PPOConfig(
                gamma=0.98,
                lam=0.92,
                value_weight=0.25,
                log_std=-1.0,
                normalize_obs=True,
                normalize_reward=True,
            ),
            train=MUJOCO,
        ),
        RunConfig(
            preset="ppo-hopper",
            env_id="Hopper-v5",
            algo=PPOConfig(value_weight=0.25, log_std=-0.5, normalize_obs=True, normalize_reward=True),
            train=replace(MUJOCO, rollout_steps=256),
        ),
        RunConfig(
            preset="ppo-swimmer",
            env_id="Swimmer-v5",
            algo=PPOConfig(
                gamma=0.9999,
                lam=0.98,
                lr=6e-4,
                batch_size=256,
                normalize_obs=True,
                normalize_reward=True,
            ),
            train=replace(MUJOCO, num_envs=4, rollout_steps=1024),
        ),
    )
}


def build(config: RunConfig, torch_device: torch.device) -> tuple[Agent | Search, VectorEnv]:
    """The agent and the environments that it learns in."""
    envs = registry.make_envs(config.env_id, config.train.num_envs)
    spec = registry.spec(envs)
    if kind := SEARCHES.get(type(config.algo)):
        return kind(spec, config.algo, torch_device, config.seed), envs
    kind = AGENTS[type(config.algo)]
    return kind(spec, config.algo, config.train.updates, torch_device, config.seed), envs


def learn(
    config: RunConfig,
    agent: Agent | Search,
    envs: VectorEnv,
    eval_envs: VectorEnv,
    logger: RunLogger,
    step: int,
    torch_device: torch.device,
) -> str:
    """The loop of the algorithm, from environment step `step`."""
    c = config.train
    if isinstance(agent, A3C):
        with closing(a3c.Workers(agent, partial(registry.make_envs, config.env_id, c.num_envs))) as workers:
            return train(agent, workers, eval_envs, logger, c, config.seed, step)
    if type(config.algo) not in SEARCHES:
        return train(agent, Collector(envs, torch_device), eval_envs, logger, c, config.seed, step)
    if c.workers == 1:
        players = Players(agent, envs, config.seed)
        return evolution_trainer.train(agent, players, eval_envs, logger, c, config.seed, step)
    copy = partial(build, config, torch_device)
    with Workers(copy, agent, c.num_envs, c.workers, config.seed) as players:
        return evolution_trainer.train(agent, players, eval_envs, logger, c, config.seed, step)


def run(config: RunConfig) -> str:
    torch_device = device.setup(config.device, config.threads)
    seed_everything(config.seed)
    agent, envs = build(config, torch_device)
    eval_envs = registry.make_envs(config.env_id, config.train.eval_episodes)
    start = resume_point(config, torch_device)
    if "agent" in start:
        checkpoint.restore(agent, start["agent"])
    directory = cli.run_directory(config, HOMEWORK)
    logger = RunLogger(directory, config.train.total_steps, start["step"], start["wall_s"])
    status = "failed"
    try:
        status = learn(config, agent, envs, eval_envs, logger, start["step"], torch_device)
    finally:
        command = shlex.join(["python", "-m", f"{HOMEWORK}.run", *sys.argv[1:]])
        logger.close(status, command=command, device=str(torch_device))
        envs.close()
        eval_envs.close()
    return conclude(config, HOMEWORK, status, logger, agent.act)


if __name__ == "__main__":
    a3c.share_imports()
    cli.main(PRESETS, default="ppo-cartpole", run=run)
