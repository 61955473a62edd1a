"""The on-policy loop: collect T steps of N environments, learn from them, evaluate, save."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from common import checkpoint
from common.evaluation import evaluate
from common.logger import RunLogger
from common.rollout import Collector
from common.seeding import child_seed, seed_everything
from common.types import Agent, Metrics, require, require_at_least

LOG_EVERY = 256  # environment steps between rows of metrics; shorter rollouts share one, as their mean


@dataclass(frozen=True)
class TrainConfig:
    total_steps: int = 100_000  # environment steps, rounded up to whole rollouts
    num_envs: int = 8  # N, environments side by side
    rollout_steps: int = 256  # T, steps of each environment per update
    eval_every: int = 5_000  # environment steps between evaluations
    eval_episodes: int = 20  # whole episodes per evaluation
    save_every: int = 50_000  # environment steps between checkpoints; episodes start anew there

    def __post_init__(self):
        require_at_least(self, 1, *vars(self))
        for name in ("num_envs", "eval_episodes"):
            value = getattr(self, name)
            require(value < 2**16, f"{name} must lie in [1, 65535], got {value}")

    @property
    def rollout_size(self) -> int:
        """Environment steps per update."""
        return self.num_envs * self.rollout_steps

    @property
    def updates(self) -> int:
        return -(-self.total_steps // self.rollout_size)


def train(
    agent: Agent,
    collector: Collector,
    eval_envs: gym.vector.VectorEnv,
    logger: RunLogger,
    config: TrainConfig,
    seed: int,
    step: int = 0,
) -> str:
    """From environment step `step` to the end; "finished", or "interrupted" by Ctrl-C, checkpoint saved."""
    size, end = config.rollout_size, config.updates * config.rollout_size
    _begin(collector, seed, step)
    with checkpoint.stop_signals() as stop:
        stopping, rows = False, []
        while step < end and not stopping:
            if not rows:
                started = logger.wall_s
            rollout, episodes = collector.collect(agent.explore, config.rollout_steps)
            stopping = bool(stop)
            save = stopping or step + size == end or _passes(step, size, config.save_every)
            score = step + size == end or _passes(step, size, config.eval_every)
            rows.append(agent.update(rollout.cut() if save else rollout) | episodes)
            step += size
            if save or score or _passes(step - size, size, LOG_EVERY):
                speed = {"speed/steps_per_s": size * len(rows) / (logger.wall_s - started)}
                logger.write("train", step, _mean(rows) | speed)
                rows = []
            checkpoint.require_finite(agent, step)
            if score:
                logger.write("eval", step, evaluate(agent.act, eval_envs, child_seed(seed, "eval", step)))
            if save:
                state = checkpoint.state_of(agent)
                checkpoint.save(logger.directory / "checkpoint", step, wall_s=logger.wall_s, agent=state)
                _begin(collector, seed, step)
    return "finished" if step == end else "interrupted"


def _begin(collector: Collector, seed: int, step: int) -> None:
    """Resumed or not, what follows a checkpoint starts from here: no environment state is ever stored."""
    seed_everything(child_seed(seed, "global", step))
    collector.reset(child_seed(seed, "env", step), step)


def _mean(rows: list[Metrics]) -> Metrics:
    """Of each key over the rows that have it: an episode does not end in every rollout."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: float(np.mean([row[key] for row in rows if key in row])) for key in keys}


def _passes(step: int, size: int, every: int) -> bool:
    """Does (step, step + size] hold a multiple of `every`?"""
    return (step + size) // every > step // every
