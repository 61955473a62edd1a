"""E2C: a latent space in which the dynamics are linear from step to step (Watter et al. 2015).

q(z|o)       = N(mu(o), diag sigma(o)^2)
z'           = A z + B u + c,   A = I + v r',   [v, r, B, c] = h(z)
q(z'|z, u)   = N(A mu + B u + c, A Sigma A'),   |A| = 1 + v'r   (matrix determinant lemma)

min E[-log p(o|z) - log p(o'|z') - log p(r|z)] + KL(q(z|o) || N(0, I)) + lambda KL(q(z'|z, u) || q(z'|o'))

As in the deterministic model the dynamics are unrolled for T steps, mean, covariance and sample together;
T = 1 is the paper's. v and r are shorter than 1, so that |A| > 0: a covariance that collapsed would cost
infinitely many nats. CEM plans in the means with the learned reward, where the paper has a quadratic cost
around the picture of a goal. Gradients flow everywhere, through samples by z = mu + sigma noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.networks import mlp
from hw4_model_based.latent_dynamics import (
    LatentConfig,
    LatentModel,
    LatentModelConfig,
    LatentMPC,
    reconstruction_loss,
)
from hw4_model_based.sequences import Sequences


@dataclass(frozen=True)
class E2CModelConfig(LatentModelConfig):
    dynamics_weight: float = 1.0  # lambda, of the KL from what is predicted to what is encoded


@dataclass(frozen=True)
class E2CConfig(LatentConfig):
    model: E2CModelConfig = field(default_factory=E2CModelConfig)  # settings of the latent space


class Gaussian(NamedTuple):
    """N(mean, cov) in the latent space."""

    mean: Tensor  # [..., Z]
    cov: Tensor  # [..., Z, Z]
    log_det: Tensor  # [...] of cov


class Linearization(NamedTuple):
    """z' = (I + v r') z + B u + c"""

    v: Tensor  # [..., Z]
    r: Tensor  # [..., Z]
    B: Tensor  # [..., Z, K]
    c: Tensor  # [..., Z]

    def map(self, z: Tensor, u: Tensor) -> Tensor:
        """z' [..., Z] of z [..., Z] and u [..., K]."""
        turned = self.v * (self.r * z).sum(-1, keepdim=True)
        return z + turned + (self.B @ u[..., None]).squeeze(-1) + self.c

    def propagate(self, z: Gaussian, u: Tensor) -> Gaussian:
        """N(A mu + B u + c, A Sigma A'), and log |A Sigma A'| = log |Sigma| + 2 log(1 + v'r)."""
        left = z.cov + self.v[..., None] * (z.cov @ self.r[..., None]).mT  # A Sigma
        cov = left + (left @ self.r[..., None]) * self.v[..., None, :]
        return Gaussian(self.map(z.mean, u), cov, z.log_det + 2 * torch.log1p((self.v * self.r).sum(-1)))


def diagonal(mean: Tensor, log_std: Tensor) -> Gaussian:
    """N(mean, diag exp(log_std)^2)"""
    return Gaussian(mean, torch.diag_embed((2 * log_std).exp()), 2 * log_std.sum(-1))


def kl_to_diagonal(p: Gaussian, mean: Tensor, log_std: Tensor) -> Tensor:
    """D_KL(p || N(mean, diag exp(log_std)^2)), log_std [..., Z] or a number: [...], in nats."""
    log_std = torch.as_tensor(log_std).expand_as(p.mean)
    square = (p.mean - mean).square() + p.cov.diagonal(dim1=-2, dim2=-1)
    terms = square * (-2 * log_std).exp() + 2 * log_std - 1
    return 0.5 * (terms.sum(-1) - p.log_det)


def shorten(x: Tensor) -> Tensor:
    """The same direction, shorter than 1: [..., Z]."""
    return x * torch.rsqrt(1 + x.square().sum(-1, keepdim=True))


class E2CModel(LatentModel):
    PARTS = ("loss/pixels", "loss/dynamics", "loss/reward", "loss/prior")

    def __init__(self, obs_dim: int, action_dim: int, config: E2CModelConfig, generator: torch.Generator):
        super().__init__(obs_dim, action_dim, config, generator)
        c, nets = config, {"generator": generator, "activation": nn.SiLU}
        self.encoder = mlp(obs_dim, *c.hidden, 2 * c.latent, **nets)
        outputs = (3 + action_dim) * c.latent
        self.change = mlp(c.latent, *c.dynamics_hidden, outputs, last_gain=0.1, **nets)
        self.draws = generator  # the agent's, which keeps it

    def posterior(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """q(z|o): mean and log standard deviation, [..., Z] each."""
        mean, log_std = self.encoder(obs).chunk(2, -1)
        return mean, log_std.clamp(-7, 2)

    def encode(self, obs: Tensor) -> Tensor:
        return self.posterior(obs)[0]

    def linearize(self, z: Tensor) -> Linearization:
        """h: [..., Z] -> A, B and c there."""
        Z = z.shape[-1]
        v, r, c, B = self.change(z).split([Z, Z, Z, self.change[-1].out_features - 3 * Z], -1)
        return Linearization(shorten(v), shorten(r), B.unflatten(-1, (Z, -1)), c)

    def step(self, s: Tensor, action: Tensor) -> Tensor:
        return self.linearize(s).map(s, action)

    def loss(self, data: Sequences) -> tuple[Tensor, Tensor]:
        c = self.config
        mean, log_std = self.posterior(data.obs)  # [T+1, B, Z]
        belief = diagonal(mean[0], log_std[0])
        prior = kl_to_diagonal(belief, torch.zeros_like(mean[0]), 0.0).mean()
        noise = torch.randn(mean[0].shape, generator=self.draws)
        z, kls = [mean[0] + log_std[0].exp() * noise], []
        for action, *target in zip(data.action, mean[1:], log_std[1:], strict=True):
            local = self.linearize(z[-1])
            belief = local.propagate(belief, action)
            z.append(local.map(z[-1], action))
            kls.append(kl_to_diagonal(belief, *target).mean())
        samples, dynamics = torch.stack(z), torch.stack(kls).mean()
        pixels = reconstruction_loss(self.decoder(samples), data.obs).mean()
        reward = (self.reward(samples[:-1]) - data.reward).square().mean() / self.reward_std**2
        total = pixels + prior + c.dynamics_weight * dynamics + c.reward_weight * reward
        return total, torch.stack([pixels, dynamics, reward, prior]).detach()


class E2C(LatentMPC):
    """Plans from the mean of q(z|o)."""

    model_type = E2CModel
