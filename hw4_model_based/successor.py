"""Successor representations: a model of many steps that knows no reward yet.

M = sum_t gamma^t P_pi^t = (I - gamma P_pi)^-1,   V = M r_pi                       (Dayan 1993)
psi(s, a) = phi(s, a) + gamma E psi(s', a'),      Q = psi w,  r = phi w             (Barreto et al. 2017)
pi(s) = argmax_a max_i Q_i(s, a),                 Q >= max_i Q_i                    (policy improvement)

M is the lecture's mu without its factor (1 - gamma): rows of M sum to 1 / (1 - gamma). One M, or psi, per
policy answers every reward at once; improved over what is known, it answers with a policy that none of the
known ones was.
"""

from __future__ import annotations

import numpy as np

from common.types import require

Array = np.ndarray


def successor_representation(P: Array, policy: Array, gamma: float) -> Array:
    """M [S, S], expected discounted visits of s' after s, the one at once included. P [S, A, S]; policy
    [S, A] probabilities, or [S] actions."""
    P, policy = _check(P, policy, gamma)
    return np.linalg.solve(np.eye(len(P)) - gamma * np.einsum("sa,sat->st", policy, P), np.eye(len(P)))


def successor_features(P: Array, features: Array, policy: Array, gamma: float) -> Array:
    """psi [S, A, d], the discounted sum of phi [S, A, d] from (s, a) on, `policy` afterwards."""
    P, policy = _check(P, policy, gamma)
    features = _features(features, P)
    along = np.einsum("sa,sad->sd", policy, features)  # phi under the policy
    later = successor_representation(P, policy, gamma) @ along
    return features + gamma * P @ later


def td_successor(M: Array, s: int, s_next: int, gamma: float, alpha: float, terminated: bool) -> Array:
    """M after one transition: M(s) += alpha (1_s + gamma M(s') - M(s)), without the model. A terminal
    successor counts as one visit."""
    require(0 <= alpha <= 1, f"alpha must lie in [0, 1], got {alpha}")
    identity = np.eye(len(M))
    later = identity[s_next] if terminated else M[s_next]
    changed = M.copy()
    changed[s] += alpha * (identity[s] + gamma * later - M[s])
    return changed


def reward_weights(features: Array, R: Array) -> Array:
    """w [d] with R = phi w, by least squares over all (s, a): the only thing a new task has to teach."""
    features, R = np.asarray(features, np.float64), np.asarray(R, np.float64)
    ok = features.ndim == 3 and R.shape == features.shape[:2]
    require(ok, f"R must be {list(features.shape[:2])} as features are [S, A, d], got {list(R.shape)}")
    return np.linalg.lstsq(features.reshape(-1, features.shape[2]), R.ravel(), rcond=None)[0]


def improved_policy(psi: Array, w: Array) -> Array:
    """argmax_a max_i psi_i(s, a) w: [S] actions. psi [I, S, A, d] of I policies, w [d]."""
    psi, w = np.asarray(psi, np.float64), np.asarray(w, np.float64)
    ok = psi.ndim == 4 and len(psi) > 0 and w.shape == psi.shape[3:]
    require(ok, f"psi must be [I, S, A, d] and w [d], got {list(psi.shape)} and {list(w.shape)}")
    require(bool(np.isfinite(psi).all() and np.isfinite(w).all()), "psi and w must be finite")
    return (psi @ w).max(0).argmax(1)


def _check(P: Array, policy: Array, gamma: float) -> tuple[Array, Array]:
    P, policy = np.asarray(P, np.float64), np.asarray(policy)
    ok = P.ndim == 3 and P.shape[0] == P.shape[2] and P.size > 0
    require(ok, f"P must be [S, A, S], got {list(P.shape)}")
    ok = bool((P >= 0).all() and np.abs(P.sum(-1) - 1).max() < 1e-9)
    require(ok, "P must hold probabilities, rows that are not negative and sum to one")
    require(0 <= gamma < 1, f"gamma must lie in [0, 1), got {gamma}")
    S, A, _ = P.shape
    if policy.ndim == 1:
        ok = policy.shape == (S,) and policy.dtype.kind in "iu" and policy.min() >= 0 and policy.max() < A
        require(bool(ok), f"policy must be [{S}] actions below {A} or [{S}, {A}] probabilities")
        policy = np.eye(A)[policy]
    ok = policy.shape == (S, A) and bool((policy >= 0).all() and np.abs(policy.sum(1) - 1).max() < 1e-9)
    require(ok, f"policy must be [{S}] actions below {A} or [{S}, {A}] probabilities")
    return P, policy


def _features(features: Array, P: Array) -> Array:
    features = np.asarray(features, np.float64)
    ok = features.ndim == 3 and features.shape[:2] == P.shape[:2] and bool(np.isfinite(features).all())
    require(ok, f"features must be finite and [{P.shape[0]}, {P.shape[1]}, d], got {list(features.shape)}")
    return features
