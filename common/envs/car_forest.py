"""A car at constant speed that steers through a forest: the planner knows where the trees stand, the driver
sees what the lidar tells.

c(x, u) = 1/2 (0.3 north^2 + 0.5 heading^2 + 0.2 steering^2) + 3 sum_trees exp(-8 (clearance - 0.1 m))

All functions take x [..., 4] = [east, north, heading, speed] and u [..., 1], the steering angle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from common.envs.drawing import BLUE, GRAY, ORANGE, Shape, box, picture
from common.envs.systems import Car


def trees(count: int = 31, spacing: float = 1.0, seed: int = 7) -> tuple[tuple[float, float, float], ...]:
    """One every `spacing` metres, 1.5 m or less beside the way: east, north, radius of each."""
    aside = torch.rand(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return tuple((1 + spacing * k, 3 * each - 1.5, 0.4) for k, each in enumerate(aside))


@dataclass(frozen=True)
class CarForest:
    n: ClassVar[int] = 4
    m: ClassVar[int] = 1
    car: Car = field(default_factory=lambda: Car(obstacles=trees()))
    dt: float = 0.15  # s
    speed: float = 1.6  # m/s
    reach: float = 2.5  # m, the lidar sees no further
    beams: int = 7  # of the lidar, from the right to the left
    field: float = 1.4  # rad, of the outermost beams from straight ahead
    edge: float = 3.0  # m, half the width of the forest; beyond it the car counts as lost
    u_low: float = -0.6  # rad
    u_high: float = 0.6  # rad

    def step(self, x: Tensor, u: Tensor) -> Tensor:
        """x_{t+1} [..., 4] by Euler's method"""
        return x + self.dt * self.car.dynamics(x, torch.cat([torch.zeros_like(u), u], -1))

    def jacobian(self, x: Tensor, u: Tensor) -> Tensor:
        """d x_{t+1} / d[x; u] [..., 4, 5]"""
        J = self.dt * self.car.jacobian(x, torch.cat([torch.zeros_like(u), u], -1))
        ahead = J[..., :4] + torch.eye(4, dtype=x.dtype)
        return torch.cat([ahead, J[..., 5:]], -1)  # nobody accelerates

    def cost(self, x: Tensor, u: Tensor) -> Tensor:
        """c [...]"""
        ahead = 0.3 * x[..., 1].square() + 0.5 * x[..., 2].square() + 0.2 * u[..., 0].square()
        return 0.5 * ahead + self._danger(x)

    def final_cost(self, x: Tensor) -> Tensor:
        """c_T [...]"""
        return 0.5 * (x[..., 1].square() + x[..., 2].square()) + self._danger(x)

    def _danger(self, x: Tensor) -> Tensor:
        return 3 * (-8 * (self.car.clearance(x) - 0.1)).exp().sum(-1)

    def crashed(self, x: Tensor) -> Tensor:
        """Into a tree, or lost beside the forest: [...] bool"""
        return (self.car.clearance(x) < 0).any(-1) | (x[..., 1].abs() > self.edge)

    def starts(self, count: int, generator: torch.Generator) -> Tensor:
        """x_0 [count, 4] anywhere in the first 20 m, where the lidar sees no tree within a metre."""
        found = torch.empty(0, 4, dtype=torch.float64)
        low, high = torch.tensor([[0, -1, -0.3, self.speed], [20, 1, 0.3, self.speed]], dtype=torch.float64)
        while len(found) < count:
            x = low + (high - low) * torch.rand(count, 4, generator=generator, dtype=torch.float64)
            found = torch.cat([found, x[(self.lidar(x) > 1).all(-1) & ~self.crashed(x)]])
        return found[:count]

    def lidar(self, x: Tensor) -> Tensor:
        """m to the next tree along each beam, at most `reach`: [..., beams]"""
        discs = x.new_tensor(self.car.obstacles)
        east, north = (discs[:, :2] - x[..., None, :2])[..., None, :, :].unbind(-1)  # [..., 1, trees]
        angle = (x[..., 2:3] + torch.linspace(-self.field, self.field, self.beams).to(x))[..., None]
        along = east * angle.cos() + north * angle.sin()  # [..., beams, trees]
        inside = discs[:, 2].square() - (north * angle.cos() - east * angle.sin()).square()
        distance = torch.where((inside > 0) & (along > 0), along - inside.clamp(min=0).sqrt(), math.inf)
        return distance.amin(-1).clamp(0, self.reach)

    def observe(self, x: Tensor) -> Tensor:
        """What the driver sees, [..., beams + 2]: nearness 1 - lidar/reach, north, heading."""
        return torch.cat([1 - self.lidar(x) / self.reach, x[..., 1:3]], -1)


FOREST = CarForest()


class CarForestEnv(gym.Env):
    """Reward 1 for every step, and a crash ends the episode: the return is the time to failure, steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / FOREST.dt)}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self.observation_space = Box(-np.inf, np.inf, (FOREST.beams + 2,), np.float64)
        self.action_space = Box(FOREST.u_low, FOREST.u_high, (FOREST.m,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        generator = torch.Generator().manual_seed(int(self.np_random.integers(2**62)))
        self.x = FOREST.starts(1, generator)[0]
        return FOREST.observe(self.x).numpy(), {}

    def step(self, action):
        u = torch.as_tensor(action, dtype=torch.float64).clamp(FOREST.u_low, FOREST.u_high)
        self.x = FOREST.step(self.x, u)
        return FOREST.observe(self.x).numpy(), 1.0, bool(FOREST.crashed(self.x)), False, {}

    def render(self) -> np.ndarray | None:
        """[400, 600, 3] uint8: 12 m x 8 m from above, ahead is to the right."""
        if self.render_mode != "rgb_array":
            return None
        east, north, heading, _ = self.x.tolist()
        here = np.array([east, north])
        beams = zip(
            np.linspace(-FOREST.field, FOREST.field, FOREST.beams), FOREST.lidar(self.x).tolist(), strict=True
        )
        ends = [here + d * np.array([np.cos(heading + a), np.sin(heading + a)]) for a, d in beams]
        parts = [Shape(np.stack([here, end]), 0.02, ORANGE) for end in ends]
        parts += [Shape(np.array([[e, n]]), 2 * r, GRAY) for e, n, r in FOREST.car.obstacles]
        parts += [
            Shape(np.array([[-9.0, side], [99.0, side]]), 0.05, GRAY) for side in (-FOREST.edge, FOREST.edge)
        ]
        return picture([*parts, box(here, 0.4, 0.2, heading, BLUE)], (east + 3, 0.0), 12.0)
