"""Learning from single transitions with a table: the target is the lecture's, an entry takes a step to it.

TD(0)       V(s)    += alpha (r + gamma V(s') - V(s))                         (Sutton 1988)
SARSA       Q(s, a) += alpha (r + gamma Q(s', a') - Q(s, a)), a' is taken     (Rummery and Niranjan 1994)
Q-learning  Q(s, a) += alpha (r + gamma max_a' Q(s', a') - Q(s, a))           (Watkins 1989)
double Q    Q_1(s, a) += alpha (r + gamma Q_2(s', argmax_a' Q_1(s', a')) - Q_1(s, a)), or with 1 and 2
            exchanged, by the toss of a coin                                  (van Hasselt 2010)

Where the episode terminates, r alone is the target; where it is truncated, the value of s' counts.
alpha is a number, or a function of how often the entry was changed before: 1 / (n + 1) makes it a mean.
epsilon is a number, or a function of the episode; under `draw_boltzmann` it is the temperature.
`returns`, where given, gets the return of every episode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gymnasium as gym
import numpy as np

from common.seeding import child_seed
from common.types import UsageError, require
from hw3_q_learning.episodes import play, sizes
from hw3_q_learning.exploration import draw, draw_epsilon_greedy

Array = np.ndarray
Schedule = float | Callable[[int], float]
Draw = Callable[[Sequence[float], float, np.random.Generator], int]  # (Q(s, .), epsilon, generator) -> action


def td_prediction(
    env: gym.Env, policy: Array, episodes: int, alpha: Schedule, gamma: float, seed: int
) -> Array:
    """V [S] of `policy` [S, A], probabilities."""
    S, A = sizes(env)
    policy = np.asarray(policy, np.float64)
    ok = policy.shape == (S, A) and bool((policy >= 0).all()) and np.allclose(policy.sum(1), 1)
    require(ok, f"policy must be [{S}, {A}] probabilities, rows that sum to one")
    rng, cumulative = _generator(seed), policy.cumsum(1)[:, :-1]
    V, step_size = [0.0] * S, _step_sizes(alpha, gamma, S, 1)

    def act(s: int, episode: int) -> int:
        return int(cumulative[s].searchsorted(rng.random(), side="right"))

    for s, _, r, s_next, terminated, *_ in play(env, episodes, act, seed):
        target = r if terminated else r + gamma * V[s_next]
        V[s] += step_size(s, 0) * (target - V[s])
    return np.array(V)


def sarsa(
    env: gym.Env,
    episodes: int,
    alpha: Schedule,
    gamma: float,
    epsilon: Schedule,
    seed: int,
    explore: Draw = draw_epsilon_greedy,
    returns: list[float] | None = None,
) -> Array:
    """Q [S, A] of the policy that explores."""
    (S, A), rng, epsilon = sizes(env), _generator(seed), _schedule(epsilon)
    Q, step_size = _table(S, A), _step_sizes(alpha, gamma, S, A)
    coming = []  # the action of the target is the one that is taken

    def act(s: int, episode: int) -> int:
        return coming.pop() if coming else explore(Q[s], epsilon(episode), rng)

    for s, a, r, s_next, terminated, ended, episode in play(env, episodes, act, seed, returns):
        target = r
        if not terminated:
            a_next = explore(Q[s_next], epsilon(episode), rng)
            target = r + gamma * Q[s_next][a_next]
        if not ended:
            coming.append(a_next)
        Q[s][a] += step_size(s, a) * (target - Q[s][a])
    return np.array(Q)


def q_learning(
    env: gym.Env,
    episodes: int,
    alpha: Schedule,
    gamma: float,
    epsilon: Schedule,
    seed: int,
    explore: Draw = draw_epsilon_greedy,
    returns: list[float] | None = None,
) -> Array:
    """Q [S, A] of the best policy, whatever explores."""
    (S, A), rng, epsilon = sizes(env), _generator(seed), _schedule(epsilon)
    Q, step_size = _table(S, A), _step_sizes(alpha, gamma, S, A)

    def act(s: int, episode: int) -> int:
        return explore(Q[s], epsilon(episode), rng)

    for s, a, r, s_next, terminated, *_ in play(env, episodes, act, seed, returns):
        target = r if terminated else r + gamma * max(Q[s_next])
        Q[s][a] += step_size(s, a) * (target - Q[s][a])
    return np.array(Q)


def double_q_learning(
    env: gym.Env,
    episodes: int,
    alpha: Schedule,
    gamma: float,
    epsilon: Schedule,
    seed: int,
    explore: Draw = draw_epsilon_greedy,
    returns: list[float] | None = None,
) -> Array:
    """Q [S, A], the mean of the two tables; it is also what explores."""
    (S, A), rng, epsilon = sizes(env), _generator(seed), _schedule(epsilon)
    both = [(_table(S, A), _step_sizes(alpha, gamma, S, A)) for _ in range(2)]

    def act(s: int, episode: int) -> int:
        q = [(x + y) / 2 for x, y in zip(both[0][0][s], both[1][0][s], strict=True)]
        return explore(q, epsilon(episode), rng)

    for s, a, r, s_next, terminated, *_ in play(env, episodes, act, seed, returns):
        coin = rng.random() < 0.5
        (Q, step_size), (other, _) = both[coin], both[not coin]
        target = r
        if not terminated:
            top = max(Q[s_next])
            best = draw(rng, [action for action, value in enumerate(Q[s_next]) if value == top])
            target = r + gamma * other[s_next][best]
        Q[s][a] += step_size(s, a) * (target - Q[s][a])
    return (np.array(both[0][0]) + np.array(both[1][0])) / 2


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(child_seed(seed, "explore"))


def _table(S: int, A: int) -> list[list[float]]:
    """Zeros. Python reads single numbers from lists five times as fast as from arrays."""
    return [[0.0] * A for _ in range(S)]


def _schedule(value: Schedule) -> Callable[[int], float]:
    return value if callable(value) else lambda _: value


def _step_sizes(alpha: Schedule, gamma: float, S: int, A: int) -> Callable[[int, int], float]:
    """(s, a) -> the size of its next step."""
    require(0 <= gamma <= 1, f"gamma must lie in [0, 1], got {gamma}")
    if not callable(alpha):
        require(0 <= alpha <= 1, f"alpha must lie in [0, 1], got {alpha}")
        return lambda s, a: alpha
    changes = [[0] * A for _ in range(S)]

    def next_step(s: int, a: int) -> float:
        changes[s][a] += 1
        size = alpha(changes[s][a] - 1)
        if not 0 <= size <= 1:
            raise UsageError(f"alpha must lie in [0, 1], got {size}")
        return size

    return next_step
