"""DAgger: dataset aggregation (Ross, Gordon and Bagnell 2011).

1. fit pi_theta to D
2. run pi_i = beta_i pi* + (1 - beta_i) pi_theta and keep the observations o that it comes to
3. ask the expert what it would have done: D_i = {(o, pi*(o))}
4. D <- D + D_i, and again

Cloning is fitted where the expert goes, and acts where its own mistakes lead. Here both are the same states,
so that the cost is linear in T instead of quadratic (compounding_error.py). beta_i = p^i lets the expert help
while pi_theta knows little; beta_i = 0 from i = 1 on needs no setting and is the usual choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from common.seeding import child_seed
from common.types import require_at_least, require_unit
from hw1_imitation.behavior_cloning import BCConfig
from hw1_imitation.demonstrations import Act, Demonstrations, collect


@dataclass(frozen=True)
class DaggerConfig(BCConfig):
    labels: int = 300  # asked of the expert per round
    beta: float = 0.0  # p: in round i the expert acts with probability p^i in each step

    def __post_init__(self):
        super().__post_init__()
        require_at_least(self, 1, "labels")
        require_unit(self, "beta")


class Mixture:
    """beta pi* + (1 - beta) pi_theta, drawn anew in each step of each environment."""

    def __init__(self, policy: Act, beta: float, generator: np.random.Generator):
        self.policy, self.beta, self.generator = policy, beta, generator

    def __call__(self, obs: np.ndarray, label: np.ndarray) -> np.ndarray:
        """obs [N, D], what the expert says of it [N] or [N, K] -> the same shape"""
        action = self.policy(obs)
        helped = self.generator.random(len(obs)) < self.beta
        if helped.any():
            action = np.array(action)
            action[helped] = label[helped]
        return action


def ask(
    policy: Act, expert: Act, envs: gym.vector.VectorEnv, config: DaggerConfig, i: int, seed: int
) -> Demonstrations:
    """Steps 2 and 3 of round i = 1, 2, ...: D_i, `labels` pairs or a few more, of new episodes."""
    generator = np.random.default_rng(child_seed(seed, "mixture", i))
    mixture = Mixture(policy, config.beta**i, generator)
    steps = -(-config.labels // envs.num_envs)
    return collect(expert, envs, steps, child_seed(seed, "dagger", i), mixture)
