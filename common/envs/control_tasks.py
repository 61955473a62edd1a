"""Control tasks whose equations the planner knows: a system, a start, a goal and a quadratic cost.

min sum_{t<T} c(x_t, u_t) + c_T(x_T),   x_{t+1} = step(x_t, u_t),
c(x, u) = 1/2 (x - goal)' Q (x - goal) + 1/2 (u - rest)' R (u - rest)
c_T(x) = 1/2 (x - goal)' Q_T (x - goal)

common.envs.control_env plays them as Gymnasium environments. All functions take x [..., n] and u [..., m].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from common.envs.integration import Method, discretize, discretize_jacobian
from common.envs.systems import Acrobot, Car, CartPole, DoubleIntegrator, Pendulum, PlanarQuadrotor, System
from common.seeding import generator
from common.types import UsageError

if TYPE_CHECKING:
    from common.envs.mujoco_task import MujocoTask


@dataclass(frozen=True)
class ControlTask:
    """Q, R and Q_T are diagonal."""

    system: System
    horizon: int  # T, steps
    dt: float  # s, the control is held for so long
    start: tuple[float, ...]  # x_0 [n]
    goal: tuple[float, ...]  # [n]
    Q: tuple[float, ...]  # [n]
    R: tuple[float, ...]  # [m]
    Q_T: tuple[float, ...]  # [n]
    spread: float = 0.0  # standard deviation of x_0 around `start`
    u_low: float = -1.0
    u_high: float = 1.0
    rest: float = 0.0  # the control that costs nothing
    method: Method = "rk4"

    @property
    def n(self) -> int:
        return self.system.n

    @property
    def m(self) -> int:
        return self.system.m

    @cached_property
    def step(self) -> Callable[[Tensor, Tensor], Tensor]:
        """x_{t+1} [..., n]"""
        return discretize(self.system.dynamics, self.dt, self.method)

    @cached_property
    def jacobian(self) -> Callable[[Tensor, Tensor], Tensor]:
        """d x_{t+1} / d[x; u] [..., n, n+m]"""
        return discretize_jacobian(self.system.dynamics, self.system.jacobian, self.dt, self.method)

    def cost(self, x: Tensor, u: Tensor) -> Tensor:
        """c [...]"""
        return self._distance(x, self.Q) + 0.5 * ((u - self.rest).square() * u.new_tensor(self.R)).sum(-1)

    def final_cost(self, x: Tensor) -> Tensor:
        """c_T [...]"""
        return self._distance(x, self.Q_T)

    def _distance(self, x: Tensor, weight: tuple[float, ...]) -> Tensor:
        return 0.5 * ((x - x.new_tensor(self.goal)).square() * x.new_tensor(weight)).sum(-1)

    def state(self, obs: np.ndarray) -> Tensor:
        """Observations [N, D] -> x [N, n] float64. The last entry of an observation is the time."""
        return torch.from_numpy(obs[:, :-1].astype(np.float64))

    def action(self, u: Tensor) -> np.ndarray:
        """u [N, m] -> actions in [-1, 1], as common.envs.registry takes them."""
        middle, half = (self.u_high + self.u_low) / 2, (self.u_high - self.u_low) / 2
        return ((u - middle) / half).numpy()


class GymnasiumPendulum:
    """Pendulum-v1: semi-implicit Euler, limited speed and torque, cost = -reward. Zero stands upright."""

    n, m, horizon, dt = 2, 1, 200, 0.05
    u_low, u_high, rest = -2.0, 2.0, 0.0
    action = ControlTask.action

    def step(self, x: Tensor, u: Tensor) -> Tensor:
        angle, w = x.unbind(-1)
        w = (w + (15 * angle.sin() + 3 * u[..., 0]) * self.dt).clamp(-8, 8)
        return torch.stack([angle + w * self.dt, w], -1)

    def cost(self, x: Tensor, u: Tensor) -> Tensor:
        angle = (x[..., 0] + math.pi).remainder(2 * math.pi) - math.pi
        return angle.square() + 0.1 * x[..., 1].square() + 0.001 * u[..., 0].square()

    def final_cost(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[..., 0])

    def state(self, obs: np.ndarray) -> Tensor:
        """[cos, sin, w] -> [angle, w]"""
        c, s, w = torch.from_numpy(obs.astype(np.float64)).unbind(-1)
        return torch.stack([torch.atan2(s, c), w], -1)


TASKS: dict[str, ControlTask | GymnasiumPendulum] = {
    "Pendulum-v1": GymnasiumPendulum(),
    "course/DoubleIntegrator-v0": ControlTask(
        DoubleIntegrator(u_max=10.0), horizon=50, dt=0.1, start=(0.0, 0.0), goal=(0.0, 0.0), spread=1.0,
        Q=(1.0, 0.1), R=(0.1,), Q_T=(10.0, 10.0), u_low=-10.0, u_high=10.0,
    ),
    "course/PendulumSwingUp-v0": ControlTask(
        Pendulum(u_max=3.0), horizon=100, dt=0.05, start=(0.0, 0.0), goal=(math.pi, 0.0),
        Q=(0.0, 0.0), R=(0.1,), Q_T=(1000.0, 100.0), u_low=-3.0, u_high=3.0,
    ),
    # Kelly 2017, section 6: one metre to the side, upright, in two seconds, at the least int u^2 dt.
    "course/CartPoleSwingUp-v0": ControlTask(
        CartPole(u_max=20.0), horizon=50, dt=0.04, start=(0.0,) * 4, goal=(1.0, math.pi, 0.0, 0.0),
        Q=(0.0,) * 4, R=(0.08,), Q_T=(500.0,) * 4, u_low=-20.0, u_high=20.0,
    ),
    # The acrobot of trajax's test suite, whose minima are known to ten digits.
    "course/AcrobotSwingUp-v0": ControlTask(
        Acrobot(u_max=25.0), horizon=50, dt=0.1, start=(0.0,) * 4, goal=(math.pi, 0.0, 0.0, 0.0),
        Q=(0.1,) * 4, R=(0.01,), Q_T=(1000.0,) * 4, u_low=-25.0, u_high=25.0, method="euler",
    ),
    "course/Quadrotor-v0": ControlTask(
        PlanarQuadrotor(), horizon=50, dt=0.05, start=(0.0,) * 6, goal=(3.0, 1.0, 2 * math.pi, 0.0, 0.0, 0.0),
        Q=(0.01,) * 6, R=(0.1, 0.1), Q_T=(100.0,) * 6, u_low=0.0, u_high=5.0, rest=PlanarQuadrotor().hover,
    ),
    # The discs cost nothing: to stay out of them is a constraint, and up to the planner.
    "course/CarDiscs-v0": ControlTask(
        Car(obstacles=((1.0, 1.3, 0.5), (2.2, 1.9, 0.5))), horizon=40, dt=0.1,
        start=(0.0, 0.0, math.pi / 4, 1.0), goal=(3.0, 3.0, math.pi / 4, 0.0),
        Q=(0.0,) * 4, R=(0.1, 0.1), Q_T=(100.0,) * 4, u_low=-0.6, u_high=0.6,
    ),
}  # fmt: skip


def task_of(env_id: str) -> ControlTask | GymnasiumPendulum | MujocoTask:
    """The equations of an environment, or a UsageError where they are not known here."""
    if env_id in TASKS:
        return TASKS[env_id]
    from common.envs.mujoco_task import REWARDS, MujocoTask  # only they need MuJoCo

    if env_id in REWARDS:
        return MujocoTask(env_id)
    known = ", ".join([*TASKS, *REWARDS])
    raise UsageError(f"env_id must have known dynamics, one of {known}, got {env_id!r}")


def random_controls(task: ControlTask, count: int, std: float, seed: int) -> Tensor:
    """First controls [count, T, m] around rest, std as a share of half their range."""
    random = generator(seed, "start")
    noise = torch.randn(count, task.horizon, task.m, generator=random, dtype=torch.float64)
    half = (task.u_high - task.u_low) / 2
    return (task.rest + std * half * noise).clamp(task.u_low, task.u_high)
