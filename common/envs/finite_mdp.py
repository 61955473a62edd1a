"""Markov decision processes as arrays: p(s'|s, a) = P[s, a, s'], E[r|s, a] = R[s, a], p(s_1) = start[s].

Also a model that samples, as tree search wants it: `actions` and `step`.
"""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass
from functools import cached_property

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete

from common.types import require


@dataclass(frozen=True)
class FiniteMDP:
    P: np.ndarray  # [S, A, S] float64
    R: np.ndarray  # [S, A] float64
    start: np.ndarray  # [S] float64

    def __post_init__(self):
        for name in ("P", "R", "start"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        shape = self.P.shape
        ok = self.P.ndim == 3 and shape[0] == shape[2] and self.P.size > 0
        require(ok, f"P must be [S, A, S], got {list(shape)}")
        ok = self.R.shape == shape[:2]
        require(ok, f"R must be {list(shape[:2])} as P is [S, A, S], got {list(self.R.shape)}")
        ok = self.start.shape == shape[:1]
        require(ok, f"start must be {list(shape[:1])} as P is [S, A, S], got {list(self.start.shape)}")
        require(bool(np.isfinite(self.R).all()), "R must be finite, got nan or inf")
        for name, rows in (("P", self.P), ("start", self.start)):
            ok = bool((rows >= 0).all() and np.abs(rows.sum(-1) - 1).max() < 1e-9)
            require(ok, f"{name} must hold probabilities, rows that are not negative and sum to one")

    def actions(self, state: int) -> range:
        return self._actions

    def step(self, state: int, action: int, generator: np.random.Generator) -> tuple[int, float, bool]:
        """(next state, R[s, a], is the next state absorbing): the reward is the mean one."""
        cumulative, outcomes = self._table[state][action]
        return outcomes[bisect(cumulative, generator.random())]

    @cached_property
    def deterministic(self) -> bool:
        return bool(((self.P == 0) | (self.P == 1)).all())

    @cached_property
    def _actions(self) -> range:
        return range(self.P.shape[1])

    @cached_property
    def _table(self) -> list[list[tuple[list[float], list[tuple[int, float, bool]]]]]:
        """[S][A] of cumulative probabilities and outcomes: from lists Python draws many times as fast."""
        stays = np.einsum("sas->sa", self.P) == 1
        absorbing = (stays & (self.R == 0)).all(1)  # pays nothing and is never left
        table = []
        for rows, rewards in zip(self.P, self.R.tolist(), strict=True):
            table.append([])
            for row, reward in zip(rows, rewards, strict=True):
                successors = row.nonzero()[0]
                cumulative = row[successors].cumsum()[:-1].tolist()  # the last one gets what is left
                ends = absorbing[successors].tolist()
                outcomes = [(s, reward, end) for s, end in zip(successors.tolist(), ends, strict=True)]
                table[-1].append((cumulative, outcomes))
        return table


def from_gymnasium(env: gym.Env) -> FiniteMDP:
    """The arrays of a toy-text environment (FrozenLake, CliffWalking, Taxi).

    Transitions that terminate lead to one more state, the last, which pays nothing and is never left: so
    the true value of every state needs no mask. Time limits are not part of the arrays.
    """
    toy = env.unwrapped
    ok = (
        hasattr(toy, "P") and hasattr(toy, "initial_state_distrib") and isinstance(toy.action_space, Discrete)
    )
    require(ok, f"env must be a toy-text environment with P and initial_state_distrib, got {env}")
    fickle = getattr(toy, "fickle_passenger", False)
    require(
        not fickle,
        "env must be Markov in its own state: a fickle passenger of Taxi changes it by a coin of its own",
    )
    S, A = int(toy.observation_space.n), int(toy.action_space.n)
    P, R = np.zeros((S + 1, A, S + 1)), np.zeros((S + 1, A))
    for s in range(S):
        for a in range(A):
            for probability, next_s, reward, terminated in toy.P[s][a]:
                P[s, a, S if terminated else next_s] += probability
                R[s, a] += probability * reward
    P[S, :, S] = 1
    return FiniteMDP(P, R, np.append(toy.initial_state_distrib, 0))


def random_mdp(states: int, actions: int, branching: int, generator: np.random.Generator) -> FiniteMDP:
    """A Garnet (Archibald et al. 1995): from each (s, a) to `branching` different states with probabilities
    uniform on the simplex, rewards uniform in [0, 1], any first state."""
    for name, n in (("states", states), ("actions", actions), ("branching", branching)):
        require(n >= 1, f"{name} must be at least 1, got {n}")
    require(branching <= states, f"branching must be at most states = {states}, got {branching}")
    P = np.zeros((states, actions, states))
    to = generator.random((states, actions, states)).argsort(-1)[..., :branching]
    np.put_along_axis(P, to, generator.dirichlet(np.ones(branching), (states, actions)), -1)
    return FiniteMDP(P, generator.random((states, actions)), np.full(states, 1 / states))
