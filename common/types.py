"""What every homework agrees on. T time, N environments, B batch, D observation size, A actions, K action
size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

Metrics = dict[str, float]


class UsageError(ValueError):
    """Bad input, for the user to mend. The command line shows the sentence and exits with status 2."""


def require(ok: bool, sentence: str) -> None:
    """Raise UsageError(sentence) unless `ok`. The sentence names the argument and what was expected."""
    if not ok:
        raise UsageError(sentence)


def require_unit(config: object, *names: str) -> None:
    """The settings `names` of `config` must lie in [0, 1]."""
    for name in names:
        value = getattr(config, name)
        require(0 <= value <= 1, f"{name} must lie in [0, 1], got {value}")


def require_positive(config: object, *names: str) -> None:
    """The settings `names` of `config` must be positive and finite."""
    for name in names:
        value = getattr(config, name)
        require(0 < value < math.inf, f"{name} must be positive, got {value}")


def require_at_least(config: object, low: int, *names: str) -> None:
    """The settings `names` of `config` must be at least `low` and below 2^31, which no real one reaches."""
    for name in names:
        value = getattr(config, name)
        require(value >= low, f"{name} must be at least {low}, got {value}")
        require(value < 2**31, f"{name} must be below 2^31, got {value}")


class EnvSpec(NamedTuple):
    """What an agent has to know of its environments."""

    num_envs: int  # N
    obs_dim: int  # D
    action_dim: int  # A if discrete, otherwise K
    discrete: bool


class Rollout(NamedTuple):
    """T steps of N environments. `next_obs` is the true successor, also where an episode ended."""

    obs: Tensor  # [T, N, D] float32
    action: Tensor  # [T, N] int64, or [T, N, K] float32 as the policy drew it, before clipping
    reward: Tensor  # [T, N] float32
    next_obs: Tensor  # [T, N, D] float32
    terminated: Tensor  # [T, N] bool: next_obs is absorbing, its value is zero
    truncated: Tensor  # [T, N] bool: the episode was cut here, next_obs still has a value

    @property
    def ended(self) -> Tensor:
        """[T, N] bool: the next row of this environment belongs to another episode."""
        return self.terminated | self.truncated

    def cut(self) -> Rollout:
        """The same with its last row as a truncation, where it did not terminate: new episodes follow."""
        truncated = self.truncated.clone()
        truncated[-1] = self.terminated[-1].logical_not()
        return self._replace(truncated=truncated)


class Agent(Protocol):
    """Owns its networks, optimisers, statistics and generator: all of it is checkpointed.

    Where the policy remembers, `act` and `explore` are objects instead of methods, called in the same way and
    with a method `begin`, see there.
    """

    def act(self, obs: np.ndarray) -> np.ndarray:
        """[N, D] -> [N] or [N, K], actions of the policy as evaluated."""

    def explore(self, obs: np.ndarray, step: int) -> np.ndarray:
        """[N, D] -> [N] or [N, K], actions of the behaviour policy at environment step `step`."""

    def update(self, batch: Rollout) -> Metrics:
        """One iteration of learning."""


def begin(policy: Callable, first: np.ndarray) -> None:
    """Before `policy` acts in N environments: `first` [N] bool, which of them show it a new episode now.

    For `act` and `explore` of agents that remember; a policy without a method `begin` need not be told.
    """
    if first.any() and hasattr(policy, "begin"):
        policy.begin(first)
