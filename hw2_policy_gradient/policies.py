"""The stochastic policy pi(a | s) of this homework: a network, a distribution, observation statistics."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from common.distributions import Categorical, DiagonalGaussian
from common.networks import mlp, require_hidden
from common.normalizer import ObsNormalizer
from common.types import EnvSpec, require


def require_network(hidden: tuple[int, ...], log_std: float) -> None:
    """Settings that every agent of this homework has. No hidden layer means a linear policy."""
    require_hidden(hidden)
    require(-20 <= log_std <= 10, f"log_std must lie in [-20, 10], got {log_std}")


class Policy(nn.Module):
    """Categorical over A actions, or a Gaussian over [K] whose deviation is the same in every state.

    Gaussian actions are clipped to [-1, 1] on the environment's side only: log-probabilities stay Gaussian.
    """

    def __init__(
        self,
        spec: EnvSpec,
        hidden: tuple[int, ...],
        log_std: float,
        normalize_obs: bool,
        generator: torch.Generator,
    ):
        super().__init__()
        self.normalize = ObsNormalizer(spec.obs_dim) if normalize_obs else nn.Identity()
        self.net = mlp(spec.obs_dim, *hidden, spec.action_dim, last_gain=0.01, generator=generator)
        self.log_std = None if spec.discrete else nn.Parameter(torch.full((spec.action_dim,), log_std))

    def forward(self, obs: Tensor) -> Categorical | DiagonalGaussian:
        """pi(. | obs), obs [..., D] normalised already."""
        out = self.net(obs)
        return Categorical(out) if self.log_std is None else DiagonalGaussian(out, self.log_std)

    @torch.inference_mode()
    def act(self, obs: np.ndarray, generator: torch.Generator | None = None) -> np.ndarray:
        """[N, D] as observed -> actions [N] or [N, K]: drawn with the generator, or else the mode."""
        x = torch.as_tensor(obs, dtype=torch.float32, device=self.net[0].weight.device)
        pi = self(self.normalize(x))
        return (pi.mode() if generator is None else pi.sample(generator)).cpu().numpy()
