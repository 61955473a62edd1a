"""The plan-execute loop: open loop, feedback along the plan, model-predictive control with a warm start."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from common import checkpoint
from common.envs.control_tasks import random_controls
from common.evaluation import evaluate, scores
from common.logger import RunLogger
from common.seeding import child_seed
from common.types import Metrics, require, require_at_least


class Task(Protocol):
    """The equations of an environment, as in common.envs.control_tasks."""

    m: int
    horizon: int
    u_low: float
    u_high: float
    rest: float
    state: Callable[[np.ndarray], Tensor]
    action: Callable[[Tensor], np.ndarray]


class Plan(Protocol):
    x: Tensor  # [N, T+1, n]
    u: Tensor  # [N, T, m]
    K: Tensor  # [N, T, m, n]


Planner = Callable[[Tensor, Tensor], Plan]  # states [N, n], first controls [N, T, m]


@dataclass(frozen=True)
class OptimizeConfig:
    starts: int = 1  # problems solved side by side, from random first controls each
    start_std: float = 0.1  # of the first controls, as a share of half their range

    def __post_init__(self):
        require_at_least(self, 1, "starts")
        ok = 0 <= self.start_std < math.inf
        require(ok, f"start_std must be finite and at least 0, got {self.start_std}")


@dataclass(frozen=True)
class ControlConfig:
    total_steps: int = 10_000  # environment steps, rounded up to whole episodes of num_envs
    num_envs: int = 10  # episodes side by side
    horizon: int = 0  # steps planned ahead; 0 is up to the end of the episode
    replan_every: int = 0  # steps played of each plan; 1 is model-predictive control, 0 plans once
    feedback: bool = True  # add K (x - x^) to the planned control
    noise: float = 0.0  # standard deviation of what the environment adds to every state

    def __post_init__(self):
        require_at_least(self, 1, "total_steps", "num_envs")
        require_at_least(self, 0, "horizon", "replan_every")
        require(0 <= self.noise < math.inf, f"noise must be finite and at least 0, got {self.noise}")
        ok = self.horizon == 0 or 1 <= self.replan_every <= self.horizon
        require(ok, f"replan_every must lie in [1, horizon = {self.horizon}], got {self.replan_every}")


class Controller:
    """A planner as a policy of N environments, all at the same step of their episodes."""

    def __init__(
        self, planner: Planner, task: Task, horizon: int = 0, replan_every: int = 0, feedback: bool = True
    ):
        self.planner, self.task, self.feedback = planner, task, feedback
        self.horizon, self.replan_every = horizon or task.horizon, replan_every or task.horizon

    def begin(self, first: np.ndarray) -> None:
        if first.all():
            self.t, self.plan = 0, None

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        x, age = self.task.state(obs), self.t % self.replan_every
        if age == 0:
            self.plan = self.planner(x, self.first_controls(len(x)))
        u = self.plan.u[:, age]
        if self.feedback:
            u = u + (self.plan.K[:, age] @ (x - self.plan.x[:, age])[..., None])[..., 0]
        self.t += 1
        return self.task.action(u)

    def first_controls(self, episodes: int) -> Tensor:
        """The warm start [N, T, m]: what the last plan would do next, then rest. T ends with the episode."""
        length = max(min(self.horizon, self.task.horizon - self.t), 1)
        known = [] if self.plan is None else [self.plan.u[:, self.replan_every :][:, :length]]
        left = length - sum(u.shape[1] for u in known)
        rest = torch.full((episodes, left, self.task.m), self.task.rest, dtype=torch.float64)
        return torch.cat([*known, rest], 1)


def optimize(
    planner: Planner,
    task: Task,
    envs: gym.vector.VectorEnv,
    logger: RunLogger,
    config: OptimizeConfig,
    seed: int,
) -> tuple[Metrics, Plan]:
    """Plan once, write a row per iteration, also by how many digits the cost still lies above its last value,
    then play the plans. Scores as played, and the best plan."""
    obs, _ = envs.reset(seed=child_seed(seed, "env"))
    x = task.state(obs)
    plan = planner(x, random_controls(task, len(x), config.start_std, seed))
    excess = (plan.cost_history - plan.cost[:, None]).clamp(min=1e-16).log10().mean(0)
    for step, cost in enumerate(plan.cost_history.unbind(-1)):
        found = scores(-cost.numpy(), np.full(len(cost), float(task.horizon)))
        logger.write("eval", step, found | {"plan/log10_excess": excess[step].item()})
    last = {"plan/converged": plan.converged.double(), "grad/norm": plan.gradient_norm}
    logger.write("train", step, {key: value.mean().item() for key, value in last.items()})
    if not plan.converged.all():
        left = f"{(~plan.converged).sum()} of {len(x)} plans have not converged"
        print(f"{left}; the gradient's norm is up to {plan.gradient_norm.max():.2g}")
    checkpoint.save(logger.directory / "checkpoint", step, wall_s=logger.wall_s, u=plan.u)
    played = evaluate(Controller(lambda x, u: plan, task), envs, child_seed(seed, "env"))
    return played, only(plan, int(plan.cost.argmin()))


def only(plan: Plan, i: int) -> Plan:
    """Plan number i, as the only one."""
    return plan._replace(**{name: getattr(plan, name)[i : i + 1] for name in ("x", "u", "K")})


def control(
    make_controller: Callable[[int], Callable[[np.ndarray], np.ndarray]],
    envs: gym.vector.VectorEnv,
    logger: RunLogger,
    config: ControlConfig,
    seed: int,
    step: int = 0,
) -> str:
    """Episodes from environment step `step` to the end, one evaluation and one checkpoint per batch of them;
    "finished", or "interrupted" by Ctrl-C after the running batch."""
    with checkpoint.stop_signals() as stop:
        while step < config.total_steps and not stop:
            started = logger.wall_s
            controller = make_controller(child_seed(seed, "plan", step))
            found = evaluate(controller, envs, child_seed(seed, "env", step))
            size = round(found["length_mean"] * found["episodes"])
            step += size
            logger.write("eval", step, found)
            logger.write("train", step, {"speed/steps_per_s": size / (logger.wall_s - started)})
            checkpoint.save(logger.directory / "checkpoint", step, wall_s=logger.wall_s)
    return "finished" if step >= config.total_steps else "interrupted"


def pool(rows: Iterable[Metrics]) -> Metrics:
    """The scores of all episodes from those of batches."""
    rows = list(rows)
    episodes = np.array([row["episodes"] for row in rows])
    mean, std, length = (
        np.array([row[key] for row in rows]) for key in ("return_mean", "return_std", "length_mean")
    )
    total = np.average(mean, weights=episodes)
    return {
        "return_mean": float(total),
        "return_std": float(np.sqrt(np.average(std**2 + (mean - total) ** 2, weights=episodes))),
        "return_min": min(row["return_min"] for row in rows),
        "return_max": max(row["return_max"] for row in rows),
        "length_mean": float(np.average(length, weights=episodes)),
        "episodes": int(episodes.sum()),
    }
