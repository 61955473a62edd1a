"""Distributional Q-learning: the law of the return instead of its mean, Q(s, a) = E Z(s, a).

C51 (Bellemare et al. 2017): Z is p_1 ... p_n on fixed atoms z_1 ... z_n from v_min to v_max
    L = -sum_i m_i log p_i(s, a),   m = projection of r + gamma (1 - d) z under p'(s', a*) onto the atoms
QR (Dabney et al. 2018): Z is n quantiles theta_i of mass 1 / n each, tau_i = (i - 1/2) / n
    L = sum_i mean_j |tau_i - 1{u_ij < 0}| h(u_ij)
    u_ij = r + gamma (1 - d) theta'_j(s', a*) - theta_i(s, a)

a* = argmax_a E Z'(s', a), by the online network where `double`. No gradient flows through targets. The rest
is DQN: replay, target network, epsilon-greedy actions, schedules.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from common.replay import Batch
from common.types import EnvSpec, require, require_at_least
from hw3_q_learning.dqn import DQN, DQNConfig, td_target
from hw3_q_learning.q_networks import QNetwork

LARGEST = 1e30  # return, far from where float32 ends


@dataclass(frozen=True)
class C51Config(DQNConfig):
    atoms: int = 51  # n
    v_min: float = 0.0  # least return that the atoms can tell
    v_max: float = 100.0  # largest

    def __post_init__(self):
        super().__post_init__()
        require_at_least(self, 2, "atoms")
        ok = -LARGEST < self.v_min < self.v_max < LARGEST
        require(ok, f"v_min must be below v_max, both finite, got {self.v_min} and {self.v_max}")


@dataclass(frozen=True)
class QRConfig(DQNConfig):
    atoms: int = 50  # n, quantiles

    def __post_init__(self):
        super().__post_init__()
        require_at_least(self, 1, "atoms")


def project(atoms: Tensor, p: Tensor, z: Tensor) -> Tensor:
    """Masses p [B, n] at z [B, n] -> masses [B, n] at the even `atoms` [n], shared between neighbours.

    Mass is kept, and the mean too where z lies within the atoms; what lies beyond is moved to the last one.
    """
    spacing = (atoms[-1] - atoms[0]) / (len(atoms) - 1)
    distance = (z.clamp(atoms[0], atoms[-1])[:, None, :] - atoms[:, None]).abs() / spacing  # [B, n, n]
    return ((1 - distance).clamp(min=0) * p[:, None, :]).sum(2)


def quantile_huber(theta: Tensor, target: Tensor, kappa: float) -> Tensor:
    """sum_i mean_j |tau_i - 1{u_ij < 0}| h_kappa(u_ij), u_ij = target_j - theta_i: [B, n], [B, m] -> [B].

    tau_i = (i - 1/2) / n. theta_i at the tau_i quantile of the targets is the least, as kappa -> 0.
    """
    n = theta.shape[1]
    tau = (torch.arange(n, device=theta.device, dtype=theta.dtype) + 0.5) / n
    u = target[:, None, :] - theta[:, :, None]  # [B, n, m]
    huber = F.huber_loss(u, torch.zeros_like(u), reduction="none", delta=kappa) / kappa
    return ((tau[:, None] - (u < 0).to(u)).abs() * huber).mean(2).sum(1)


class Distributional(DQN):
    """What C51 and QR share: each action of the network has `atoms` numbers, from which follows a mean."""

    def network(self, spec: EnvSpec, init: torch.Generator) -> QNetwork:
        c = self.config
        return QNetwork(spec.obs_dim, c.hidden, spec.action_dim, init, c.duelling, c.atoms)

    def values(self, obs: Tensor) -> Tensor:
        return self.mean(self.q(obs))

    def next_law(self, batch: Batch) -> Tensor:
        """Numbers [B, n] of the target network at s' and a*."""
        law = self.q_target(batch.next_obs)  # [B, A, n]
        q_select = self.values(batch.next_obs) if self.config.double else self.mean(law)
        return self.of_action(law, q_select.argmax(1))

    @staticmethod
    def of_action(law: Tensor, action: Tensor) -> Tensor:
        """[B, A, n], [B] -> [B, n]"""
        return law.gather(1, action[:, None, None].expand(-1, 1, law.shape[2])).squeeze(1)

    def moved(self, batch: Batch, z: Tensor) -> Tensor:
        """r + gamma (1 - d) z: [B, n]"""
        reward, terminated = (x[:, None].expand_as(z) for x in (batch.reward, batch.terminated))
        discount = torch.as_tensor(self.config.gamma**batch.steps, device=z.device).expand(len(z))
        return td_target(reward, terminated, z, discount[:, None])


class C51(Distributional):
    def __init__(self, spec: EnvSpec, config: C51Config, total_updates: int, device: torch.device, seed: int):
        self.atoms = torch.linspace(config.v_min, config.v_max, config.atoms, device=device)
        super().__init__(spec, config, total_updates, device, seed)

    def mean(self, logits: Tensor) -> Tensor:
        """[B, A, n] -> [B, A]"""
        return logits.softmax(2) @ self.atoms

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            p = self.next_law(batch).softmax(1)
            m = project(self.atoms, p, self.moved(batch, self.atoms.expand_as(p)))
        log_p = self.of_action(self.q(batch.obs), batch.action).log_softmax(1)
        q = log_p.detach().exp() @ self.atoms
        return -(m * log_p).sum(1), q, m @ self.atoms


class QR(Distributional):
    def mean(self, theta: Tensor) -> Tensor:
        """[B, A, n] -> [B, A]"""
        return theta.mean(2)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            target = self.moved(batch, self.next_law(batch))  # [B, n]
        theta = self.of_action(self.q(batch.obs), batch.action)
        return quantile_huber(theta, target, self.config.huber), theta.detach().mean(1), target.mean(1)
