"""The loop of Dyna, MBPO and value expansion (Levine's v3.0): a model-free agent learns at every step, and a
model that is fitted now and then helps it.

1  act once, keep the transition
2  every `fit_every` steps: fit the model to all data, imagine from it
3  `updates` times: draw real transitions, let the imagination add to them, let the agent learn

One environment: it is its steps that are to be few.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import gymnasium as gym
import numpy as np
import torch

from common import checkpoint
from common.evaluation import evaluate
from common.logger import RunLogger, numbers
from common.replay import Batch, Replay
from common.rollout import Collector, begin_stretch
from common.seeding import child_seed
from common.types import Agent, Metrics, require, require_at_least


@dataclass(frozen=True)
class DynaTrainConfig:
    total_steps: int = 5_000  # environment steps
    learning_starts: int = 500  # of them random ones before the first fit and the first update
    fit_every: int = 250  # environment steps between fits of the model
    updates: int = 1  # gradient steps per environment step
    batch_size: int = 256  # transitions per gradient step
    log_every: int = 250  # environment steps between rows of training metrics
    eval_every: int = 250  # environment steps between evaluations
    eval_episodes: int = 10  # whole episodes per evaluation
    save_every: int = 5_000  # environment steps between checkpoints; the episode starts anew there

    def __post_init__(self):
        require_at_least(self, 1, *vars(self))
        require_at_least(self, 2, "learning_starts")
        starts, total = self.learning_starts, self.total_steps
        require(starts <= total, f"total_steps must be at least learning_starts, {starts}, got {total}")
        require(self.eval_episodes < 2**16, f"eval_episodes must be below 65536, got {self.eval_episodes}")

    @property
    def total_updates(self) -> int:
        """Gradient steps of the whole run."""
        return (self.total_steps - self.learning_starts + 1) * self.updates


class Imagination(Protocol):
    def fit(self, data: Batch, learner: Agent) -> Metrics:
        """Fit the model to all data."""

    def augment(self, batch: Batch, learner: Agent) -> Batch:
        """What the agent learns from instead of a batch of real transitions."""


def train(
    learner: Agent,
    imagination: Imagination,
    collector: Collector,
    replay: Replay,
    eval_envs: gym.vector.VectorEnv,
    logger: RunLogger,
    config: DynaTrainConfig,
    seed: int,
    step: int = 0,
) -> str:
    """From environment step `step` to the end; "finished", or "interrupted" by Ctrl-C, checkpoint saved."""
    c, draws, shown = config, begin_stretch(collector, seed, step), {}
    action_dim = replay.spec.action_dim

    def uniform(obs: np.ndarray, step: int) -> np.ndarray:
        return 2 * torch.rand(1, action_dim, generator=draws).numpy() - 1

    with checkpoint.stop_signals() as stop:
        stopping = False
        while step < c.total_steps and not stopping:
            explore = learner.explore if step >= c.learning_starts else uniform
            transition, episode = collector.collect(explore, 1)
            step += 1
            stopping, last = bool(stop), step == c.total_steps
            replay.add_rollout(transition)
            shown |= episode
            if step >= c.learning_starts:
                if (step - c.learning_starts) % c.fit_every == 0:
                    shown |= imagination.fit(replay.everything(), learner)
                    checkpoint.require_finite(imagination, step)
                for _ in range(c.updates):
                    batch = replay.sample(c.batch_size, draws)
                    shown |= learner.update(imagination.augment(batch, learner))
            save = stopping or last or step % c.save_every == 0
            if save or step % c.log_every == 0:
                logger.write("train", step, numbers(shown))
                shown = {}
            if last or step % c.eval_every == 0:
                checkpoint.require_finite(learner, step)
                logger.write("eval", step, evaluate(learner.act, eval_envs, child_seed(seed, "eval", step)))
            if save:
                checkpoint.require_finite(learner, step)
                parts = {"agent": learner, "imagination": imagination}
                state = {name: checkpoint.state_of(part) for name, part in parts.items()}
                state["replay"] = replay.state_dict()
                checkpoint.save(logger.directory / "checkpoint", step, wall_s=logger.wall_s, **state)
                draws = begin_stretch(collector, seed, step)
    return "finished" if step == c.total_steps else "interrupted"
