"""Why cloning drifts: the tightrope (Ross and Bagnell 2010; Ross, Gordon and Bagnell 2011).

An expert walks a rope of T steps, and pi_theta errs with probability epsilon where the expert has been. One
mistake and it has left the rope, where it was never told what to do: every further step is a mistake.

cloning     E[sum_t c_t] = sum_{t=1..T} (1 - (1 - epsilon)^t) <= epsilon T^2
DAgger      E[sum_t c_t] = sum_{t=1..T} epsilon = epsilon T, as it has learned to step back on
"""

from __future__ import annotations

import numpy as np

from common.types import require

LONGEST = 10_000_000  # steps


def mistake_probability(horizon: int, epsilon: float, recover: bool = False) -> np.ndarray:
    """P(c_t = 1) of t = 1 ... T: [T]"""
    _check(horizon, epsilon)
    if recover or epsilon == 1:
        return np.full(horizon, float(epsilon))
    # 1 - (1 - epsilon)^t would lose its digits where epsilon is small
    return -np.expm1(np.arange(1, horizon + 1) * np.log1p(-epsilon))


def expected_cost(horizon: int, epsilon: float, recover: bool = False) -> float:
    """Expected mistakes in `horizon` steps; `recover`: one step after a mistake it is on the rope again."""
    return float(mistake_probability(horizon, epsilon, recover).sum())


def simulate(
    horizon: int, epsilon: float, recover: bool, episodes: int, generator: np.random.Generator
) -> np.ndarray:
    """Mistakes of each of `episodes` walks, step by step: [episodes]"""
    _check(horizon, epsilon)
    require(episodes >= 1, f"episodes must be at least 1, got {episodes}")
    fallen, cost = np.zeros(episodes, bool), np.zeros(episodes, np.int64)
    for _ in range(horizon):
        mistake = generator.random(episodes) < epsilon
        if not recover:
            mistake |= fallen
        cost += mistake
        fallen = mistake
    return cost


def slope(horizons: np.ndarray, costs: np.ndarray) -> float:
    """Of log cost over log T, by least squares: the power of T with which the cost grows."""
    ok = len(horizons) == len(costs) >= 2 and bool((np.asarray(costs) > 0).all())
    require(ok, f"costs must be positive, one of each of two or more horizons, got {len(costs)}")
    return float(np.polyfit(np.log(horizons), np.log(costs), 1)[0])


def _check(horizon: int, epsilon: float) -> None:
    require(1 <= horizon <= LONGEST, f"horizon must lie in [1, {LONGEST}] steps, got {horizon}")
    require(0 <= epsilon <= 1, f"epsilon must lie in [0, 1], got {epsilon}")
