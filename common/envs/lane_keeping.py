"""A car on a winding road that sees it through a camera of 8 x 24 pixels and steers.

e' = v sin psi, psi' = v (u - kappa(s)), s' = v cos psi    e m left of the middle, psi rad left of the road
theta(s) = sum_i A_i sin(w_i s + phi_i) is the road's direction, kappa = dtheta/ds; the phases are drawn.
Row j looks at the ground d_j ahead, column i in direction alpha_i: bright where the road is. The reward is
the way along the road in m, and an episode ends off the road.
"""

from __future__ import annotations

from itertools import pairwise

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from common.envs.drawing import BLUE, GRAY, Shape, box, picture

SPEED = 0.5  # m per step
HALF = 1.0  # m, from the middle of the road to its edge
STEERING = 0.25  # 1/m, the sharpest curve that the car can take
BENDS = ((0.45, 0.11), (0.25, 0.23))  # A_i rad, w_i 1/m
DISTANCE = np.linspace(1.5, 8.5, 8)  # m, of the rows
ANGLE = np.deg2rad(np.linspace(-50, 50, 24))  # rad, of the columns, to the left
BLUR = 0.1  # m, of the road's edge
AHEAD = 4  # row that the expert steers for


class LaneKeepingEnv(gym.Env):
    """Observation: the picture, row by row, the nearest first."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012, as Gymnasium has it

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self.observation_space = Box(0, 1, (DISTANCE.size * ANGLE.size,), np.float32)
        self.action_space = Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.phase = self.np_random.uniform(0, 2 * np.pi, len(BENDS))
        self.s, self.e, self.psi = 0.0, *self.np_random.uniform(-0.02, 0.02, 2)
        return self.camera(), {}

    def step(self, action):
        u = STEERING * float(np.clip(action[0], -1, 1))
        curvature = sum(a * w * np.cos(w * self.s + p) for (a, w), p in zip(BENDS, self.phase, strict=True))
        along = SPEED * np.cos(self.psi)
        self.s += along
        self.e += SPEED * np.sin(self.psi)
        self.psi += SPEED * (u - curvature)
        return self.camera(), float(along), bool(abs(self.e) > HALF), False, {}

    def middle(self, d: np.ndarray) -> np.ndarray:
        """Of the road, in m to the left of the car's nose, `d` m ahead of it: [...] -> [...]

        For small angles: -e + int_0^d (theta(s + r) - theta(s) - psi) dr.
        """
        y = -self.e - self.psi * d
        for (a, w), p in zip(BENDS, self.phase, strict=True):
            now = w * self.s + p
            y += a * ((np.cos(now) - np.cos(now + w * d)) / w - np.sin(now) * d)
        return y

    def camera(self, shift: float = 0.0) -> np.ndarray:
        """The picture [192] of the camera, or of one that is mounted `shift` m to the left."""
        ground = DISTANCE[:, None] * np.tan(ANGLE) + shift  # [8, 24] m to the left
        inside = HALF - np.abs(ground - self.middle(DISTANCE)[:, None])
        return (1 / (1 + np.exp(-inside / BLUR))).astype(np.float32).ravel()

    def render(self) -> np.ndarray:
        """From above, driving to the right; in the corner what the car sees, far above near."""
        x = np.linspace(-7, 14, 60)
        edges = [np.stack([x, self.middle(x) + side], 1) for side in (-HALF, HALF)]
        lines = [Shape(np.stack(pair), 0.06, GRAY) for edge in edges for pair in pairwise(edge)]
        frame = picture([*lines, box(np.zeros(2), 0.8, 0.4, 0.0, BLUE)], (3.0, 0.0), 12.0)
        seen = self.camera().reshape(DISTANCE.size, ANGLE.size)[::-1, ::-1]  # left is left
        frame[:80, :240] = np.kron((255 * seen[..., None]).astype(np.uint8), np.ones((10, 10, 1), np.uint8))
        return frame


def expert(obs: np.ndarray) -> np.ndarray:
    """Steers for the middle of what one row shows of the road (pure pursuit): [N, 192] -> [N, 1]

    The circle through a point d ahead and y aside has the curvature 2 y / (d^2 + y^2), Coulter 1992. A column
    sees d / cos^2 m of the ground per rad.
    """
    row = obs.reshape(-1, DISTANCE.size, ANGLE.size)[:, AHEAD] / np.cos(ANGLE) ** 2
    y = DISTANCE[AHEAD] * (row * np.tan(ANGLE)).sum(1) / row.sum(1).clip(1e-3)
    return (2 * y / (DISTANCE[AHEAD] ** 2 + y**2) / STEERING).clip(-1, 1)[:, None]


def steer_back(shift: float) -> float:
    """What the expert adds where it stands `shift` m further to the left: its point lies further right."""
    return -2 * shift / DISTANCE[AHEAD] ** 2 / STEERING
