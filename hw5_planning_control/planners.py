"""All planners under one signature: states x_0 [N, n], first controls [N, T, m] -> N plans side by side.

iLQR, DDP  improve the first controls, and give feedback gains K around the trajectory they end at
LQR        linearises at the goal; exact where the task is linear-quadratic
CEM, MPPI  search from the first controls, max over u_0..u_{T-1} of -cost; no feedback, so they replan

Model-predictive control plans anew at every state and plays the first control only; its planner starts from
the last plan, shifted by what has been played (the warm start).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from common.envs.control_tasks import ControlTask, GymnasiumPendulum
from common.stochastic_search import cem, mppi
from common.types import require_at_least, require_positive, require_unit
from hw5_planning_control.ddp import ddp
from hw5_planning_control.derivatives import expand
from hw5_planning_control.ilqr import ILQRConfig, ilqr
from hw5_planning_control.lqr import forward, lqr
from hw5_planning_control.problem import TrajectoryProblem

Task = ControlTask | GymnasiumPendulum
Planner = Callable[[Tensor, Tensor], NamedTuple]  # x [N, n], u [N, T, m] -> a Plan, or more


class Plan(NamedTuple):
    """u_t = u^_t + K_t (x_t - x^_t), where x^, u^ are `x` and `u`."""

    x: Tensor  # [N, T+1, n]
    u: Tensor  # [N, T, m]
    K: Tensor  # [N, T, m, n]


@dataclass(frozen=True)
class LQRConfig:
    control_weight: float = 1.0  # times the task's cost of control

    def __post_init__(self):
        require_positive(self, "control_weight")


@dataclass(frozen=True)
class CEMConfig:
    iterations: int = 3  # refits per plan
    samples: int = 100  # plans per refit
    elites: int = 10  # best samples, to which the Gaussian is refitted
    std: float = 0.7  # of the first Gaussian, as a share of half the control's range
    alpha: float = 0.0  # weight of the old mean and variance in the new
    spacing: int = 5  # steps between the knots of the search; 1 searches every control on its own

    def __post_init__(self):
        require_at_least(self, 1, "iterations", "samples", "elites", "spacing")
        require_positive(self, "std")
        require_unit(self, "alpha")


@dataclass(frozen=True)
class MPPIConfig:
    iterations: int = 1  # moves of the mean per plan
    samples: int = 300  # plans per move
    std: float = 0.7  # of the samples, as a share of half the control's range
    temperature: float = 1.0  # in units of cost: what a sample may cost more and still count
    spacing: int = 5  # steps between the knots of the search; 1 searches every control on its own

    def __post_init__(self):
        require_at_least(self, 1, "iterations", "samples", "spacing")
        require_positive(self, "std", "temperature")


def problem_of(task: Task, x: Tensor, horizon: int) -> TrajectoryProblem:
    """From x [N, n] on, the task's control limits included."""
    jacobian = getattr(task, "jacobian", None)
    return TrajectoryProblem(
        task.step, task.cost, task.final_cost, x, horizon, task.u_low, task.u_high, jacobian=jacobian
    )


def ilqr_planner(task: Task, config: ILQRConfig, generator: torch.Generator) -> Planner:
    return lambda x, u: ilqr(problem_of(task, x, u.shape[1]), u, config)


def ddp_planner(task: Task, config: ILQRConfig, generator: torch.Generator) -> Planner:
    return lambda x, u: ddp(problem_of(task, x, u.shape[1]), u, config)


def lqr_planner(task: ControlTask, config: LQRConfig, generator: torch.Generator) -> Planner:
    """The expansion at rest in the goal, with deviations from both as state and control."""

    def plan(x: Tensor, u: Tensor) -> Plan:
        N, T, m = u.shape
        goal, rest = x.new_tensor(task.goal), u.new_full((m,), task.rest)
        e = expand(problem_of(task, goal, 1), goal.expand(2, -1), rest[None])
        C = e.C.clone()
        C[:, task.n :, task.n :] *= config.control_weight
        f = (task.step(goal, rest) - goal)[None]
        F, f, C, c = (part.expand(T, *part.shape[1:]) for part in (e.F, f, C, e.c))
        solution = lqr(F, f, C, c, e.C_final, e.c_final)
        dx, du = forward(F, f, solution.K, solution.k, x - goal)
        return Plan(goal + dx, rest + du, solution.K.expand(N, -1, -1, -1))

    return plan


def cem_planner(task: Task, config: CEMConfig, generator: torch.Generator) -> Planner:
    def search(score: Callable[[Tensor], Tensor], mean: Tensor) -> Tensor:
        std = config.std * half_range(task)
        return cem(
            score,
            mean,
            std,
            config.iterations,
            config.samples,
            config.elites,
            config.alpha,
            generator=generator,
        ).best

    return _search_planner(task, config.spacing, search)


def mppi_planner(task: Task, config: MPPIConfig, generator: torch.Generator) -> Planner:
    def search(score: Callable[[Tensor], Tensor], mean: Tensor) -> Tensor:
        std = config.std * half_range(task)
        return mppi(
            score, mean, std, config.temperature, config.iterations, config.samples, generator=generator
        ).mean

    return _search_planner(task, config.spacing, search)


def _search_planner(task: Task, spacing: int, search: Callable[..., Tensor]) -> Planner:
    """Over z, where u = first controls + F z and F interpolates between knots: what differs at every step
    averages out in the motion, so that white noise explores little. The first controls stay if they win."""

    def plan(x: Tensor, u: Tensor) -> Plan:
        N, T, m = u.shape
        F = interpolation(T, spacing)

        def controls(z: Tensor) -> Tensor:
            return (u + F @ z.unflatten(-1, (-1, m))).clamp(task.u_low, task.u_high)

        zero = u.new_zeros(N, F.shape[1] * m)
        found = controls(search(lambda z: -cost_of(task, x, controls(z)), zero))
        better = cost_of(task, x, found) < cost_of(task, x, u)
        found = torch.where(better[:, None, None], found, u)
        return Plan(problem_of(task, x, T).rollout(found), found, u.new_zeros(N, T, m, task.n))

    return plan


def interpolation(T: int, spacing: int) -> Tensor:
    """F [T, knots]: linear interpolation between knots `spacing` steps apart; spacing 1 is the identity."""
    knots = -(-(T - 1) // spacing) + 1
    distance = torch.arange(T)[:, None] / spacing - torch.arange(knots)
    return (1 - distance.abs()).clamp(min=0).double()


def cost_of(task: Task, x: Tensor, u: Tensor) -> Tensor:
    """Of the controls u [..., N, T, m] from x [N, n] on: [..., N]"""
    x = x.expand(*u.shape[:-2], -1)
    total = torch.zeros_like(x[..., 0])
    for u_t in u.unbind(-2):
        total = total + task.cost(x, u_t)
        x = task.step(x, u_t)
    return total + task.final_cost(x)


def half_range(task: Task) -> float:
    return (task.u_high - task.u_low) / 2
