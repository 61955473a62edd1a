"""The smallest environment that tells a time limit from an end."""

from __future__ import annotations

import gymnasium as gym
import numpy as np


class ConstantReward(gym.Env):
    """Reward 1 for ever, one state. Registered with a time limit of 8 steps, which is no end of the task:
    V = 1 / (1 - gamma). Who takes the limit for a termination learns at most (1 - gamma^8) / (1 - gamma).
    """

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action):
        return np.ones(1, np.float32), 1.0, False, False, {}
