"""Running statistics, as buffers of modules in the agent: saved with the policy, frozen in evaluation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """Mean and variance of everything seen, merged batch by batch (Chan, Golub, LeVeque 1979, eq. 2.1).

    float64, as the difference of nearly equal numbers decides the variance.
    """

    def __init__(self, *shape: int):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))

    def update(self, x: Tensor) -> None:
        """Take in a batch [..., *shape]."""
        x = x.detach().double().reshape(-1, *self.mean.shape)
        self.merge(len(x), x.mean(0), x.var(0, correction=0))

    @torch.no_grad()
    def merge(self, n: int, mean: Tensor | np.ndarray, var: Tensor | np.ndarray) -> None:
        """Take in a batch of n by its mean and variance [*shape]."""
        mean, var = (torch.as_tensor(x).to(self.mean) for x in (mean, var))
        delta = mean - self.mean
        total = self.count + n
        squares = self.var * self.count + var * n + delta**2 * self.count * n / total
        self.mean += delta * n / total
        self.var.copy_(squares / total)
        self.count.copy_(total)


class ObsNormalizer(RunningMoments):
    """(obs - mean) / std, clipped to [-limit, limit].

    Call `update` after learning from a rollout, never in between: the policy that acted, the one whose
    log-probabilities are kept and the one that is improved must see the same inputs.
    """

    def __init__(self, obs_dim: int, limit: float = 10.0):
        super().__init__(obs_dim)
        self.limit = limit

    def forward(self, obs: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        mean, scale = self.mean.float(), (self.var + 1e-8).rsqrt().float()
        return ((obs - mean) * scale).clamp(-self.limit, self.limit)


class RewardScaler(RunningMoments):
    """reward / std of the discounted return, clipped; not centred, which would be another task."""

    def __init__(self, num_envs: int, gamma: float, limit: float = 10.0):
        super().__init__()
        self.gamma, self.limit = gamma, limit
        self.register_buffer("trace", torch.zeros(num_envs))  # [N] sum_k gamma^k r_{t-k} of the episode

    @torch.no_grad()
    def forward(self, reward: Tensor, ended: Tensor) -> Tensor:
        """[T, N], [T, N] -> [T, N]. Learns from these rewards, then scales them."""
        traces = torch.empty_like(reward)
        for t, goes_on in enumerate(ended.logical_not()):
            torch.add(reward[t], self.trace, alpha=self.gamma, out=traces[t])
            self.trace.copy_(traces[t] * goes_on)
        self.update(traces)
        return (reward * (self.var + 1e-8).rsqrt().float()).clamp(-self.limit, self.limit)
