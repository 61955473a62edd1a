"""Trajectory problems, random policies and whole lessons that several tests share."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from common.envs.integration import discretize
from common.envs.linear_quadratic import LinearQuadratic
from common.envs.systems import Acrobot, Pendulum
from common.logger import RunLogger, read_rows
from hw5_planning_control.episodes import Gaussian
from hw5_planning_control.lesson_trainer import Lesson, teach
from hw5_planning_control.problem import TrajectoryProblem

F64 = {"dtype": torch.float64}


def acrobot() -> TrajectoryProblem:
    """trajax's test: 5 s of Euler steps from rest to upright. Its known minima are 40.424009645, 44.513285141
    and 49.288715248."""
    goal = torch.tensor([math.pi, 0.0, 0.0, 0.0], **F64)
    return TrajectoryProblem(
        discretize(Acrobot().dynamics, 0.1, "euler"),
        lambda x, u: 0.05 * (x - goal).square().sum() + 0.005 * u.square().sum(),
        lambda x: 500 * (x - goal).square().sum(),
        torch.zeros(4, **F64),
        horizon=50,
    )


def pendulum(x0: Tensor | None = None, horizon: int = 20, u_max: float | None = None) -> TrajectoryProblem:
    """Swing up in 2 s."""
    goal = torch.tensor([math.pi, 0.0], **F64)
    return TrajectoryProblem(
        discretize(Pendulum().dynamics, 0.1, "euler"),
        lambda x, u: 0.05 * (x - goal).square().sum() + 0.01 * u.square().sum(),
        lambda x: 20 * (x - goal).square().sum(),
        torch.zeros(2, **F64) if x0 is None else x0,
        horizon,
        u_low=None if u_max is None else -u_max,
        u_high=u_max,
    )


def as_problem(s: LinearQuadratic) -> TrajectoryProblem:
    """The same, its matrices handed over step by step."""

    def final(
        x: Tensor, F: Tensor, f: Tensor, C: Tensor, c: Tensor, C_final: Tensor, c_final: Tensor
    ) -> Tensor:
        return x @ (0.5 * C_final @ x + c_final)

    def cost(x: Tensor, u: Tensor, F: Tensor, f: Tensor, C: Tensor, c: Tensor, *_: Tensor) -> Tensor:
        z = torch.cat([x, u])
        return z @ (0.5 * C @ z + c)

    def dynamics(x: Tensor, u: Tensor, F: Tensor, f: Tensor, *_: Tensor) -> Tensor:
        return F @ torch.cat([x, u]) + f

    batch, T = s.f.shape[:-2], s.f.shape[-2]
    stages = [pad(part, (0, 0) * (part.ndim - len(batch) - 1) + (0, 1)) for part in s[:4]]
    ends = [part.unsqueeze(len(batch)).repeat_interleave(T + 1, len(batch)) for part in s[4:6]]
    return TrajectoryProblem(dynamics, cost, final, s.x0, T, args=(*stages, *ends))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), **F64)


def gaussian(seed: int, k: int = 2) -> Gaussian:
    return Gaussian(normal(k, 5, 3, seed=seed), 0.3 * normal(k, 1, 3, seed=seed + 1))


def taught(lesson: Lesson, rounds: int, out: Path) -> tuple[list[dict], list[dict]]:
    """The train rows and the eval rows of a whole lesson."""
    logger = RunLogger(out, rounds)
    assert teach(lesson, logger, rounds) == "finished"
    logger.close("finished")
    written = read_rows(out / "metrics.jsonl")
    train, evals = ([row for row in written if row["split"] == split] for split in ("train", "eval"))
    return train, evals
