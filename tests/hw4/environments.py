"""An environment whose transitions are known."""

import gymnasium as gym
import numpy as np


class Walk(gym.Env):
    """s' = s + a, reward 1, no end."""

    observation_space = gym.spaces.Box(-99, 99, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = np.zeros(1, np.float32)
        return self.x, {}

    def step(self, action):
        self.x = (self.x + action).astype(np.float32)
        return self.x, 1.0, False, False, {}
