"""Cloning entry by entry: an autoregressive distribution over bins (Larochelle and Murray 2011).

pi(a | o) = prod_d p(a_d | a_1 .. a_{d-1}, o), a_d in one of B bins of [-1, 1]
theta <- argmin -sum_i sum_d log p_theta(a_{i,d} | a_{i,<d}, o_i)

Any distribution over the B^K combinations, with B outputs per entry instead of B^K. All conditionals of a
demonstration are fitted at once; only acting goes entry by entry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from common.distributions import Categorical
from common.networks import MOST_UNITS, mlp
from common.normalizer import ObsNormalizer
from common.types import EnvSpec, require, require_at_least
from hw1_imitation.behavior_cloning import Drawing, NetworkConfig


@dataclass(frozen=True)
class AutoregressiveConfig(NetworkConfig):
    bins: int = 21  # per entry of the action

    def __post_init__(self):
        super().__post_init__()
        require_at_least(self, 2, "bins")
        require(self.bins <= MOST_UNITS, f"bins must be at most {MOST_UNITS}, got {self.bins}")


def bin_of(action: Tensor, bins: int) -> Tensor:
    """[...] in [-1, 1] -> [...] int64 in [0, bins)"""
    return ((action + 1) / 2 * bins).long().clamp(0, bins - 1)


def center_of(index: Tensor, bins: int) -> Tensor:
    """[...] int64 -> [...] float32, the middle of the bin"""
    return (index.float() + 0.5) * (2 / bins) - 1


class AutoregressivePolicy(nn.Module):
    """A network per entry, which sees the bins before it as their centres."""

    def __init__(self, spec: EnvSpec, config: AutoregressiveConfig, generator: torch.Generator):
        super().__init__()
        self.bins = config.bins
        self.normalize = ObsNormalizer(spec.obs_dim)
        self.nets = nn.ModuleList(
            mlp(spec.obs_dim + d, *config.hidden, config.bins, generator=generator)
            for d in range(spec.action_dim)
        )

    def conditional(self, d: int, obs: Tensor, before: Tensor) -> Categorical:
        """p(. | a_<d, o) of obs [B, D], normalised, and the indices before [B, d]."""
        return Categorical(self.nets[d](torch.cat([obs, center_of(before, self.bins)], -1)))

    def log_prob(self, obs: Tensor, index: Tensor) -> Tensor:
        """log pi of the bins [B, K]: [B]"""
        x = self.normalize(obs)
        terms = [self.conditional(d, x, index[:, :d]).log_prob(index[:, d]) for d in range(index.shape[1])]
        return torch.stack(terms).sum(0)

    def sample(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        """Bins [B, K]"""
        x, index = self.normalize(obs), obs.new_empty(len(obs), 0, dtype=torch.int64)
        for d in range(len(self.nets)):
            drawn = self.conditional(d, x, index).sample(generator)
            index = torch.cat([index, drawn[:, None]], 1)
        return index


class Autoregressive(Drawing):
    kind = "an autoregressive policy"

    def network(self, generator: torch.Generator) -> AutoregressivePolicy:
        return AutoregressivePolicy(self.spec, self.config, generator)

    def loss(self, obs: Tensor, action: Tensor) -> Tensor:
        index = bin_of(action.to(self.device), self.config.bins)
        return -self.policy.log_prob(obs.to(self.device), index).mean()

    @torch.inference_mode()
    def act(self, obs: np.ndarray) -> np.ndarray:
        """The middle of the bins that were drawn."""
        x = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        return center_of(self.policy.sample(x, self.generator), self.config.bins).cpu().numpy()
