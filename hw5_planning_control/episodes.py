"""Episodes of k policies side by side, and how much better than expected each of their actions was.

A_t = sum_l lambda^l (r_{t+l} + V(o_{t+l+1}) - V(o_{t+l}))    (Schulman et al. 2016), without discount
V(o, t) linear in products of two of [1, o, t], fitted to the rewards to go (after Duan et al. 2016)

Every policy has its own V, and its own unit of A. Shapes: k policies, T steps, M episodes of each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class Gaussian(NamedTuple):
    """k policies N(mu_i, diag(sigma_i)^2) side by side."""

    mean: Tensor  # [k, B, K]
    log_std: Tensor  # [k, 1, K]

    def log_prob(self, action: Tensor) -> Tensor:
        """[k, B, K] -> [k, B], without the constant."""
        z = (action - self.mean) * (-self.log_std).exp()
        return -(0.5 * z.square() + self.log_std).sum(-1)

    def kl(self, other: Gaussian) -> Tensor:
        """D_KL(self || other): [k, B]; `other` may be one policy for all k."""
        z = (self.mean - other.mean) * (-other.log_std).exp()
        apart = self.log_std - other.log_std
        return (0.5 * (z.square() + (2 * apart).exp() - 1) - apart).sum(-1)

    def rows(self, index: Tensor) -> Gaussian:
        return Gaussian(self.mean[:, index], self.log_std)

    def frozen(self) -> Gaussian:
        """As it is now, without gradient."""
        return Gaussian(self.mean.detach(), self.log_std.detach().clone())


class Arena(NamedTuple):
    """Where they learn: episodes of T steps side by side."""

    starts: Callable[[int, torch.Generator], Tensor]  # N -> x_0 [N, n]
    step: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]  # x, action, t -> x', reward [...]
    observe: Callable[[Tensor, int], Tensor]  # x [..., n], t -> o [..., D]
    steps: int  # T


class Samples(NamedTuple):
    obs: Tensor  # [k, T, M, D]
    action: Tensor  # [k, T, M, K]
    reward: Tensor  # [k, T, M]


@torch.no_grad()
def collect(
    arena: Arena, policies: Callable[[Tensor], Gaussian], x: Tensor, generator: torch.Generator
) -> Samples:
    """An episode of policy i from every start x[i], x [k, M, n]; policies(obs [k, M, D]) -> k Gaussians."""
    rows = []
    for t in range(arena.steps):
        obs = arena.observe(x, t)
        pi = policies(obs)
        action = pi.mean + pi.log_std.exp() * torch.randn(pi.mean.shape, generator=generator)
        x, reward = arena.step(x, action, t)
        rows.append((obs, action, reward.float()))
    return Samples(*(torch.stack(column, 1) for column in zip(*rows, strict=True)))


@torch.no_grad()
def play(arena: Arena, center: Callable[[Tensor], Gaussian], x: Tensor) -> np.ndarray:
    """The return [N] of one policy without its noise, from x [N, n]."""
    total = torch.zeros(len(x), dtype=torch.float64)
    for t in range(arena.steps):
        x, reward = arena.step(x, center(arena.observe(x, t)[None]).mean[0], t)
        total += reward
    return total.numpy()


class Baseline:
    """V_i(o, t), linear in all products of two of [1, o, t] (after Duan et al. 2016)."""

    def state_dict(self) -> dict[str, Tensor]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        vars(self).update(state)

    def fit(self, obs: Tensor, reward: Tensor) -> None:
        """Least squares of the rewards to go: obs [k, T, M, D], reward [k, T, M]."""
        phi, target = self._features(obs).flatten(1, 2), reward_to_go(reward).flatten(1).double()
        gram = phi.mT @ phi / phi.shape[1]
        ridge = 1e-6 * torch.eye(gram.shape[-1], dtype=gram.dtype)
        self.weight = torch.linalg.solve(gram + ridge, phi.mT @ target[..., None] / phi.shape[1])

    def __call__(self, obs: Tensor) -> Tensor:
        """[k, T, M]"""
        return (self._features(obs) @ self.weight[:, None])[..., 0].float()

    @staticmethod
    def _features(obs: Tensor) -> Tensor:
        t = torch.linspace(-1, 1, obs.shape[1], dtype=torch.float64)[:, None, None].expand(*obs.shape[:-1], 1)
        z = torch.cat([torch.ones_like(t), obs.double(), t], -1)
        i, j = torch.triu_indices(z.shape[-1], z.shape[-1])
        return z[..., i] * z[..., j]


def reward_to_go(reward: Tensor) -> Tensor:
    """sum of r_t' over t' >= t: [k, T, M]"""
    return reward.flip(1).cumsum(1).flip(1)


def advantages(reward: Tensor, value: Tensor, lam: float) -> Tensor:
    """sum_l lam^l (r + V' - V)_{t+l} in units of its deviation in the region, less its mean there; V = 0
    after the last step. reward, value [k, T, M]."""
    next_value = nn.functional.pad(value[:, 1:], (0, 0, 0, 1))
    found = [torch.zeros_like(reward[:, 0])]
    for delta in (reward + next_value - value).flip(1).unbind(1):
        found.append(delta + lam * found[-1])
    advantage = torch.stack(found[:0:-1], 1)
    mean, std = (f(advantage, dim=(1, 2), keepdim=True) for f in (torch.mean, torch.std))
    return (advantage - mean) / std.clamp(min=1e-8)
