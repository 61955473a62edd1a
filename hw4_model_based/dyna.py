"""Dyna-Q: every transition is used twice, to learn Q and to learn a model that goes on teaching Q.

Q(s, a) += alpha (r + gamma max_a' Q(s', a') - Q(s, a))   for the transition that was made, and then
                                                         `planning` times for one that the model remembers

Sutton 1990; Sutton and Barto 2018, section 8.2. The model of a deterministic world is the last outcome of
each (s, a) that was tried; where outcomes vary it draws from all that were seen, as often as they were.
Without planning steps this is Q-learning, draw by draw. Where the episode terminates, r alone is the target;
a time limit keeps the value of s'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete

from common.seeding import child_seed
from common.types import require

Outcome = tuple[float, int, bool]  # reward, next state, terminated


class TabularModel:
    """p(r, s'|s, a) by counting: what was seen is drawn as often as it was seen."""

    def __init__(self):
        self.seen: dict[tuple[int, int], list[Outcome]] = {}
        self.pairs: list[tuple[int, int]] = []  # that were tried, each once

    def add(self, s: int, a: int, outcome: Outcome) -> None:
        if (s, a) not in self.seen:
            self.seen[s, a] = []
            self.pairs.append((s, a))
        self.seen[s, a].append(outcome)

    def draw(self, rng: np.random.Generator) -> tuple[int, int, Outcome]:
        """Any pair that was tried, and one of its outcomes."""
        s, a = _any(self.pairs, rng)
        return s, a, _any(self.seen[s, a], rng)


def dyna_q(
    env: gym.Env,
    episodes: int,
    planning: int,
    alpha: float,
    gamma: float,
    epsilon: float,
    seed: int,
    lengths: list[int] | None = None,
) -> np.ndarray:
    """Q [S, A] after so many episodes of `env`, whose states and actions count from 0. `lengths`, where
    given, gets the steps of every episode."""
    spaces = (env.observation_space, env.action_space)
    ok = all(isinstance(space, Discrete) and space.start == 0 for space in spaces)
    require(ok, f"env must have states and actions that count from 0, got {spaces[0]} and {spaces[1]}")
    require(episodes >= 0, f"episodes must be at least 0, got {episodes}")
    require(planning >= 0, f"planning must be at least 0, got {planning}")
    for name, value in (("alpha", alpha), ("gamma", gamma), ("epsilon", epsilon)):
        require(0 <= value <= 1, f"{name} must lie in [0, 1], got {value}")
    S, A = (int(space.n) for space in spaces)
    Q = [[0.0] * A for _ in range(S)]
    model = TabularModel()
    rng = np.random.default_rng(child_seed(seed, "explore"))
    thoughts = np.random.default_rng(child_seed(seed, "planning"))  # its own: planning moves no exploration

    def learn(s: int, a: int, outcome: Outcome) -> None:
        r, s_next, terminated = outcome
        target = r if terminated else r + gamma * max(Q[s_next])
        Q[s][a] += alpha * (target - Q[s][a])

    for episode in range(episodes):
        obs, _ = env.reset(seed=child_seed(seed, "env") % 2**32) if episode == 0 else env.reset()
        s, ended, steps = int(obs), False, 0
        while not ended:
            a = epsilon_greedy(Q[s], epsilon, rng)
            obs, r, terminated, truncated, _ = env.step(a)
            require(math.isfinite(r), f"env gave the reward {r} in episode {episode}")
            outcome = (float(r), int(obs), bool(terminated))
            learn(s, a, outcome)
            if planning:
                model.add(s, a, outcome)
            for _ in range(planning):
                learn(*model.draw(thoughts))
            s, ended, steps = int(obs), terminated or truncated, steps + 1
        if lengths is not None:
            lengths.append(steps)
    return np.array(Q)


def epsilon_greedy(q: Sequence[float], epsilon: float, rng: np.random.Generator) -> int:
    """The best action with probability 1 - epsilon, ties broken at random; otherwise one of the others."""
    top = max(q)
    best = q.index(top) if q.count(top) == 1 else _any([a for a, x in enumerate(q) if x == top], rng)
    if len(q) == 1 or rng.random() >= epsilon:
        return best
    other = _any(range(len(q) - 1), rng)
    return other + (other >= best)


def _any(items: Sequence, rng: np.random.Generator):
    """Ten times as fast as rng.integers."""
    return items[int(rng.random() * len(items))]
