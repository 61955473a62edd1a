"""Behaviour cloning: the expert's actions as labels (Pomerleau 1989).

theta <- argmax_theta sum_i log pi_theta(a_i | o_i)

squared       pi = N(mu_theta(o), 1)        -log pi = 1/2 |a - mu|^2 + const
gaussian      pi = N(mu_theta(o), sigma^2)  -log pi = 1/2 |(a - mu) / sigma|^2 + sum log sigma + const
categorical   pi = softmax(f_theta(o))      -log pi = log sum_b exp(f_b) - f_a

mu is the same for the first two where it is linear: sigma weighs whole columns of a problem that falls apart
into one per column. Discrete actions always have the third.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from common.distributions import Categorical, DiagonalGaussian
from common.networks import mlp, require_hidden
from common.normalizer import ObsNormalizer
from common.optim import Adam, gradient_step
from common.seeding import generator
from common.types import EnvSpec, require, require_positive

MIN_LOG_STD = -5.0  # an expert without noise would take it, and the likelihood, to infinity


@dataclass(frozen=True)
class NetworkConfig:
    hidden: tuple[int, ...] = (64, 64)  # units per layer; none is a linear policy
    lr: float = 3e-3  # step size of Adam at the start of each round, falling to zero at its end
    max_grad_norm: float = 10.0  # longer gradients are cut to this

    def __post_init__(self):
        require_positive(self, "lr", "max_grad_norm")
        require_hidden(self.hidden)


@dataclass(frozen=True)
class BCConfig(NetworkConfig):
    loss: Literal["squared", "gaussian"] = "squared"  # of continuous actions


def squared_error(mean: Tensor, action: Tensor) -> Tensor:
    """mean over the batch of |a - mu|^2, both [B, K]"""
    return (action - mean).square().sum(-1).mean()


def gaussian_nll(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """-log N(a; mu, sigma^2), mean over the batch: [B, K], [K], [B, K]"""
    return -DiagonalGaussian(mean, log_std).log_prob(action).mean()


def categorical_nll(logits: Tensor, action: Tensor) -> Tensor:
    """-log pi(a), mean over the batch: [B, A], [B] int64"""
    return -Categorical(logits).log_prob(action).mean()


def linear_gaussian_mle(obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The likeliest pi = N(W o + b, sigma^2) of obs [B, D], action [B, K]: W [K, D], b [K], sigma [K].

    Least squares; sigma is the root mean square of what is left. Of several W the smallest.
    """
    ok = obs.ndim == action.ndim == 2 and len(obs) == len(action) > 0
    require(ok, f"obs and action must be [B, D] and [B, K], got {list(obs.shape)} and {list(action.shape)}")
    ok = bool(torch.isfinite(obs).all() and torch.isfinite(action).all())
    require(ok, "obs and action must be finite")
    design = torch.cat([obs, torch.ones_like(obs[:, :1])], 1)  # [B, D+1]
    solution = torch.linalg.lstsq(design, action, driver="gelsd").solution  # [D+1, K]
    sigma = (action - design @ solution).square().mean(0).sqrt()
    return solution[:-1].T, solution[-1], sigma


class Policy(nn.Module):
    """pi_theta(. | o) of one network, on normalised observations."""

    def __init__(self, spec: EnvSpec, hidden: tuple[int, ...], generator: torch.Generator):
        super().__init__()
        self.normalize = ObsNormalizer(spec.obs_dim)
        self.net = mlp(spec.obs_dim, *hidden, spec.action_dim, last_gain=0.01, generator=generator)
        self.log_std = None if spec.discrete else nn.Parameter(torch.zeros(spec.action_dim))

    def forward(self, obs: Tensor) -> Tensor:
        """Logits [B, A] or mean [B, K]."""
        return self.net(self.normalize(obs))


class Imitator:
    """A policy fitted to D by gradient steps on a loss. What it is and how it acts is up to its kind."""

    def __init__(self, spec: EnvSpec, config: NetworkConfig, device: torch.device, seed: int):
        self.spec, self.config, self.device = spec, config, device
        self.policy = self.network(generator(seed, "policy")).to(device)
        self.parameters = tuple(self.policy.parameters())
        self.optimizer = Adam(self.parameters, config.lr)

    def network(self, generator: torch.Generator) -> nn.Module:
        """With an ObsNormalizer named `normalize`."""
        raise NotImplementedError

    def loss(self, obs: Tensor, action: Tensor) -> Tensor:
        """Of a batch, [B, D] and [B] or [B, K]: a scalar."""
        raise NotImplementedError

    def act(self, obs: np.ndarray) -> np.ndarray:
        """[N, D] -> [N] or [N, K]"""
        raise NotImplementedError

    def observe(self, obs: Tensor) -> None:
        """Take [M, D] into the statistics that normalise observations."""
        self.policy.normalize.update(obs.to(self.device))

    def update(self, obs: Tensor, action: Tensor, left: float = 1.0) -> dict[str, Tensor]:
        """One gradient step, with the share `left` of the learning rate."""
        self.optimizer.param_groups[0]["lr"] = self.config.lr * left
        loss = self.loss(obs, action)
        norm = gradient_step(loss, self.optimizer, self.parameters, self.config.max_grad_norm)
        return {"loss/imitation": loss.detach(), "grad/norm": norm}


class Drawing(Imitator):
    """An imitator of continuous actions that draws them; `kind` is what its errors call it."""

    kind: str

    def __init__(self, spec: EnvSpec, config: NetworkConfig, device: torch.device, seed: int):
        ok = not spec.discrete
        require(ok, f"env_id must have continuous actions for {self.kind}, this one's are discrete")
        super().__init__(spec, config, device, seed)
        self.generator = generator(seed, "act", device=device)


class BehaviorCloning(Imitator):
    def network(self, generator: torch.Generator) -> Policy:
        return Policy(self.spec, self.config.hidden, generator)

    @torch.inference_mode()
    def act(self, obs: np.ndarray) -> np.ndarray:
        """The likeliest action."""
        out = self.policy(torch.as_tensor(obs, dtype=torch.float32, device=self.device))
        return (out.argmax(-1) if self.spec.discrete else out).cpu().numpy()

    def loss(self, obs: Tensor, action: Tensor) -> Tensor:
        out, action = self.policy(obs.to(self.device)), action.to(self.device)
        if self.spec.discrete:
            return categorical_nll(out, action)
        if self.config.loss == "squared":
            return squared_error(out, action)
        return gaussian_nll(out, self.policy.log_std.clamp_min(MIN_LOG_STD), action)
