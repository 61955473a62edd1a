"""CartPole seen by a camera that takes single pictures."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

SEEN = [0, 2]  # of [position of the cart, its velocity, angle of the pole, its velocity]


class CartPoleNoVelocity(CartPoleEnv):
    """CartPole-v1 that shows [position, angle] only: o_t is not a state, o_{t-1}, o_t together nearly are.

    A policy of o_t alone cannot damp the pole and lets it fall within some 50 steps; one that remembers can
    balance it as long as it likes.
    """

    def __init__(self, **options):
        super().__init__(**options)
        box = self.observation_space
        self.observation_space = gym.spaces.Box(box.low[SEEN], box.high[SEEN], dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed, options=options)
        return obs[SEEN], info

    def step(self, action):
        obs, *rest = super().step(action)
        return obs[SEEN], *rest
