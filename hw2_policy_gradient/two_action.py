"""Every estimator on a problem that a page of algebra can hold: mean and variance in closed form.

One state. Stay: reward 1, probability theta. Stop: reward 0, the end. K stays, then the stop:
    p(K) = theta^K (1 - theta),  J = E[K] = theta / (1 - theta),  dJ/dtheta = 1 / (1 - theta)^2
    d log p(K) / d theta = K / theta - 1 / (1 - theta), the score
The t-th of K stays has the reward-to-go K - t + 1, the stop has none, V = theta / (1 - theta) before every
action. Each on-policy estimate of dJ/dtheta then is a polynomial in K, whose moments are known:
    E[K (K - 1) ... (K - m + 1)] = m! (theta / (1 - theta))^m
"""

from __future__ import annotations

import math

import numpy as np
from numpy.polynomial import Polynomial

from common.types import require

STIRLING = np.array(  # K^n = sum_m STIRLING[n, m] K (K - 1) ... (K - m + 1)
    [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 3, 1, 0], [0, 1, 7, 6, 1]]
)


def expectation(f: Polynomial, theta: float) -> float:
    """E[f(K)] for f of degree four at most."""
    factorial = [math.factorial(m) * (theta / (1 - theta)) ** m for m in range(5)]
    moments = STIRLING @ factorial  # E[K^n]
    return float(f.coef @ moments[: len(f.coef)])


def mean_and_variance(f: Polynomial, theta: float) -> tuple[float, float]:
    mean = expectation(f, theta)
    return mean, expectation((f - mean) ** 2, theta)


def estimates(theta: float) -> dict[str, Polynomial]:
    """sum_t d log pi(a_t) / d theta times the weight of each estimator. There being one state only, its V is
    the average as well; GAE with lambda = 0 and the true V has weight 1 for a stay and -V for the stop."""
    _check(theta=theta)
    K, v = Polynomial([0.0, 1.0]), theta / (1 - theta)
    score = K / theta - 1 / (1 - theta)
    to_go = K * (K + 1) / (2 * theta)
    best = expectation(to_go * score, theta) / expectation(score**2, theta)
    q_stay = 1 + v
    return {
        "total return": K * score,
        "reward-to-go": to_go,
        "average or V": to_go - v * score,
        "optimal constant": to_go - best * score,
        "Q with correction": to_go - q_stay * K / theta + (K + 1) * q_stay,
        "GAE, lambda 0": K / theta + v / (1 - theta),
    }


def importance_sampling(theta: float, behaviour: float) -> dict[str, tuple[float, float]]:
    """Mean and variance at theta from trajectories that stay with probability `behaviour`.

    The second moment of a product of ratios is a geometric series in q = theta^2 / behaviour: infinite from
    q = 1 on, though both policies do everything. First order has neither the right mean nor the infinity.
    """
    _check(theta=theta, behaviour=behaviour)
    K, exact = Polynomial([0.0, 1.0]), 1 / (1 - theta) ** 2
    total, q = K * (K / theta - 1 / (1 - theta)), theta**2 / behaviour
    trajectory = decision = math.inf
    if q < 1:
        trajectory = (1 - theta) ** 2 / ((1 - behaviour) * (1 - q)) * expectation(total**2, q)
        one, two = q / (1 - q) ** 2, q * (1 + q) / (1 - q) ** 3  # sum_j j q^j, sum_j j^2 q^j
        decision = (2 * theta / (1 - theta) ** 2 * ((1 - theta) * two + one) + two) / theta**2
    first_order = theta / behaviour * K * (K + 1) / (2 * theta)
    return {
        "per trajectory": (exact, trajectory - exact**2),
        "per decision": (exact, decision - exact**2),
        "first order": mean_and_variance(first_order, behaviour),
    }


def _check(**probabilities: float) -> None:
    for name, p in probabilities.items():
        require(0 < p < 1, f"{name} must lie strictly between 0 and 1, got {p}")
