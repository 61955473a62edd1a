"""A throw at a target beyond a wall or before it: an episode of one step, in which only the start matters.

The ball leaves the ground at the origin with velocity (vx, vz) and lands at x = 2 vx vz / g, or at the foot
of a wall that it did not clear: z = vz t - g t^2 / 2 at t = |wall| / |vx|. Flat throws reach the near
targets, only high ones the far. After the lobbing task of Ghosh et al. 2018.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

G = 9.81  # m/s^2
SPEED = 10.0  # m/s, sideways at most, and upwards
WALL, HEIGHT = 4.0, 3.0  # m, a wall on either side
REACH = 8.0  # m, of the targets
WIDTH = 0.5  # m, a miss that costs 0.4 of the reward


def landing(action: Tensor) -> Tensor:
    """x in m [...] of throws [..., 2] in [-1, 1]: sideways, and from no speed upwards to all of it."""
    vx, vz = SPEED * action[..., 0], SPEED / 2 * (1 + action[..., 1])
    x, t = 2 * vx * vz / G, WALL / vx.abs().clamp(min=1e-9)
    stopped = (x.abs() > WALL) & (vz * t - G / 2 * t.square() < HEIGHT)
    return torch.where(stopped, WALL * vx.sign(), x)


def reward(target: Tensor, action: Tensor) -> Tensor:
    """exp(-1/2 (miss / width)^2) [...], of target [...] in m and action [..., 2]."""
    return (-0.5 * ((landing(action) - target) / WIDTH).square()).exp()


class LobEnv(gym.Env):
    """Observation: the target over the wall's distance."""

    metadata = {"render_modes": []}  # noqa: RUF012, as Gymnasium has it

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self.observation_space = Box(-REACH / WALL, REACH / WALL, (1,), np.float32)
        self.action_space = Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.target = self.np_random.uniform(-REACH, REACH)
        return self._obs(), {}

    def step(self, action):
        throw = torch.as_tensor(action, dtype=torch.float64).clamp(-1, 1)
        return self._obs(), float(reward(torch.tensor(self.target), throw)), True, False, {}

    def _obs(self) -> np.ndarray:
        return np.array([self.target / WALL], np.float32)
