"""The supervised loop, in rounds: fit to D, evaluate, and where there is an expert to ask, aggregate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from common import checkpoint
from common.evaluation import evaluate
from common.logger import RunLogger
from common.seeding import child_seed, generator
from common.types import Metrics, require, require_at_least


@dataclass(frozen=True)
class TrainConfig:
    total_steps: int = 3_000  # gradient steps, rounded up to whole rounds
    round_steps: int = 500  # gradient steps between evaluations, and between questions to the expert
    batch_size: int = 128  # pairs per gradient step
    demonstrations: int = 30  # steps of the expert to begin with
    data: str = ""  # file of demonstrations (.npz) to begin with instead
    noise: float = 0.0  # deviation of what shakes the expert's hand while it demonstrates
    cameras: float = 0.0  # m to the left and the right, where two more cameras look on (lane keeping)
    validation: float = 0.0  # share of the first trajectories that is kept out to measure the loss
    compare: bool = False  # train a clone beside it, of the first demonstrations only
    eval_episodes: int = 3  # whole episodes per evaluation

    def __post_init__(self):
        require_at_least(
            self, 1, "total_steps", "round_steps", "batch_size", "demonstrations", "eval_episodes"
        )
        require(self.eval_episodes <= 4096, f"eval_episodes must be at most 4096, got {self.eval_episodes}")
        for name in ("noise", "cameras"):
            value = getattr(self, name)
            require(0 <= value < 2**16, f"{name} must lie in [0, 65536), got {value}")
        require(not (self.noise and self.cameras), "noise must be 0 where there are cameras")
        ok = not (self.data and (self.noise or self.cameras))
        require(ok, "noise and cameras must be 0 where data are of a file, nothing is demonstrated")
        require(0 <= self.validation < 1, f"validation must lie in [0, 1), got {self.validation}")

    @property
    def rounds(self) -> int:
        return -(-self.total_steps // self.round_steps)


class Data(Protocol):
    """Pairs (o, a), as hw1_imitation.demonstrations.Demonstrations."""

    obs: Tensor  # [M, D]
    action: Tensor  # [M] or [M, K]

    def joined(self, other: Data) -> Data:
        """D <- D + D_i"""


class Learner(Protocol):
    def act(self, obs: np.ndarray) -> np.ndarray:
        """[N, D] -> [N] or [N, K]"""

    def observe(self, obs: Tensor) -> None:
        """[M, D] that are new in D"""

    def loss(self, obs: Tensor, action: Tensor) -> Tensor:
        """Of a batch."""

    def update(self, obs: Tensor, action: Tensor, left: float) -> dict[str, Tensor]:
        """One gradient step, the share `left` of its round still to come."""


def train(
    learner: Learner,
    data: Data,
    validation: Data | None,
    ask: Callable[[int], Data] | None,
    clone: tuple[Learner, Data] | None,
    eval_envs: gym.vector.VectorEnv,
    logger: RunLogger,
    config: TrainConfig,
    seed: int,
    step: int = 0,
) -> str:
    """From gradient step `step` to the end; "finished", or "interrupted" by Ctrl-C after the running round.

    `ask(i)`: the pairs that the expert labels before round i. `clone`: a learner that is left with its data.
    """
    end = config.rounds * config.round_steps
    if step == 0:
        learner.observe(data.obs)
        if clone:
            clone[0].observe(clone[1].obs)
    with checkpoint.stop_signals() as stop:
        while step < end and not stop:
            if ask and step:
                new = ask(step // config.round_steps)
                learner.observe(new.obs)
                data = data.joined(new)
            started = logger.wall_s
            metrics = fit(learner, data, config, generator(seed, "batch", step))
            speed = config.round_steps / (logger.wall_s - started)
            if clone:
                fit(*clone, config, generator(seed, "clone", step))
            if validation is not None:
                with torch.inference_mode():
                    loss = learner.loss(validation.obs, validation.action)
                metrics |= {"loss/validation": float(loss)}
            step += config.round_steps
            labels = {"data/labels": float(len(data.obs))}
            logger.write("train", step, metrics | labels | {"speed/steps_per_s": speed})
            checkpoint.require_finite(learner, step)
            eval_seed = child_seed(seed, "eval", step)
            scores = evaluate(learner.act, eval_envs, eval_seed)
            if clone:
                scores["policy/clone_return"] = evaluate(clone[0].act, eval_envs, eval_seed)["return_mean"]
            logger.write("eval", step, scores | labels)
            state = {"learner": checkpoint.state_of(learner), "data": dict(vars(data))}
            if validation is not None:
                state["validation"] = dict(vars(validation))
            if clone:
                state |= {"clone": checkpoint.state_of(clone[0]), "clone_data": dict(vars(clone[1]))}
            checkpoint.save(logger.directory / "checkpoint", step, wall_s=logger.wall_s, **state)
    return "finished" if step == end else "interrupted"


def fit(learner: Learner, data: Data, config: TrainConfig, draws: torch.Generator) -> Metrics:
    """`round_steps` gradient steps on batches drawn uniformly from the pairs; the means of what they tell."""
    rows = torch.randint(len(data.obs), (config.round_steps, config.batch_size), generator=draws)
    told = [
        learner.update(data.obs[batch], data.action[batch], 1 - k / len(rows)) for k, batch in enumerate(rows)
    ]
    return {key: float(torch.stack([row[key] for row in told]).mean()) for key in told[0]}
