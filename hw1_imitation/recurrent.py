"""Cloning an expert that remembers: its action depends on what it saw before, pi(a_t | o_1 .. o_t).

history      pi(a_t | o_{t-L+1} .. o_t)              the last L observations side by side
recurrent    h_k = GRU(h_{k-1}, o_k), pi(a_t | h_t)  over the same L, one after the other, from h = 0

Both are fitted to windows of the demonstrations and act on windows of the same length; before the first
observation of an episode it stands in for those that are missing. More memory is not always better: the
past tells as well what the expert was about to do anyway (causal confusion, de Haan et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from common.networks import GRU, MOST_UNITS, mlp
from common.normalizer import ObsNormalizer
from common.types import EnvSpec, require, require_at_least
from hw1_imitation.behavior_cloning import BCConfig, BehaviorCloning


@dataclass(frozen=True)
class HistoryConfig(BCConfig):
    window: int = 4  # L, the present observation included

    def __post_init__(self):
        super().__post_init__()
        require_window(self.window)


@dataclass(frozen=True)
class RecurrentConfig(BCConfig):
    hidden: tuple[int, ...] = ()  # units per layer between h and the action
    units: int = 32  # of h
    window: int = 8  # L, the present observation included

    def __post_init__(self):
        super().__post_init__()
        require_window(self.window)
        require_at_least(self, 1, "units")
        require(self.units <= MOST_UNITS, f"units must be at most {MOST_UNITS}, got {self.units}")


def require_window(window: int) -> None:
    require(1 <= window <= 256, f"window must lie in [1, 256], got {window}")


class Window:
    """Acts on the last L observations of every episode, [N, L D], oldest first."""

    def __init__(self, act: Callable[[np.ndarray], np.ndarray], size: int):
        self.policy, self.size = act, size
        self.seen = None  # [N, L, D]
        self.new = None  # [N] bool, begins an episode with the next observation

    def begin(self, first: np.ndarray) -> None:
        if self.new is None or len(self.new) != len(first):
            self.new = np.ones(len(first), bool)
        self.new = self.new | first

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        if self.new is None or len(self.new) != len(obs):
            self.new = np.ones(len(obs), bool)
        if self.new.all():
            self.seen = np.repeat(obs[:, None], self.size, 1)
        else:
            self.seen = np.concatenate([self.seen[:, 1:], obs[:, None]], 1)
            self.seen[self.new] = obs[self.new, None]
        self.new = np.zeros(len(obs), bool)
        return self.policy(self.seen.reshape(len(obs), -1))

    def state_dict(self) -> dict:
        return {}  # no episode outlives a checkpoint

    def load_state_dict(self, state: dict) -> None:
        self.seen = self.new = None


class HistoryCloning(BehaviorCloning):
    """Behaviour cloning of observations that are L times as long."""

    def __init__(self, spec: EnvSpec, config: HistoryConfig, device: torch.device, seed: int):
        super().__init__(spec._replace(obs_dim=config.window * spec.obs_dim), config, device, seed)
        self.act = Window(partial(BehaviorCloning.act, self), config.window)


class RecurrentPolicy(nn.Module):
    def __init__(self, spec: EnvSpec, config: RecurrentConfig, generator: torch.Generator):
        super().__init__()
        self.window = config.window
        self.normalize = ObsNormalizer(spec.obs_dim)
        self.memory = GRU(spec.obs_dim, config.units, generator)
        self.head = mlp(config.units, *config.hidden, spec.action_dim, last_gain=0.01, generator=generator)
        self.log_std = None if spec.discrete else nn.Parameter(torch.zeros(spec.action_dim))

    def forward(self, obs: Tensor) -> Tensor:
        """Windows [B, L D] -> logits [B, A] or mean [B, K] for their last observation."""
        x = self.normalize(obs.unflatten(-1, (self.window, -1))).transpose(0, 1)  # [L, B, D]
        h = x.new_zeros(x.shape[1], self.memory.units)
        return self.head(self.memory(x, h, x.new_zeros(x.shape[:2], dtype=torch.bool))[-1])


class RecurrentCloning(BehaviorCloning):
    """Behaviour cloning by another network."""

    def __init__(self, spec: EnvSpec, config: RecurrentConfig, device: torch.device, seed: int):
        super().__init__(spec, config, device, seed)
        self.act = Window(partial(BehaviorCloning.act, self), config.window)

    def network(self, generator: torch.Generator) -> RecurrentPolicy:
        return RecurrentPolicy(self.spec, self.config, generator)

    def observe(self, obs: Tensor) -> None:
        super().observe(obs[:, -self.spec.obs_dim :])  # the others are the last ones of other rows
