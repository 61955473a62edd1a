"""Pendulum swing-up as PILCO has it (Deisenroth and Rasmussen 2011): ten decisions a second from hanging,
four seconds, a reward that saturates. The motor holds two fifths of the weight: one push is not enough."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from common.envs.drawing import draw
from common.envs.integration import discretize
from common.envs.model_tasks import swing_up_reward
from common.envs.systems import Pendulum

SYSTEM = Pendulum(damping=0.05, u_max=4.0)
STEP = discretize(SYSTEM.dynamics, 0.1)


def observe(x: Tensor) -> Tensor:
    """[angle, w] -> [cos, sin, w]: [..., 2] -> [..., 3]"""
    angle, w = x.unbind(-1)
    return torch.stack([angle.cos(), angle.sin(), w], -1)


class PendulumDense(gym.Env):
    """x = [angle, w], an angle of zero hangs; dt = 0.1 s."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012, as Gymnasium has it
    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = torch.from_numpy(0.1 * self.np_random.standard_normal(2))
        return observe(self.x).numpy().astype(np.float32), {}

    def step(self, action):
        action = torch.as_tensor(action, dtype=torch.float64).clamp(-1, 1)
        before, self.x = self.x, STEP(self.x, SYSTEM.u_max * action)
        obs = observe(self.x)
        reward = swing_up_reward(observe(before), action, obs)
        return obs.numpy().astype(np.float32), float(reward), False, False, {}

    def render(self) -> np.ndarray | None:
        """[400, 600, 3] uint8"""
        if self.render_mode != "rgb_array":
            return None
        return draw(SYSTEM, self.x.numpy(), (math.pi, 0.0))
