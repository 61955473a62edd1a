"""The model-based loop (Levine's lecture on model-based reinforcement learning):

1  collect data with random actions
2  fit the model to all data
3  play a trial: N episodes side by side, planned through the model
4  add the trial to the data (v1.0 and v1.5); or as many steps of random actions, the trial itself being
   forgotten (v0.5): then the plan visits what the model has never seen, and nothing tells it so
5  go on with 2

The return of a trial is the evaluation, at the number of steps that the data hold after it: no step is
hidden, and none is played twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from common import checkpoint
from common.logger import RunLogger
from common.replay import Batch, Replay
from common.rollout import Collector
from common.seeding import child_seed, generator, seed_everything
from common.types import EnvSpec, Metrics, Rollout, require, require_at_least


@dataclass(frozen=True)
class TrainConfig:
    total_steps: int = 2_000  # environment steps, rounded up to whole trials
    initial_steps: int = 200  # of them random ones before the first fit, rounded up to whole steps of N
    num_envs: int = 1  # N, episodes of a trial
    trial_steps: int = 200  # steps of each
    aggregate: bool = True  # add trials to the data; otherwise random steps (v0.5)

    def __post_init__(self):
        require_at_least(self, 1, "total_steps", "num_envs", "trial_steps")
        require_at_least(self, 2, "initial_steps")
        require(self.num_envs < 2**16, f"num_envs must lie in [1, 65535], got {self.num_envs}")
        ok = self.end < 2**31
        require(ok, f"trial_steps and total_steps must make less than 2^31 steps, got {self.end}")

    @property
    def round_size(self) -> int:
        """Environment steps per trial."""
        return self.num_envs * self.trial_steps

    @property
    def first_steps(self) -> int:
        """Random environment steps before the first fit."""
        return -(-self.initial_steps // self.num_envs) * self.num_envs

    @property
    def rounds(self) -> int:
        """Trials."""
        return max(-(-(self.total_steps - self.first_steps) // self.round_size), 1)

    @property
    def end(self) -> int:
        """Environment steps of the whole run."""
        return self.first_steps + self.rounds * self.round_size


class ModelBasedAgent(Protocol):
    act: Callable[[np.ndarray], np.ndarray]
    explore: Callable[[np.ndarray, int], np.ndarray]

    def update(self, batch: Batch) -> Metrics:
        """Fit the model to all data."""


def train(
    agent: ModelBasedAgent,
    collector: Collector,
    replay: Replay,
    logger: RunLogger,
    config: TrainConfig,
    seed: int,
    step: int = 0,
) -> str:
    """From environment step `step` to the end; "finished", or "interrupted" by Ctrl-C, checkpoint saved."""
    with checkpoint.stop_signals() as stop:
        if step == 0:
            rollout, _ = play_random(collector, replay.spec, config.first_steps, seed, step)
            replay.add_rollout(rollout.cut(), last=True)
            step = config.first_steps
        while step < config.end and not stop:
            before = logger.wall_s
            metrics = agent.update(replay.everything())
            checkpoint.require_finite(agent, step)
            fitted = logger.wall_s
            collector.reset(child_seed(seed, "env", step), step)
            trial, _ = collector.collect(agent.explore, config.trial_steps)
            speed = {"speed/fit_s": fitted - before, "speed/trial_s": logger.wall_s - fitted}
            scores = first_returns(trial)
            if not config.aggregate:
                trial, _ = play_random(collector, replay.spec, config.round_size, seed, step)
            replay.add_rollout(trial.cut(), last=True)
            step += config.round_size
            logger.write("train", step, metrics | speed)
            logger.write("eval", step, scores)
            state = {"agent": checkpoint.state_of(agent), "replay": replay.state_dict()}
            checkpoint.save(logger.directory / "checkpoint", step, wall_s=logger.wall_s, **state)
    return "finished" if step >= config.end else "interrupted"


def play_random(
    collector: Collector, spec: EnvSpec, steps: int, seed: int, step: int
) -> tuple[Rollout, Metrics]:
    """`steps` environment steps of uniformly random actions, in new episodes."""
    seed_everything(child_seed(seed, "global", step))
    collector.reset(child_seed(seed, "random env", step), step)
    draws = generator(seed, "random", step)

    def explore(obs: np.ndarray, step: int) -> np.ndarray:
        return 2 * torch.rand(spec.num_envs, spec.action_dim, generator=draws).numpy() - 1

    return collector.collect(explore, steps // spec.num_envs)


def first_returns(trial: Rollout) -> Metrics:
    """Undiscounted return of the first episode of each environment, up to its end or that of the trial."""
    ended = trial.ended.long().cumsum(0)  # [T, N] episodes that have ended, this step included
    first = (ended - trial.ended.long()) == 0
    total, length = (trial.reward.double() * first).sum(0), first.double().sum(0)
    return {
        "return_mean": float(total.mean()),
        "return_std": float(total.std(correction=0)),
        "return_min": float(total.min()),
        "return_max": float(total.max()),
        "length_mean": float(length.mean()),
        "episodes": len(total),
    }
