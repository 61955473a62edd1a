"""Values as linear functions of features, V_phi(s) = f(s) phi, and why fitting them may diverge.

fitted value iteration y(s) = max_a R(s, a) + gamma E[V_phi(s')], phi <- argmin sum_s w(s) (V_phi - y)(s)^2
fitted Q-iteration     y_i = r_i + gamma max_a' Q_phi(s'_i, a'), phi <- argmin sum_i (Q_phi(s_i, a_i) - y_i)^2
                       from any data (Ernst et al. 2005)
online Q-iteration     phi <- phi - alpha dQ_phi/dphi (s, a) (Q_phi(s, a) - y), one transition at a time

No gradient goes through y: the last is not gradient descent. The first is V <- Pi B V. B contracts in the
largest entry, the projection Pi in the mean square, their product in neither (Tsitsiklis and Van Roy 1996);
nor do small steps help (Baird 1995).
"""

from __future__ import annotations

from typing import NamedTuple

import gymnasium as gym
import numpy as np
from scipy import sparse

from common.seeding import child_seed
from common.types import require
from hw3_q_learning.dynamic_programming import action_values, under_policy
from hw3_q_learning.episodes import Act, play, sizes
from hw3_q_learning.exploration import draw_epsilon_greedy

Array = np.ndarray


class Dataset(NamedTuple):
    """N transitions."""

    state: Array  # [N] int64
    action: Array  # [N] int64
    reward: Array  # [N] float64
    next_state: Array  # [N] int64
    terminated: Array  # [N] bool


class Problem(NamedTuple):
    """A problem with features, made to diverge. All rewards are zero, so the true value is zero."""

    P: Array  # [S, A, S]
    R: Array  # [S, A]
    features: Array  # [S, d]
    weights: Array  # [S], how often each state is fitted
    start: Array  # [d], phi at first


def fitted_value_iteration(
    P: Array | sparse.sparray,
    R: Array,
    gamma: float,
    features: Array,
    weights: Array,
    iterations: int,
    start: Array | None = None,
) -> Array:
    """phi after every iteration: [iterations + 1, d], from `start` [d] or zero.

    P, R as in dynamic_programming; features [S, d]; weights [S], not negative.
    """
    features, root = _check(features, 2), _root(weights)
    ok = len(features) == len(root) == len(R)
    require(ok, f"features and weights must be [S, d] and [S] for S = {len(R)} states")
    solve = np.linalg.pinv(root * features) * root.T  # phi = solve y, the least of all that fit alike
    path = _begin(start, features.shape[1], iterations)
    for _ in range(iterations):
        y = action_values(P, R, features @ path[-1], gamma).max(1)
        path.append(solve @ y)
    return np.stack(path)


def fitted_q_iteration(
    data: Dataset, features: Array, gamma: float, iterations: int, start: Array | None = None
) -> Array:
    """phi after every iteration: [iterations + 1, d]; features [S, A, d], with np.eye(S A) a table."""
    features = _check(features, 3)
    require(0 <= gamma <= 1, f"gamma must lie in [0, 1], got {gamma}")
    data = Dataset(*map(np.asarray, data))
    n = len(data.reward)
    ok = n > 0 and all(x.shape == (n,) for x in data) and bool(np.isfinite(data.reward).all())
    require(ok, "data must hold columns [N] of one length, at least 1, with finite rewards")
    for name, limit in (("state", 0), ("action", 1), ("next_state", 0)):
        x, limit = getattr(data, name), features.shape[limit]
        ok = x.dtype.kind in "iu" and bool(((x >= 0) & (x < limit)).all())
        require(ok, f"data.{name} must be integers in [0, {limit - 1}]")
    solve = np.linalg.pinv(features[data.state, data.action])  # [d, N]
    after, goes_on = features[data.next_state], ~data.terminated.astype(bool)  # [N, A, d]
    path = _begin(start, features.shape[2], iterations)
    for _ in range(iterations):
        y = data.reward + gamma * goes_on * (after @ path[-1]).max(1)
        path.append(solve @ y)
        require(bool(np.isfinite(path[-1]).all()), f"iterations: phi overflows after {len(path) - 2}")
    return np.stack(path)


def online_q_iteration(
    env: gym.Env, features: Array, episodes: int, alpha: float, gamma: float, epsilon: float, seed: int
) -> Array:
    """phi [d]; features [S, A, d]. With a table for features it is Q-learning."""
    features, (S, A) = _check(features, 3), sizes(env)
    require(features.shape[:2] == (S, A), f"features must be [{S}, {A}, d], got {list(features.shape)}")
    require(0 <= gamma <= 1, f"gamma must lie in [0, 1], got {gamma}")
    require(0 <= alpha < np.inf, f"alpha must be finite and at least 0, got {alpha}")
    phi, rng = np.zeros(features.shape[2]), np.random.default_rng(child_seed(seed, "explore"))

    def act(s: int, episode: int) -> int:
        return draw_epsilon_greedy((features[s] @ phi).tolist(), epsilon, rng)

    for s, a, r, s_next, terminated, *_ in play(env, episodes, act, seed):
        y = r if terminated else r + gamma * (features[s_next] @ phi).max()
        phi += alpha * (y - features[s, a] @ phi) * features[s, a]
        require(bool(np.isfinite(phi).all()), f"alpha = {alpha} is too large: phi overflows")
    return phi


def record(env: gym.Env, episodes: int, act: Act, seed: int) -> Dataset:
    """The lecture's first step: collect transitions by some policy."""
    rows = [t[:5] for t in play(env, episodes, act, seed)]
    require(bool(rows), f"episodes must be at least 1, got {episodes}")
    return Dataset(*map(np.array, zip(*rows, strict=True)))


def projection(features: Array, weights: Array) -> Array:
    """Pi [S, S]: y -> the closest V_phi in the mean square with these weights."""
    features, root = _check(features, 2), _root(weights)
    return features @ (np.linalg.pinv(root * features) * root.T)


def mean_step(
    P: Array | sparse.sparray, R: Array, policy: Array, gamma: float, features: Array, weights: Array
) -> tuple[Array, Array]:
    """(A [d, d], b [d]): states drawn by `weights`, a step of size alpha moves phi by alpha (A phi + b).

    P as rows [S A, S]. A = f' D (gamma P_pi - I) f: an eigenvalue to the right of zero, and phi diverges
    however small alpha is.
    """
    require(0 <= gamma <= 1, f"gamma must lie in [0, 1], got {gamma}")
    step, reward = under_policy(P, np.asarray(R, np.float64), policy)
    features, D = _check(features, 2), _check(weights, 1)[:, None]
    return features.T @ (D * (gamma * (step @ features) - features)), features.T @ (D[:, 0] * reward)


def two_states() -> Problem:
    """Both go to the second. One feature, 1 and 2: fitting turns phi into 6/5 gamma phi, which grows above
    gamma = 5/6 (Tsitsiklis and Van Roy 1996). V = 0 is a perfect fit all the while."""
    P = np.array([[[0.0, 1.0]], [[0.0, 1.0]]])
    return Problem(P, np.zeros((2, 1)), np.array([[1.0], [2.0]]), np.full(2, 0.5), np.ones(1))


def star() -> Problem:
    """Baird's: seven states go to the last (that is all the policy does), eight features can represent every
    V, and small steps diverge all the same, from gamma = 15/17 on. A full fit converges."""
    P = np.zeros((7, 1, 7))
    P[:, :, 6] = 1
    features = np.zeros((7, 8))
    features[range(6), range(6)], features[:6, 7] = 2, 1
    features[6, 6:] = 1, 2
    start = np.array([1.0, 1, 1, 1, 1, 1, 10, 1])
    return Problem(P, np.zeros((7, 1)), features, np.full(7, 1 / 7), start)


def _root(weights: Array) -> Array:
    """[S] -> [S, 1]"""
    weights = _check(weights, 1)
    require(bool((weights >= 0).all()), "weights must not be negative")
    return np.sqrt(weights)[:, None]


def _begin(start: Array | None, size: int, iterations: int) -> list[Array]:
    """The path of phi before the first iteration."""
    require(iterations >= 0, f"iterations must be at least 0, got {iterations}")
    start = np.zeros(size) if start is None else _check(start, 1)
    require(len(start) == size, f"start must be [{size}], got {list(start.shape)}")
    return [start]


def _check(x: Array, ndim: int) -> Array:
    x = np.asarray(x, np.float64)
    ok = x.ndim == ndim and x.size > 0 and bool(np.isfinite(x).all())
    require(ok, f"features, weights and start must be finite arrays, one of them is {list(x.shape)}")
    return x
