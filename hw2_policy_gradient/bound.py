"""Why a small change of the policy may be judged on the old policy's states (lecture "advanced policy
gradients"; Schulman et al. 2015), exact on a tabular problem over T steps.

eps = max_s TV(pi'(.|s), pi(.|s)) bounds the drift of the states,
    sum_s |p'_t(s) - p_t(s)| <= 2 (1 - (1 - eps)^t) <= 2 eps t,
and with it what the surrogate, the new actions judged on the old states, says wrongly of the new return:
    J(pi') - J(pi)   = sum_t gamma^t E_{s ~ p'_t} E_{a ~ pi'}[A_t(s, a)]
    surrogate - J(pi) = sum_t gamma^t E_{s ~ p_t} E_{a ~ pi'}[A_t(s, a)]
    |J(pi') - surrogate| <= sum_t gamma^t 2 eps t max_s |E_{a ~ pi'}[A_t(s, a)]|
The expected advantage is itself of the order of eps: the gap is of the order of eps^2, the gain of eps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from common.types import require

Array = np.ndarray


class PolicyChange(NamedTuple):
    """What goes from policy pi to pi' costs and gains; everything exact. T steps, t = 0 .. T - 1."""

    eps: float  # largest total variation between the policies, over the states
    drift: Array  # [T] sum_s |p'_t(s) - p_t(s)|
    drift_bound: Array  # [T] 2 eps t
    gain: float  # J(pi') - J(pi)
    surrogate_gain: float  # what the old states make of it
    gap_bound: float  # of |gain - surrogate_gain|


def policy_change(
    P: Array, R: Array, start: Array, policy: Array, new_policy: Array, gamma: float, horizon: int
) -> PolicyChange:
    """P [S, A, S], R [S, A], start [S], both policies [S, A]; T = horizon."""
    _check(P, R, start, policy, new_policy, gamma, horizon)
    eps = total_variation(policy, new_policy)
    old, new = (state_marginals(P, start, pi, horizon) for pi in (policy, new_policy))  # [T, S]
    advantage = (new_policy * advantages(P, R, policy, gamma, horizon)).sum(-1)  # [T, S] E_{a ~ pi'}[A_t]
    discount, t = gamma ** np.arange(horizon), np.arange(horizon)
    return PolicyChange(
        eps,
        np.abs(new - old).sum(-1),
        2 * eps * t,
        float(discount @ (new * advantage).sum(-1)),
        float(discount @ (old * advantage).sum(-1)),
        float(discount @ (2 * eps * t * np.abs(advantage).max(-1))),
    )


def total_variation(policy: Array, new_policy: Array) -> float:
    """max_s 1/2 sum_a |pi'(a|s) - pi(a|s)|: the least probability with which the two must act differently."""
    return float(0.5 * np.abs(new_policy - policy).sum(-1).max())


def state_marginals(P: Array, start: Array, policy: Array, horizon: int) -> Array:
    """p_t(s), t = 0 .. horizon - 1: [T, S]."""
    step = np.einsum("sa,san->sn", policy, P)
    p = [start]
    for _ in range(horizon - 1):
        p.append(p[-1] @ step)
    return np.stack(p)


def advantages(P: Array, R: Array, policy: Array, gamma: float, horizon: int) -> Array:
    """A_t(s, a) = R + gamma P V_{t+1} - V_t, nothing left after the last step: [T, S, A]."""
    value, rows = np.zeros(len(P)), []
    for _ in range(horizon):
        q = R + gamma * P @ value
        value = (policy * q).sum(-1)
        rows.append(q - value[:, None])
    return np.stack(rows[::-1])


def _check(P, R, start, policy, new_policy, gamma, horizon) -> None:
    ok = P.ndim == 3 and P.shape[0] == P.shape[2]
    require(ok, f"P must be [S, A, S], got {list(P.shape)}")
    S, A = P.shape[:2]
    require(start.shape == (S,), f"start must be [{S}], got {list(start.shape)}")
    for name, x in (("R", R), ("policy", policy), ("new_policy", new_policy)):
        require(x.shape == (S, A), f"{name} must be [{S}, {A}], got {list(x.shape)}")
    require(bool(np.isfinite(R).all()), "R must be finite, got nan or inf")
    for name, x in (("P", P), ("start", start), ("policy", policy), ("new_policy", new_policy)):
        ok = bool((x >= 0).all()) and np.allclose(x.sum(-1), 1)
        require(ok, f"{name} must hold probabilities whose rows sum to one")
    require(0 <= gamma <= 1, f"gamma must lie in [0, 1], got {gamma}")
    require(horizon >= 1, f"horizon must be at least 1, got {horizon}")
