"""Cloning with a latent variable: the conditional VAE (Kingma and Welling 2014; Sohn et al. 2015).

p(a | o) = int N(a; mu(o, z), sigma^2) N(z; 0, 1) dz: what the expert had in mind is z.
log p(a | o) >= E_{z ~ q(z | o, a)}[log N(a; mu(o, z), sigma^2)] - KL(q(z | o, a) || N(0, 1)) = ELBO
theta, phi <- argmax sum_i ELBO,  z = m + s eps with q = N(m, s^2): the reparameterisation
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from common.distributions import LOG_2PI
from common.networks import MOST_UNITS, mlp
from common.normalizer import ObsNormalizer
from common.types import EnvSpec, require, require_at_least
from hw1_imitation.behavior_cloning import MIN_LOG_STD, Drawing, NetworkConfig


@dataclass(frozen=True)
class CVAEConfig(NetworkConfig):
    latents: int = 2  # entries of z

    def __post_init__(self):
        super().__post_init__()
        require_at_least(self, 1, "latents")
        require(self.latents <= MOST_UNITS, f"latents must be at most {MOST_UNITS}, got {self.latents}")


def elbo(
    mean: Tensor, log_std: Tensor, action: Tensor, z_mean: Tensor, z_log_std: Tensor
) -> tuple[Tensor, Tensor]:
    """Both terms [B]: log N(a; mean, sigma^2) and KL(N(m, s^2) || N(0, 1)), to be subtracted.

    mean and action [B, K], log_std [K] at one draw of z; z_mean, z_log_std [B, Z].
    """
    z = (action - mean) * (-log_std).exp()
    log_likelihood = -(0.5 * z.square() + log_std + 0.5 * LOG_2PI).sum(-1)
    kl = (0.5 * (z_mean.square() + (2 * z_log_std).exp() - 1) - z_log_std).sum(-1)
    return log_likelihood, kl


class LatentPolicy(nn.Module):
    """Decoder mu(o, z), encoder q(z | o, a)."""

    def __init__(self, spec: EnvSpec, config: CVAEConfig, generator: torch.Generator):
        super().__init__()
        D, K, Z = spec.obs_dim, spec.action_dim, config.latents
        self.normalize = ObsNormalizer(D)
        self.decoder = mlp(D + Z, *config.hidden, K, generator=generator)
        self.encoder = mlp(D + K, *config.hidden, 2 * Z, generator=generator)
        self.log_std = nn.Parameter(torch.full((K,), -1.0))

    def encode(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """m and log s: [B, Z] each."""
        m, log_s = self.encoder(torch.cat([self.normalize(obs), action], -1)).chunk(2, -1)
        return m, log_s.clamp(MIN_LOG_STD, 2.0)

    def forward(self, obs: Tensor, z: Tensor) -> Tensor:
        """mu [B, K]"""
        return self.decoder(torch.cat([self.normalize(obs), z], -1))


class CVAE(Drawing):
    kind = "a conditional VAE"

    def network(self, generator: torch.Generator) -> LatentPolicy:
        return LatentPolicy(self.spec, self.config, generator)

    def noise(self, rows: int) -> Tensor:
        return torch.randn(rows, self.config.latents, generator=self.generator, device=self.device)

    def loss(self, obs: Tensor, action: Tensor) -> Tensor:
        obs, action = obs.to(self.device), action.to(self.device)
        m, log_s = self.policy.encode(obs, action)
        z = m + log_s.exp() * self.noise(len(obs))
        log_std = self.policy.log_std.clamp_min(MIN_LOG_STD)
        log_likelihood, kl = elbo(self.policy(obs, z), log_std, action, m, log_s)
        return (kl - log_likelihood).mean()

    @torch.inference_mode()
    def act(self, obs: np.ndarray) -> np.ndarray:
        """z as the prior has it, then mu: the noise around it is the expert's trembling."""
        x = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        return self.policy(x, self.noise(len(x))).cpu().numpy()
