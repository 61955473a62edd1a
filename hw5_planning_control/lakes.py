"""Frozen lakes to learn from those who have tried each of them only a little: tasks for distillation.

A teacher estimates p(s'|s, a) of its lake from n tries per (s, a), and finds Q* of what it believes by value
iteration. Members of an ensemble tried at other times. A student sees where it stands and where the holes
are, and is graded without chance: E[return] of its greedy policy, by the true probabilities.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium.envs.toy_text.frozen_lake import generate_random_map

from common.envs.finite_mdp import FiniteMDP, from_gymnasium
from common.types import require

Map = list[str]  # rows of S start, F frozen, H hole, G goal


def maps_of(env: gym.Env, count: int, generator: np.random.Generator) -> list[Map]:
    """The environment's own map, and random ones of its size up to `count`."""
    own = getattr(env.unwrapped, "desc", None)
    require(own is not None, f"env_id must be a frozen lake, as FrozenLake-v1, got {env.spec.id}")
    require(own.shape[0] == own.shape[1], f"env_id must have a square lake, got {list(own.shape)}")
    seeds = generator.integers(2**31, size=count - 1).tolist()
    return [
        ["".join(row) for row in own.astype(str)],
        *(generate_random_map(len(own), seed=s) for s in seeds),
    ]


def observations(lake: Map) -> np.ndarray:
    """[S, 2 S]: where one stands, then the holes, in zeros and ones."""
    holes = np.array([cell == "H" for row in lake for cell in row], np.float32)
    return np.concatenate([np.eye(len(holes), dtype=np.float32), np.tile(holes, (len(holes), 1))], 1)


def is_ice(lake: Map) -> np.ndarray:
    """[S] bool: one can stand there and go on."""
    return np.array([cell in "SF" for row in lake for cell in row])


def mdp_of(lake: Map) -> FiniteMDP:
    """S + 1 states, the last for all that is over."""
    return from_gymnasium(gym.make("FrozenLake-v1", desc=lake))


def tried(mdp: FiniteMDP, tries: int, generator: np.random.Generator) -> FiniteMDP:
    """The same with p(s'|s, a) as counted in so many tries of every (s, a)."""
    return FiniteMDP(generator.multinomial(tries, mdp.P) / tries, mdp.R, mdp.start)


def q_values(mdp: FiniteMDP, gamma: float = 0.99, sweeps: int = 300) -> np.ndarray:
    """Q* [S, A] by value iteration."""
    Q = mdp.R
    for _ in range(sweeps):
        Q = mdp.R + gamma * mdp.P @ Q.max(1)
    return Q


def expected_return(mdp: FiniteMDP, policy: np.ndarray, steps: int) -> float:
    """Undiscounted, of the actions policy [S] or [S - 1] within so many steps; in the last state, where
    nothing happens, any will do."""
    policy = np.append(policy, 0)[: len(mdp.P)]
    rows = np.arange(len(mdp.P))
    P, R, p, total = mdp.P[rows, policy], mdp.R[rows, policy], mdp.start, 0.0
    for _ in range(steps):
        total, p = total + p @ R, p @ P
    return float(total)
