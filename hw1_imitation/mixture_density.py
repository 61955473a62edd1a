"""Cloning an expert who does now this, now that: a mixture of Gaussians (Bishop 1994).

pi(a | o) = sum_k w_k(o) N(a; mu_k(o), sigma_k(o)^2),   theta <- argmin -sum_i log pi_theta(a_i | o_i)

The mean of two good actions may be a bad one: squared error steers between left and right into the tree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from common.distributions import LOG_2PI, Categorical
from common.networks import MOST_UNITS, mlp
from common.normalizer import ObsNormalizer
from common.types import EnvSpec, require, require_at_least
from hw1_imitation.behavior_cloning import MIN_LOG_STD, Drawing, NetworkConfig


@dataclass(frozen=True)
class MixtureConfig(NetworkConfig):
    components: int = 5  # Gaussians of the mixture

    def __post_init__(self):
        super().__post_init__()
        require_at_least(self, 1, "components")
        require(
            self.components <= MOST_UNITS, f"components must be at most {MOST_UNITS}, got {self.components}"
        )


def mixture_nll(log_w: Tensor, mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """-log sum_k w_k N(a; mu_k, sigma_k^2), mean over the batch.

    log_w [B, M] of weights that sum to one; mean, log_std [B, M, K]; action [B, K].
    """
    z = (action[:, None] - mean) * (-log_std).exp()
    log_normal = -(0.5 * z.square() + log_std + 0.5 * LOG_2PI).sum(-1)  # [B, M]
    return -(log_w + log_normal).logsumexp(-1).mean()


class MixturePolicy(nn.Module):
    def __init__(self, spec: EnvSpec, config: MixtureConfig, generator: torch.Generator):
        super().__init__()
        self.normalize = ObsNormalizer(spec.obs_dim)
        self.shape = (config.components, spec.action_dim)
        out = config.components * (1 + 2 * spec.action_dim)
        self.net = mlp(spec.obs_dim, *config.hidden, out, generator=generator)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log_w [B, M], mean and log_std [B, M, K]"""
        M, K = self.shape
        log_w, mean, log_std = self.net(self.normalize(obs)).split((M, M * K, M * K), -1)
        mean, log_std = (x.unflatten(-1, (M, K)) for x in (mean, log_std))
        return log_w.log_softmax(-1), mean, log_std.clamp(MIN_LOG_STD, 2.0)


class MixtureDensity(Drawing):
    kind = "a mixture of Gaussians"

    def network(self, generator: torch.Generator) -> MixturePolicy:
        return MixturePolicy(self.spec, self.config, generator)

    def loss(self, obs: Tensor, action: Tensor) -> Tensor:
        return mixture_nll(*self.policy(obs.to(self.device)), action.to(self.device))

    @torch.inference_mode()
    def act(self, obs: np.ndarray) -> np.ndarray:
        """One component drawn, then an action of its Gaussian."""
        x = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        log_w, mean, log_std = self.policy(x)
        k = Categorical(log_w).sample(self.generator)[:, None, None].expand(-1, 1, mean.shape[-1])
        mean, std = mean.gather(1, k).squeeze(1), log_std.gather(1, k).squeeze(1).exp()
        noise = torch.randn(mean.shape, generator=self.generator, device=self.device)
        return (mean + std * noise).cpu().numpy()
