"""Cart-pole swing-up with a reward at every step, as PETS has it (Chua et al. 2018, appendix): from hanging,
bring the tip of the pole above the origin and keep it there."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from common.envs.drawing import draw
from common.envs.integration import discretize
from common.envs.model_tasks import POLE, cartpole_reward
from common.envs.systems import CartPole

SYSTEM = CartPole(length=POLE)
FORCE = 10.0  # N, of a full action
STEP = discretize(SYSTEM.dynamics, 0.04)


def observe(x: Tensor) -> Tensor:
    """[position, angle, velocity, w] -> [position, velocity, cos, sin, w]: [..., 4] -> [..., 5]"""
    position, angle, v, w = x.unbind(-1)
    return torch.stack([position, v, angle.cos(), angle.sin(), w], -1)


class CartPoleDense(gym.Env):
    """x = [position, angle, velocity, w], an angle of zero hangs; dt = 0.04 s."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012, as Gymnasium has it
    observation_space = Box(-np.inf, np.inf, (5,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = torch.from_numpy(0.1 * self.np_random.standard_normal(4))
        return observe(self.x).numpy().astype(np.float32), {}

    def step(self, action):
        action = torch.as_tensor(action, dtype=torch.float64).clamp(-1, 1)
        before, self.x = self.x, STEP(self.x, FORCE * action)
        obs = observe(self.x)
        reward = cartpole_reward(observe(before), action, obs)
        return obs.numpy().astype(np.float32), float(reward), False, False, {}

    def render(self) -> np.ndarray | None:
        """[400, 600, 3] uint8"""
        if self.render_mode != "rgb_array":
            return None
        return draw(SYSTEM, self.x.numpy(), (0.0, math.pi, 0.0, 0.0))
