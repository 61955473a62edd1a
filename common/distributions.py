"""Action distributions written out: torch.distributions spends more time on checks than on mathematics.

Shapes: [...] any batch, A number of actions, K action size. Each has sample, mode, log_prob, entropy, kl,
and frozen: a copy without gradient that stays as it is when the network moves on; and information: tensors x
and weights w [..., A or K] with which the Fisher matrix is sum_i w_i grad x_i grad x_i^T.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

LOG_2PI = math.log(2 * math.pi)


class Categorical:
    """pi(a) proportional to exp(logits_a)."""

    def __init__(self, logits: Tensor):
        self.log_p = logits.log_softmax(-1)  # [..., A]

    def sample(self, generator: torch.Generator) -> Tensor:
        """[...] int64. Clocks of rates p ring after times x / p, x exponential; the first is a's with p_a."""
        x = torch.empty_like(self.log_p).exponential_(generator=generator)
        return (self.log_p.exp() / x).argmax(-1)

    def mode(self) -> Tensor:
        return self.log_p.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...] int64 -> [...]"""
        return self.log_p.gather(-1, action[..., None]).squeeze(-1)

    def entropy(self) -> Tensor:
        """[...], in nats."""
        return -(self.log_p.exp() * self.log_p).sum(-1)

    def kl(self, other: Categorical) -> Tensor:
        """D_KL(self || other): [...], in nats."""
        return (self.log_p.exp() * (self.log_p - other.log_p)).sum(-1)

    def information(self) -> list[tuple[Tensor, Tensor]]:
        """E_a[grad log pi(a) grad log pi(a)^T]"""
        return [(self.log_p, self.log_p.detach().exp())]

    def frozen(self) -> Categorical:
        return Categorical(self.log_p.detach())


class DiagonalGaussian:
    """N(mean, diag(exp(log_std))^2), mean [..., K]; log_std [K] is the same in every state."""

    def __init__(self, mean: Tensor, log_std: Tensor):
        self.mean, self.log_std = mean, log_std

    def sample(self, generator: torch.Generator) -> Tensor:
        """[..., K]"""
        noise = torch.randn(
            self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype
        )
        return self.mean + self.log_std.exp() * noise

    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """[..., K] -> [...]"""
        z = (action - self.mean) * (-self.log_std).exp()
        return -0.5 * z.square().sum(-1) - (self.log_std.sum() + 0.5 * LOG_2PI * self.log_std.numel())

    def entropy(self) -> Tensor:
        """[...], in nats."""
        one = self.log_std.sum() + 0.5 * (1 + LOG_2PI) * self.log_std.numel()
        return one.expand(self.mean.shape[:-1])

    def kl(self, other: DiagonalGaussian) -> Tensor:
        """D_KL(self || other): [...], in nats."""
        variance_ratio = (2 * (self.log_std - other.log_std)).exp()
        z = (self.mean - other.mean) * (-other.log_std).exp()
        return 0.5 * (z.square() + variance_ratio - 1).sum(-1) + (other.log_std - self.log_std).sum()

    def information(self) -> list[tuple[Tensor, Tensor]]:
        """1/sigma^2 for the mean, 2 for log sigma"""
        precision = (-2 * self.log_std.detach()).exp().expand_as(self.mean)
        log_std = self.log_std.expand_as(self.mean)
        return [(self.mean, precision), (log_std, torch.full_like(precision, 2))]

    def frozen(self) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean.detach(), self.log_std.detach().clone())


def squashed_gaussian(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """a = tanh(u), u = mean + exp(log_std) noise, and log pi(a) = log N(u) - sum log(1 - tanh(u)^2).

    All [..., K] -> a [..., K], log pi(a) [...]. 1 - tanh(u)^2 is written out as 4 / (e^u + e^-u)^2: the
    difference itself would be zero from |u| = 9 on.
    """
    u = torch.addcmul(mean, log_std.exp(), noise)
    log_slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
    return u.tanh(), -(0.5 * noise.square() + log_std + log_slope + 0.5 * LOG_2PI).sum(-1)
