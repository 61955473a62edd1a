"""A point finds its way round discs: small and without inertia, but its dynamics are not smooth.

x_{t+1} = x_t + 0.1 a_t, pushed out of a disc that it would lie in, along the radius: the point slides along.
Reward: minus the distance left. After the obstacles task of the homework on models of Berkeley's CS 285.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pygame
import torch
from gymnasium.spaces import Box

from common.envs.drawing import BLUE, GRAY, ORANGE, WHITE
from common.envs.model_tasks import obstacles_reward

DISCS = np.array([[0.0, 0.0, 0.25], [-0.45, 0.3, 0.2], [0.35, -0.45, 0.2]])  # centre and radius
STRIDE = 0.1  # of a full action, along each axis
PIXELS = 400


def move(position: np.ndarray, action: np.ndarray) -> np.ndarray:
    """[..., 2], [..., 2] in [-1, 1] -> [..., 2]"""
    target = position + STRIDE * np.clip(action, -1, 1)
    for x, y, radius in DISCS:
        arm = target - (x, y)
        distance = np.linalg.norm(arm, axis=-1, keepdims=True)
        target = target + arm * np.maximum(radius / np.maximum(distance, 1e-9) - 1, 0)
    return np.clip(target, -1, 1)


class Obstacles(gym.Env):
    """Observation = [position, goal], each in the square [-1, 1]^2. The goal lies behind the middle disc."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012, as Gymnasium has it
    observation_space = Box(-1, 1, (4,), np.float32)
    action_space = Box(-1, 1, (2,), np.float32)

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        middle = np.array([[-0.6], [0.6]])
        self.position, self.goal = middle + self.np_random.uniform(-0.1, 0.1, (2, 2))
        return self._obs(), {}

    def step(self, action):
        self.position = move(self.position, np.asarray(action, np.float64))
        obs = torch.from_numpy(np.concatenate([self.position, self.goal]))
        reward = obstacles_reward(obs, torch.as_tensor(action), obs)
        return self._obs(), float(reward), False, False, {}

    def _obs(self) -> np.ndarray:
        return np.concatenate([self.position, self.goal]).astype(np.float32)

    def render(self) -> np.ndarray | None:
        """[400, 400, 3] uint8"""
        if self.render_mode != "rgb_array":
            return None
        canvas = pygame.Surface((PIXELS, PIXELS))
        canvas.fill(WHITE)
        own = [(*self.goal, 0.04, ORANGE), (*self.position, 0.04, BLUE)]
        for x, y, radius, color in [*((*disc, GRAY) for disc in DISCS), *own]:
            centre = ((1 + x) * PIXELS / 2, (1 - y) * PIXELS / 2)
            pygame.draw.circle(canvas, color, centre, radius * PIXELS / 2)
        return np.swapaxes(pygame.surfarray.array3d(canvas), 0, 1).copy()
