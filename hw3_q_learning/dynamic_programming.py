"""Dynamic programming with known dynamics (Bellman 1957; Howard 1960).

policy evaluation   V = R_pi + gamma P_pi V, a linear system
policy iteration    evaluate pi, then pi(s) <- argmax_a Q(s, a),  Q(s, a) = R(s, a) + gamma E[V(s')]
value iteration     V <- max_a Q(s, a), the operator B: |B V - B V'| <= gamma |V - V'| in the largest entry
state marginals     p_{t+1} = p_t P_pi;  the stationary distribution is their fixed point, mu = mu P_pi

P is [S, A, S], or scipy.sparse [S A, S] with p(.|s, a) in row s A + a. R is [S, A]. A policy is [S] actions
or [S, A] probabilities. gamma = 1 is allowed where the sum of rewards is finite, see undiscounted.py.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import spsolve

from common.types import require
from hw3_q_learning.undiscounted import closed_classes, resting_actions, way_to

Array = np.ndarray
EPS = np.finfo(np.float64).eps
SWEEPS = 20_000  # of undiscounted value iteration, before it is said to diverge


def policy_evaluation(P: Array | sparse.sparray, R: Array, policy: Array, gamma: float) -> Array:
    """V [S], the expected sum of discounted rewards under `policy`.

    Dense P, and gamma = 1: by elimination. Sparse P: by sweeps V <- R_pi + gamma P_pi V, down to rounding.
    """
    P, R = _check(P, R, gamma)
    return _evaluate(*under_policy(P, R, policy), gamma)


def policy_iteration(P: Array | sparse.sparray, R: Array, gamma: float) -> tuple[Array, Array]:
    """(V [S], policy [S]), optimal."""
    P, R = _check(P, R, gamma)
    V = np.zeros(len(R))
    policy = way_to(*resting_actions(P, R), P) if gamma == 1 else R.argmax(1)
    while True:
        V = _evaluate(*under_policy(P, R, policy), gamma, V)
        Q = _backup(P, R, V, gamma)
        best = Q.argmax(1)
        # Less than this may be rounding in V: pursued, it would lead in circles.
        gain = _at(Q, best) - _at(Q, policy)
        better = gain > 64 * EPS * np.abs(V).max() / max(1 - gamma, 1e-4)
        if not better.any():
            return V, policy
        policy = np.where(better, best, policy)


def value_iteration(
    P: Array | sparse.sparray, R: Array, gamma: float, tol: float = 1e-10
) -> tuple[Array, Array]:
    """(V [S], policy [S]): no entry of V is further than `tol` from the optimum, or than rounding allows.

    One sweep B V tells where V* lies: B V + gamma / (1 - gamma) [least, largest entry of B V - V] (MacQueen
    1966). At gamma = 1 there is no such bound: it ends when rounding is what is left.
    """
    P, R = _check(P, R, gamma)
    require(0 < tol < np.inf, f"tol must be positive and finite, got {tol}")
    if gamma == 1:
        rest, allowed = resting_actions(P, R)
    V, Q = _sweep(P, R, gamma, tol, np.zeros(len(R)))
    policy = Q.argmax(1)
    if gamma == 1:  # an action that is as good but never arrives would earn nothing
        best = V[:, None] - Q <= 1e-12 * np.abs(V).max()
        goal = rest & (V == 0)
        policy = way_to(goal, best & (allowed | ~goal[:, None]), P, policy)
    return V, policy


def action_values(P: Array | sparse.sparray, R: Array, V: Array, gamma: float) -> Array:
    """Q(s, a) = R(s, a) + gamma E[V(s')]: [S, A]. Its maximum over a is B V."""
    P, R = _check(P, R, gamma)
    V = np.asarray(V, np.float64)
    ok = V.shape == R.shape[:1] and bool(np.isfinite(V).all())
    require(ok, f"V must be finite and [{len(R)}], got {list(V.shape)}")
    return _backup(P, R, V, gamma)


def state_marginals(P: Array | sparse.sparray, start: Array, policy: Array, horizon: int) -> Array:
    """p_t(s), t = 0 .. horizon - 1: [T, S]; start [S] is p_0."""
    P = _rows(P)
    start = np.asarray(start, np.float64)
    ok = start.shape == P.shape[1:] and _are_probabilities(start)
    require(ok, f"start must hold the probabilities of {P.shape[1]} states, got {list(start.shape)}")
    require(horizon >= 1, f"horizon must be at least 1, got {horizon}")
    step, _ = under_policy(P, np.zeros((P.shape[1], P.shape[0] // P.shape[1])), policy)
    p = [start]
    for _ in range(horizon - 1):
        p.append(step.T @ p[-1])
    return np.stack(p)


def stationary_distribution(P: Array | sparse.sparray, policy: Array) -> Array:
    """mu [S] with mu = mu P_pi: where the chain is on average, once it has run long.

    One closed class of states is needed, otherwise mu depends on the start. The chain may be periodic.
    """
    P = _rows(P)
    step, _ = under_policy(P, np.zeros((P.shape[1], P.shape[0] // P.shape[1])), policy)
    classes = closed_classes(step)
    require(len(classes) == 1, f"policy must end in one closed class of states, it has {len(classes)}")
    (states,) = classes
    A = (sparse.csr_array(step)[states][:, states] - sparse.eye_array(len(states))).T.tolil()
    A[-1] = 1  # one equation follows from the others; in its place, the sum
    mu = np.zeros(P.shape[1])
    mu[states] = spsolve(A.tocsc(), np.eye(1, len(states), len(states) - 1)[0])
    return mu


def under_policy(P: Array | sparse.sparray, R: Array, policy: Array) -> tuple[Array | sparse.sparray, Array]:
    """(P_pi [S, S], R_pi [S]) from P as rows [S A, S]."""
    (S, A), policy = R.shape, np.asarray(policy)
    if policy.ndim == 1:
        ok = policy.shape == (S,) and policy.dtype.kind in "iu" and bool(((policy >= 0) & (policy < A)).all())
        require(ok, f"policy must be [{S}] actions in [0, {A - 1}] or [{S}, {A}] probabilities")
        return P[np.arange(S) * A + policy], _at(R, policy)
    ok = policy.shape == (S, A) and _are_probabilities(policy)
    require(ok, f"policy must be [{S}] actions or [{S}, {A}] probabilities, rows that sum to one")
    if not sparse.issparse(P):
        return np.einsum("sa,san->sn", policy, P.reshape(S, A, S)), (policy * R).sum(1)
    choose = sparse.csr_array((policy.ravel(), np.arange(S * A), np.arange(0, S * A + 1, A)), (S, S * A))
    return choose @ P, (policy * R).sum(1)


def _backup(P: Array | sparse.sparray, R: Array, V: Array, gamma: float) -> Array:
    Q = (P @ V).reshape(R.shape)
    Q *= gamma
    Q += R
    return Q


def _sweep(P: Array | sparse.sparray, R: Array, gamma: float, tol: float, V: Array) -> tuple[Array, Array]:
    """V <- B V until it is within `tol` of the fixed point, or rounding is what is left: V and the last Q."""
    enough = SWEEPS if gamma == 1 else 1 + int(np.log(EPS * (1 - gamma)) / np.log(max(gamma, EPS)))
    for _ in range(enough):
        Q = _backup(P, R, V, gamma)
        V, before = _largest(Q), V
        change = V - before
        low, high = change.min(), change.max()
        if max(-low, high) <= 16 * EPS * max(-V.min(), V.max()):
            return V, Q
        if gamma < 1 and gamma * (high - low) <= tol * (1 - gamma):
            return V + gamma / (1 - gamma) * np.clip(0, low, high), Q
    require(gamma < 1, f"gamma must be below 1 here: the sum of rewards still grows after {SWEEPS} sweeps")
    return V, Q


def _evaluate(P: Array | sparse.sparray, R: Array, gamma: float, V: Array | None = None) -> Array:
    """V = R + gamma P V for P [S, S], R [S]; V is a guess."""
    if gamma == 1:
        return _undiscounted(P, R)
    if not sparse.issparse(P):
        return linalg.solve(np.eye(len(R)) - gamma * P, R)
    return _sweep(P, R[:, None], gamma, 0.0, np.zeros(len(R)) if V is None else V)[0]


def _undiscounted(P: Array | sparse.sparray, R: Array) -> Array:
    """The sum of rewards on the way to the closed classes, in which there must be none."""
    transient = np.ones(len(R), bool)
    for states in closed_classes(P):
        require(not R[states].any(), "gamma must be below 1 here: the policy collects rewards for ever")
        transient[states] = False
    V, on_way = np.zeros(len(R)), transient.nonzero()[0]
    if len(on_way) and sparse.issparse(P):
        V[on_way] = spsolve((sparse.eye_array(len(on_way)) - P[on_way][:, on_way]).tocsc(), R[on_way])
    elif len(on_way):
        V[on_way] = linalg.solve(np.eye(len(on_way)) - P[np.ix_(on_way, on_way)], R[on_way])
    return V


def _largest(Q: Array) -> Array:
    """max_a Q(s, a); numpy's own maximum is five times slower along so short an axis."""
    return reduce(np.maximum, Q.T)


def _at(Q: Array, policy: Array) -> Array:
    return np.take_along_axis(Q, policy[:, None], 1)[:, 0]


def _are_probabilities(rows: Array) -> bool:
    return bool((rows >= 0).all() and np.abs(rows.sum(-1) - 1).max() < 1e-9)


def _rows(P: Array | sparse.sparray) -> Array | sparse.sparray:
    """P as [S A, S], checked."""
    if sparse.issparse(P):
        P = sparse.csr_array(P).astype(np.float64, copy=False)
        S = P.shape[1]
        ok = S > 0 and P.shape[0] > 0 and P.shape[0] % S == 0
        require(ok, f"sparse P must be [S A, S] with p(.|s, a) in row s A + a, got {list(P.shape)}")
        ok = bool((P.data >= 0).all() and np.abs(P.sum(1) - 1).max() < 1e-9)
    else:
        P = np.asarray(P, np.float64)
        ok = P.ndim == 3 and P.shape[0] == P.shape[2] and P.size > 0
        require(ok, f"P must be [S, A, S] or scipy.sparse [S A, S], got {list(P.shape)}")
        P = P.reshape(-1, P.shape[2])
        ok = _are_probabilities(P)
    require(ok, "P must hold probabilities, rows that are not negative and sum to one")
    return P


def _check(P: Array | sparse.sparray, R: Array, gamma: float) -> tuple[Array | sparse.sparray, Array]:
    P, R = _rows(P), np.asarray(R, np.float64)
    S, A = P.shape[1], P.shape[0] // P.shape[1]
    require(R.shape == (S, A), f"R must be [{S}, {A}] as P is, got {list(R.shape)}")
    require(bool(np.isfinite(R).all()), "R must be finite, got nan or inf")
    require(0 <= gamma <= 1, f"gamma must lie in [0, 1], got {gamma}")
    return P, R
