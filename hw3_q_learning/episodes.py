"""One discrete Gymnasium environment, one transition at a time: states and actions are counted from zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete, MultiDiscrete, Space, Tuple

from common.seeding import child_seed
from common.types import UsageError, require

Act = Callable[[int, int], int]  # (state, episode from 0) -> action


class Transition(NamedTuple):
    state: int
    action: int
    reward: float
    next_state: int
    terminated: bool  # next_state is absorbing, its value is zero
    ended: bool  # terminated, or truncated: next_state still has a value
    episode: int  # from 0


def play(
    env: gym.Env, episodes: int, act: Act, seed: int, returns: list[float] | None = None
) -> Iterator[Transition]:
    """Every transition of so many episodes; `act` is asked after the caller has learned from the last one.

    `returns`, where given, gets the return of every episode.
    """
    require(episodes >= 0, f"episodes must be at least 0, got {episodes}")
    (_, state_of), first_action = indexing(env.observation_space), int(env.action_space.start)
    for episode in range(episodes):
        obs, _ = env.reset(seed=child_seed(seed, "env") % 2**32) if episode == 0 else env.reset()
        state, total, ended = state_of(obs), 0.0, False
        while not ended:
            action = act(state, episode)
            obs, reward, terminated, truncated, _ = env.step(first_action + action)
            if not math.isfinite(reward):
                raise UsageError(f"env gave the reward {reward} in episode {episode}")
            next_state, ended = state_of(obs), bool(terminated or truncated)
            yield Transition(state, action, float(reward), next_state, bool(terminated), ended, episode)
            state, total = next_state, total + float(reward)
        if returns is not None:
            returns.append(total)


def sizes(env: gym.Env) -> tuple[int, int]:
    """(S, A)"""
    require(
        not isinstance(env, gym.vector.VectorEnv), "env must be a single environment, got a vector of them"
    )
    actions = env.action_space
    require(isinstance(actions, Discrete), f"env must have discrete actions, got {actions}")
    return indexing(env.observation_space)[0], int(actions.n)


def indexing(space: Space) -> tuple[int, Callable[[object], int]]:
    """(how many observations there are, observation -> its number)."""
    if isinstance(space, Discrete):
        start = int(space.start)
        return int(space.n), lambda obs: int(obs) - start
    if isinstance(space, MultiDiscrete):
        space = Tuple(
            [Discrete(n, start=s) for n, s in zip(space.nvec.ravel(), space.start.ravel(), strict=True)]
        )
    ok = isinstance(space, Tuple) and all(isinstance(part, Discrete) for part in space)
    require(ok, f"env must have discrete observations, got {space}")
    count = math.prod(int(part.n) for part in space)
    require(count < 2**31, f"env must have fewer than 2^31 observations for a table, got {count:,}")

    def number(obs: object) -> int:
        index = 0
        for value, part in zip(np.ravel(obs).tolist(), space, strict=True):
            index = index * int(part.n) + int(value) - int(part.start)
        return index

    return count, number
