"""The largest of noisy estimates is too large: E[max_a X_a] >= max_a E[X_a] (van Hasselt 2010).

If one set of estimates X chooses the action and an independent one Y values it, the bias is gone:
E[Y(argmax_a X_a)] = E[Y_a] for equal actions. That is the step from Q-learning to double Q-learning.
"""

from __future__ import annotations

import math

import gymnasium as gym
from gymnasium.spaces import Discrete
from scipy import integrate, special

from common.types import require

START, BAR, END = 0, 1, 2


def expected_maximum(actions: int, std: float = 1.0) -> float:
    """E[max_a X_a] of independent X_a ~ N(0, std^2), of mean zero: 0.564 std of 2, 1.539 of 10.

    The maximum is below x with probability F(x)^A: E = int x A F(x)^(A-1) F'(x) dx.
    """
    require(actions >= 1, f"actions must be at least 1, got {actions}")
    require(0 <= std < math.inf, f"std must be finite and at least 0, got {std}")

    def integrand(x: float) -> float:
        density = math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
        return x * actions * special.ndtr(x) ** (actions - 1) * density

    return std * integrate.quad(integrand, -12, 12, epsabs=1e-12)[0]


class OneArmedBandits(gym.Env):
    """Even actions go right, the end, for nothing. Odd ones go left, to a bar of so many machines, each of
    which pays N(-0.1, 1) and ends the evening (Sutton and Barto 2018, example 6.7).

    Going left is worth -0.1 gamma, and looks better as long as the luckiest machine is taken for the best.
    `left` notes of every episode whether it went there.
    """

    def __init__(self, machines: int = 10):
        require(machines >= 2, f"machines must be at least 2, got {machines}")
        self.observation_space, self.action_space = Discrete(3), Discrete(machines)
        self.left: list[bool] = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = START
        return START, {}

    def step(self, action):
        if self.state == BAR:
            return END, self.np_random.normal(-0.1, 1.0), True, False, {}
        self.left.append(action % 2 == 1)
        self.state = BAR if self.left[-1] else END
        return self.state, 0.0, not self.left[-1], False, {}
