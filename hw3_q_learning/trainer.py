"""The off-policy loop. Three processes at rates of their own (Levine's lecture on Q-learning):

1  collect          `collect_steps` steps of each environment per round, into a memory of `capacity`
2  update targets   every `target_period` gradient steps, which the agent counts
3  regress          `updates` gradient steps per round

                        capacity    collect_steps   updates     target_period
online Q-iteration      1           1               1           1               all at one speed, no memory
DQN                     large       K               K           slow            1 and 3 side by side
fitted Q-iteration      large       large           K N         N               3 inside 2 inside 1
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch

from common import checkpoint
from common.evaluation import evaluate
from common.logger import RunLogger, numbers
from common.replay import Batch, Replay
from common.rollout import Collector, begin_stretch
from common.seeding import child_seed
from common.types import Agent, EnvSpec, Metrics, require, require_at_least


@dataclass(frozen=True)
class TrainConfig:
    total_steps: int = 100_000  # environment steps, rounded up to whole rounds
    num_envs: int = 1  # N, environments side by side
    collect_steps: int = 1  # steps of each environment per round
    updates: int = 1  # gradient steps per round
    learning_starts: int = 1_000  # environment steps of uniformly random actions before the first update
    batch_size: int = 256  # transitions per gradient step
    capacity: int = 1_000_000  # transitions remembered
    n_step: int = 1  # steps per transition
    priority: float = 0.0  # alpha, exponent of the errors that draw transitions; 0 draws uniformly
    priority_weight: float = 0.4  # beta, exponent of the weights that correct it, 1 at the end of the run
    log_every: int = 1_000  # environment steps between rows of training metrics
    eval_every: int = 5_000  # environment steps between evaluations
    eval_episodes: int = 20  # whole episodes per evaluation
    save_every: int = 50_000  # environment steps between checkpoints; episodes start anew there

    def __post_init__(self):
        require_at_least(self, 1, *(vars(self).keys() - {"priority", "priority_weight"}))
        for name in ("num_envs", "eval_episodes"):
            value = getattr(self, name)
            require(value < 2**16, f"{name} must lie in [1, 65535], got {value}")
        require(0 <= self.priority <= 2, f"priority must lie in [0, 2], got {self.priority}")
        ok = 0 <= self.priority_weight <= 1
        require(ok, f"priority_weight must lie in [0, 1], got {self.priority_weight}")
        for name in ("round_size", "learning_starts"):
            value = getattr(self, name)
            require(
                value <= self.total_steps,
                f"total_steps must be at least {name}, {value}, got {self.total_steps}",
            )
        withheld = self.n_step * self.num_envs  # until as many transitions of n steps are complete
        ok = withheld <= self.learning_starts
        require(
            ok, f"learning_starts must be at least n_step num_envs = {withheld}, got {self.learning_starts}"
        )
        for name in ("learning_starts", "capacity"):  # or there would be fewer to draw from than are drawn
            value = getattr(self, name)
            require(
                self.batch_size <= value, f"batch_size must be at most {name}, {value}, got {self.batch_size}"
            )

    @property
    def round_size(self) -> int:
        """Environment steps per round."""
        return self.num_envs * self.collect_steps

    @property
    def rounds(self) -> int:
        return -(-self.total_steps // self.round_size)

    @property
    def total_updates(self) -> int:
        """Gradient steps of the whole run."""
        idle = -(-self.learning_starts // self.round_size) - 1  # rounds that end before learning starts
        return max(self.rounds - idle, 0) * self.updates


def train(
    agent: Agent,
    collector: Collector,
    replay: Replay,
    eval_envs: gym.vector.VectorEnv,
    logger: RunLogger,
    config: TrainConfig,
    seed: int,
    step: int = 0,
    update: Callable[[Batch], Metrics] | None = None,
) -> str:
    """From environment step `step` to the end; "finished", or "interrupted" by Ctrl-C, checkpoint saved.

    `update` stands for agent.update where that is launched in another way.
    """
    update = update or agent.update
    size, end = config.round_size, config.rounds * config.round_size
    draws, shown = begin_stretch(collector, seed, step), {}
    logged_at, logged_s = step, logger.wall_s
    with checkpoint.stop_signals() as stop:
        stopping = False
        while step < end and not stopping:
            explore = agent.explore if step >= config.learning_starts else _uniform(replay.spec, draws)
            rollout, episodes = collector.collect(explore, config.collect_steps)
            step += size
            stopping = bool(stop)
            save = stopping or step == end or _passes(step, size, config.save_every)
            replay.add_rollout(rollout, last=save)
            shown |= episodes
            for _ in range(config.updates if step >= config.learning_starts else 0):
                batch = replay.sample(config.batch_size, draws)
                metrics = update(batch)
                if batch.index is not None:
                    replay.reprioritize(batch.index, metrics["value/td_error"])
                shown |= metrics
            if save or _passes(step, size, config.log_every):
                speed = {"speed/steps_per_s": (step - logged_at) / (logger.wall_s - logged_s)}
                logger.write("train", step, numbers(shown) | speed)
                logged_at, logged_s, shown = step, logger.wall_s, {}
            if step == end or _passes(step, size, config.eval_every):
                checkpoint.require_finite(agent, step)
                logger.write("eval", step, evaluate(agent.act, eval_envs, child_seed(seed, "eval", step)))
            if save:
                checkpoint.require_finite(agent, step)
                state = {"agent": checkpoint.state_of(agent), "replay": replay.state_dict()}
                checkpoint.save(logger.directory / "checkpoint", step, wall_s=logger.wall_s, **state)
                draws = begin_stretch(collector, seed, step)
    return "finished" if step == end else "interrupted"


def _uniform(spec: EnvSpec, draws: torch.Generator) -> Callable[[np.ndarray, int], np.ndarray]:
    """The policy that knows nothing yet."""

    def explore(obs: np.ndarray, step: int) -> np.ndarray:
        if spec.discrete:
            return torch.randint(spec.action_dim, (spec.num_envs,), generator=draws).numpy()
        return 2 * torch.rand(spec.num_envs, spec.action_dim, generator=draws).numpy() - 1

    return explore


def _passes(step: int, size: int, every: int) -> bool:
    """Does (step - size, step] hold a multiple of `every`?"""
    return step // every > (step - size) // every
