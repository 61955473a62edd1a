"""Which action to try, given Q(s, .): the lecture's two rules.

epsilon-greedy   pi(a|s) = 1 - epsilon for the best action, epsilon / (A - 1) for each other one
Boltzmann        pi(a|s) ~ exp(Q(s, a) / temperature): what is nearly as good is tried nearly as often

The probabilities are functions of arrays, for analysis; `draw_...` takes one action from one row of a table,
a list of Python numbers, for the inner loop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from common.types import UsageError, require


def epsilon_greedy(q: np.ndarray, epsilon: float) -> np.ndarray:
    """[..., A] -> probabilities [..., A]. Actions that are best together take turns at being the best."""
    q = _check(q)
    require(0 <= epsilon <= 1, f"epsilon must lie in [0, 1], got {epsilon}")
    best = q == q.max(-1, keepdims=True)
    best = best / best.sum(-1, keepdims=True)
    if q.shape[-1] == 1:
        return best
    return (1 - epsilon) * best + epsilon * (1 - best) / (q.shape[-1] - 1)


def boltzmann(q: np.ndarray, temperature: float) -> np.ndarray:
    """[..., A] -> probabilities [..., A]."""
    q = _check(q)
    require(0 < temperature < math.inf, f"temperature must be positive and finite, got {temperature}")
    weight = np.exp((q - q.max(-1, keepdims=True)) / temperature)  # the largest is 1: no overflow
    return weight / weight.sum(-1, keepdims=True)


def draw_epsilon_greedy(q: Sequence[float], epsilon: float, generator: np.random.Generator) -> int:
    """An action with the probabilities epsilon_greedy(q, epsilon)."""
    if not 0 <= epsilon <= 1:
        raise UsageError(f"epsilon must lie in [0, 1], got {epsilon}")
    top = max(q)
    if q.count(top) == 1:
        best = q.index(top)
    else:
        best = draw(generator, [action for action, value in enumerate(q) if value == top])
    if len(q) == 1 or generator.random() >= epsilon:
        return best
    other = draw(generator, range(len(q) - 1))
    return other + (other >= best)


def draw_boltzmann(q: Sequence[float], temperature: float, generator: np.random.Generator) -> int:
    """An action with the probabilities boltzmann(q, temperature)."""
    if not 0 < temperature < math.inf:
        raise UsageError(f"temperature must be positive and finite, got {temperature}")
    top = max(q)
    weight = [math.exp((value - top) / temperature) for value in q]
    left = generator.random() * sum(weight)
    for action, share in enumerate(weight):
        left -= share
        if left < 0:
            return action
    return q.index(top)  # by rounding only


def draw(generator: np.random.Generator, items: Sequence[int]) -> int:
    """Any of them; ten times as fast as generator.integers."""
    return items[int(generator.random() * len(items))]


def _check(q: np.ndarray) -> np.ndarray:
    q = np.asarray(q, np.float64)
    ok = q.ndim >= 1 and q.size > 0 and bool(np.isfinite(q).all())
    require(ok, f"q must be finite and [..., A], got {list(q.shape)}")
    return q
