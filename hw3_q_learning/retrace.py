"""Targets of many steps from another policy's data (Munos et al. 2016, "Safe and efficient off-policy RL").

Q(s_t, a_t) <- Q(s_t, a_t) + sum_k gamma^k c_{t+1} ... c_{t+k} delta_{t+k}
delta_t = r_t + gamma E_{a ~ pi} Q(s_{t+1}, a) - Q(s_t, a_t)

    c = pi / mu               importance sampling: right for every mu, its variance has no bound
    c = lambda                Q(lambda): right only if pi and mu are close
    c = lambda pi             tree backup: right, but cuts even where pi = mu
    c = lambda min(1, pi/mu)  Retrace: right for every mu, cuts no more than it must

The lecture's N-step target leaves all of this out: it believes that mu's next N - 1 actions are pi's. With pi
greedy and lambda = 1 Retrace is the lecture's dynamic choice of N: go on as long as the actions are greedy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from common.types import require

Array = np.ndarray
Numbers = Array | Tensor

# (pi(a|s), mu(a|s) > 0, lambda) -> c; arrays or tensors of one shape
COEFFICIENTS: dict[str, Callable[[Numbers, Numbers, float], Numbers]] = {
    "importance sampling": lambda pi, mu, lam: pi / mu,
    "Q(lambda)": lambda pi, mu, lam: lam + 0 * pi,
    "tree backup": lambda pi, mu, lam: lam * pi,
    "Retrace": lambda pi, mu, lam: lam * (pi / mu).clip(max=1),
}


def off_policy_target(
    q: Tensor, next_value: Tensor, reward: Tensor, c: Tensor, terminated: Tensor, ended: Tensor, gamma: float
) -> Tensor:
    """The right side of the first equation for every row, all [T, N], time first.

    q = Q(s_t, a_t); next_value = E_{a ~ pi} Q(s_{t+1}, a) of the true successor, without effect where
    `terminated`; c of a_t in s_t; `ended` = terminated or truncated: the next row is of another episode.
    """
    for name, x in (("q", q), ("next_value", next_value), ("c", c)):
        ok = reward.ndim == 2 and len(reward) > 0 and x.shape == reward.shape
        require(ok, f"{name} and reward must be [T, N], got {list(x.shape)} and {list(reward.shape)}")
        require(bool(torch.isfinite(x).all()), f"{name} must be finite, got nan or inf")
    require(
        terminated.shape == ended.shape == reward.shape, "terminated and ended must be [T, N] as reward is"
    )
    require(bool(torch.isfinite(reward).all()), "reward must be finite, got nan or inf")
    require(0 <= gamma <= 1, f"gamma must lie in [0, 1], got {gamma}")
    delta = reward + gamma * next_value * terminated.logical_not() - q
    decay = gamma * c[1:] * ended[:-1].logical_not()
    correction = [delta[-1]]
    for delta_t, decay_t in zip(delta[:-1].flip(0), decay.flip(0), strict=True):
        correction.append(delta_t + decay_t * correction[-1])
    return q + torch.stack(correction[::-1])


def expected_update(P: Array, R: Array, pi: Array, mu: Array, c: Array, gamma: float, Q: Array) -> Array:
    """The mean of that target over infinite trajectories of mu, from every (s, a): [S, A].

    Q + (I - gamma P^{c mu})^-1 (R + gamma P E_pi Q - Q); dense P [S, A, S]; R, pi, mu, c, Q [S, A].
    """
    (S, A), (P, R, pi, mu, c, Q) = _check(P, R, gamma, pi=pi, mu=mu, c=c, Q=Q)
    goes_on = gamma * (P[..., None] * (mu * c)).reshape(S * A, S * A)
    reach = max(abs(np.linalg.eigvals(goes_on)))
    require(reach < 1, f"c must fade out along mu's trajectories, it grows by {reach:.3g} per step")
    delta = R + gamma * P @ (pi * Q).sum(1) - Q
    return Q + np.linalg.solve(np.eye(S * A) - goes_on, delta.ravel()).reshape(S, A)


def n_step_update(P: Array, R: Array, pi: Array, mu: Array, n: int, gamma: float, Q: Array) -> Array:
    """The mean of the lecture's N-step target, its last value E_pi Q(s_{t+n}, .): [S, A]."""
    _, (P, R, pi, mu, Q) = _check(P, R, gamma, pi=pi, mu=mu, Q=Q)
    require(n >= 1, f"n must be at least 1, got {n}")
    Q = R + gamma * P @ (pi * Q).sum(1)
    for _ in range(n - 1):
        Q = R + gamma * P @ (mu * Q).sum(1)
    return Q


def _check(P: Array, R: Array, gamma: float, **tables: Array) -> tuple[tuple[int, int], list[Array]]:
    P, R = np.asarray(P, np.float64), np.asarray(R, np.float64)
    ok = P.ndim == 3 and P.shape[0] == P.shape[2] and R.shape == P.shape[:2]
    require(ok, f"P and R must be [S, A, S] and [S, A], got {list(P.shape)} and {list(R.shape)}")
    ok = bool((P >= 0).all()) and np.allclose(P.sum(2), 1)
    require(ok, "P must hold probabilities, rows that are not negative and sum to one")
    require(0 <= gamma <= 1, f"gamma must lie in [0, 1], got {gamma}")
    found = [P, R]
    for name, x in tables.items():
        x = np.asarray(x, np.float64)
        ok = x.shape == R.shape and bool(np.isfinite(x).all())
        require(ok, f"{name} must be finite and {list(R.shape)}, got {list(x.shape)}")
        if name in ("pi", "mu"):
            ok = bool((x >= 0).all()) and np.allclose(x.sum(1), 1)
            require(ok, f"{name} must hold probabilities, rows that sum to one")
        found.append(x)
    return R.shape, found
