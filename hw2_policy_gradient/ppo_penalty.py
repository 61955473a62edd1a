"""Proximal policy optimisation with a KL penalty (Schulman et al. 2017, section 4), its weight by dual
gradient descent as in the lecture.

max_theta min_{lambda >= 0} L(theta, lambda) = E[r A] - lambda (E[KL(pi_old || pi_theta)] - eps)
1. theta: a few epochs of gradient steps on L   2. lambda <- max(lambda + alpha (KL - eps), floor)
r = pi_theta(a|s) / pi_old(a|s), A = GAE(gamma, lam), V fitted to A + V.
No gradient flows through A, pi_old or the targets.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.networks import mlp
from common.normalizer import RewardScaler
from common.optim import Adam, gradient_step
from common.schedules import Linear
from common.seeding import generator
from common.types import EnvSpec, Metrics, Rollout, require, require_at_least, require_positive, require_unit
from hw2_policy_gradient.policies import Policy, require_network
from hw2_policy_gradient.returns import critic_advantage, explained_variance, standardize


@dataclass(frozen=True)
class PPOPenaltyConfig:
    gamma: float = 0.99  # discount
    lam: float = 0.95  # GAE's lambda
    lr: float = 3e-4  # learning rate of Adam
    lr_decay: bool = True  # linearly to zero over the run
    max_kl: float = 0.01  # eps in nats, the mean KL of a rollout's update that lambda aims at
    multiplier: float = 1.0  # lambda at the start
    multiplier_lr: float = 20.0  # alpha, change of lambda per nat
    multiplier_floor: float = 1e-3  # lambda never falls below it
    epochs: int = 10  # passes over each rollout
    batch_size: int = 64  # transitions per gradient step
    value_weight: float = 0.5  # of the squared error of V in the loss
    max_grad_norm: float = 0.5  # longer gradients are cut to it
    hidden: tuple[int, ...] = (64, 64)  # units per layer
    log_std: float = 0.0  # initial log standard deviation of continuous actions
    normalize_obs: bool = False  # by running mean and deviation
    normalize_reward: bool = False  # by the deviation of the discounted return

    def __post_init__(self):
        require_unit(self, "gamma", "lam")
        require_positive(self, "lr", "max_kl", "multiplier", "multiplier_lr", "multiplier_floor")
        require_at_least(self, 0, "value_weight")
        require_at_least(self, 1, "epochs")
        require_at_least(self, 2, "batch_size")
        require(self.max_grad_norm > 0, f"max_grad_norm must be positive, got {self.max_grad_norm}")
        require_network(self.hidden, self.log_std)


def lagrangian(ratio: Tensor, advantage: Tensor, kl: Tensor, multiplier: float, max_kl: float) -> Tensor:
    """mean(r A) - lambda (mean(KL) - eps), to be maximised over theta: [B] each -> []."""
    return (ratio * advantage).mean() - multiplier * (kl.mean() - max_kl)


def dual_step(multiplier: float, kl: float, max_kl: float, lr: float, floor: float) -> float:
    """lambda + alpha (KL - eps), at least floor: descent on the dual, whose slope is eps - KL.

    The constraint lets lambda be 0; there an update would be bounded by nothing, so it stops short of it.
    """
    return max(multiplier + lr * (kl - max_kl), floor)


class PPOPenalty:
    def __init__(
        self, spec: EnvSpec, config: PPOPenaltyConfig, total_updates: int, device: torch.device, seed: int
    ):
        self.config = config
        self.lr = Linear(config.lr, 0.0 if config.lr_decay else config.lr, total_updates)
        self.multiplier = config.multiplier
        self.generator = generator(seed, "explore", device=device)
        init = generator(seed, "init")
        self.policy = Policy(spec, config.hidden, config.log_std, config.normalize_obs, init).to(device)
        self.value = mlp(spec.obs_dim, *config.hidden, 1, generator=init).to(device)
        self.scale_reward = RewardScaler(spec.num_envs, config.gamma).to(device)
        self.parameters = (*self.policy.parameters(), *self.value.parameters())
        self.optimizer = Adam(self.parameters, config.lr, eps=1e-5)
        self.updates = 0

    def act(self, obs: np.ndarray) -> np.ndarray:
        return self.policy.act(obs)

    def explore(self, obs: np.ndarray, step: int) -> np.ndarray:
        return self.policy.act(obs, self.generator)

    def update(self, rollout: Rollout) -> Metrics:
        c = self.config
        self.optimizer.param_groups[0]["lr"] = self.lr(self.updates)
        obs, next_obs = self.policy.normalize(rollout.obs), self.policy.normalize(rollout.next_obs)
        if c.normalize_reward:
            rollout = rollout._replace(reward=self.scale_reward(rollout.reward, rollout.ended))
        advantage, target = critic_advantage(self.value, rollout, obs, next_obs, c.gamma, c.lam)
        data = [x.flatten(0, 1) for x in (obs, rollout.action, advantage, target)]
        policy_old = copy.deepcopy(self.policy).requires_grad_(False)
        losses = []  # [3] each, left on the device and read once
        for _ in range(c.epochs):
            order = torch.randperm(advantage.numel(), generator=self.generator, device=obs.device)
            for rows in order.split(c.batch_size):
                losses.append(self.step(policy_old, *(x[rows] for x in data)))
        with torch.no_grad():
            pi = self.policy(obs)
            kl = policy_old(obs).kl(pi).mean().item()
        weight = self.multiplier
        self.multiplier = dual_step(weight, kl, c.max_kl, c.multiplier_lr, c.multiplier_floor)
        if c.normalize_obs:  # only now: within an iteration behaviour and update see the same inputs
            self.policy.normalize.update(rollout.obs)
        self.updates += 1
        loss_policy, loss_value, norm = torch.stack(losses).mean(0).tolist()
        return {
            "loss/policy": loss_policy,
            "loss/value": loss_value,
            "grad/norm": norm,
            "policy/entropy": pi.entropy().mean().item(),
            "policy/kl": kl,
            "policy/multiplier": weight,
            "value/explained_variance": explained_variance(target - advantage, target).item(),
        }

    def step(
        self, policy_old: Policy, obs: Tensor, action: Tensor, advantage: Tensor, target: Tensor
    ) -> Tensor:
        """One gradient step on a minibatch [B]: its losses and gradient norm, left on the device."""
        c = self.config
        pi_old, pi = policy_old(obs), self.policy(obs)
        ratio = (pi.log_prob(action) - pi_old.log_prob(action)).exp()
        kl = pi_old.kl(pi)
        loss_policy = -lagrangian(ratio, standardize(advantage), kl, self.multiplier, c.max_kl)
        loss_value = F.mse_loss(self.value(obs).squeeze(-1), target)
        loss = loss_policy + c.value_weight * loss_value
        norm = gradient_step(loss, self.optimizer, self.parameters, c.max_grad_norm)
        return torch.stack((loss_policy.detach(), loss_value.detach(), norm))
