"""Batches that several tests of this homework need."""

from __future__ import annotations

import torch

from common.replay import Batch
from common.types import EnvSpec

DISCRETE = EnvSpec(num_envs=1, obs_dim=3, action_dim=2, discrete=True)
CONTINUOUS = EnvSpec(num_envs=1, obs_dim=3, action_dim=2, discrete=False)


def self_loop(spec: EnvSpec, size: int = 16, terminated: bool = False) -> Batch:
    """One state, reward 1, whatever the action: V = 1 / (1 - gamma), or 1 if it ends at once."""
    g = torch.Generator().manual_seed(0)
    if spec.discrete:
        action = torch.arange(size) % spec.action_dim
    else:
        action = 2 * torch.rand(size, spec.action_dim, generator=g) - 1
    obs = torch.ones(size, spec.obs_dim)
    return Batch(obs, action, torch.ones(size), obs, torch.full((size,), terminated))


def noise(spec: EnvSpec, size: int = 32, seed: int = 0) -> Batch:
    """Transitions without meaning."""
    g = torch.Generator().manual_seed(seed)
    obs, next_obs = torch.randn(2, size, spec.obs_dim, generator=g)
    if spec.discrete:
        action = torch.randint(spec.action_dim, (size,), generator=g)
    else:
        action = 2 * torch.rand(size, spec.action_dim, generator=g) - 1
    return Batch(obs, action, torch.randn(size, generator=g), next_obs, torch.rand(size, generator=g) < 0.2)
