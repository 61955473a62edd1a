"""All planners under one signature: states x_0 [N, n], first controls [N, T, m] -> N plans side by side.

iLQR, DDP  improve the first controls, and give feedback gains K around the trajectory they end at
LQR        linearises at the goal; exact where the task is linear-quadratic
search     from the first controls, see shooting.py; no feedback, so it replans

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
from common.envs.mujoco_task import MujocoTask
from common.types import require, require_positive
from hw5_planning_control.ddp import ddp
from hw5_planning_control.derivatives import expand
from hw5_planning_control.ilqr import ILQRConfig, ilqr
from hw5_planning_control.lqr import forward, lqr
from hw5_planning_control.problem import TrajectoryProblem

Task = ControlTask | GymnasiumPendulum | MujocoTask
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


def problem_of(task: Task, x: Tensor, horizon: int) -> TrajectoryProblem:
    """From x [N, n] on, the task's control limits included."""
    return TrajectoryProblem(task.step, task.cost, task.final_cost, x, horizon, task.u_low, task.u_high)


def ilqr_planner(task: Task, config: ILQRConfig, generator: torch.Generator) -> Planner:
    return lambda x, u: ilqr(problem_of(task, x, u.shape[1]), u, config)


def ddp_planner(task: Task, config: ILQRConfig, generator: torch.Generator) -> Planner:
    return lambda x, u: ddp(problem_of(task, x, u.shape[1]), u, config)


def lqr_planner(task: ControlTask, config: LQRConfig, generator: torch.Generator) -> Planner:
    """The expansion at rest in the goal, with deviations from both as state and control."""
    ok = isinstance(task, ControlTask)
    require(ok, "env_id must have a goal, at which LQR linearises, as course/DoubleIntegrator-v0")

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
