"""Small discrete environments whose values are known."""

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete

from common.envs.finite_mdp import FiniteMDP, random_mdp


class Arrays(gym.Env):
    """A FiniteMDP to walk in, cut after `limit` steps: terminates where the arrays are at rest."""

    def __init__(self, mdp: FiniteMDP, limit: int = 100):
        self.mdp, self.limit = mdp, limit
        self.observation_space, self.action_space = Discrete(len(mdp.P)), Discrete(mdp.P.shape[1])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.state = 0, int(self.np_random.choice(len(self.mdp.P), p=self.mdp.start))
        return self.state, {}

    def step(self, action):
        self.t += 1
        self.state, reward, terminated = self.mdp.step(self.state, action, self.np_random)
        return self.state, reward, terminated, self.t == self.limit, {}


class Script(gym.Env):
    """Plays back (state, action taken, reward, next state, terminated, truncated) whatever is done."""

    def __init__(self, steps: list[tuple], states: int = 3, actions: int = 2):
        self.steps, self.k, self.actions = steps, 0, []
        self.observation_space, self.action_space = Discrete(states), Discrete(actions)

    def reset(self, *, seed=None, options=None):
        return self.steps[self.k][0], {}

    def step(self, action):
        _, reward, state, terminated, truncated = self.steps[self.k]
        self.k += 1
        self.actions.append(int(action))
        return state, reward, terminated, truncated, {}


def garnet_env(limit: int = 100) -> Arrays:
    """Five states, two actions; it never terminates, it is cut."""
    return Arrays(random_mdp(5, 2, 2, np.random.default_rng(3)), limit)
