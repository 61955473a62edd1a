"""Batch actor-critic with generalised advantage estimation (Schulman et al. 2016).

grad J = E[sum_t grad log pi(a_t|s_t) A_t],  A = GAE(gamma, lam),  V fitted to A + V
lam = 0 is the one-step critic r + gamma V(s') - V(s), lam = 1 Monte Carlo with the critic as baseline.
No gradient flows through A or the targets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.networks import mlp
from common.optim import Adam, gradient_step
from common.schedules import Linear
from common.seeding import generator
from common.types import EnvSpec, Metrics, Rollout, require, require_at_least, require_positive, require_unit
from hw2_policy_gradient.policies import Policy, require_network
from hw2_policy_gradient.returns import critic_advantage, explained_variance, standardize


@dataclass(frozen=True)
class ActorCriticConfig:
    gamma: float = 0.99  # discount
    lam: float = 0.97  # GAE's lambda
    lr: float = 5e-3  # learning rate of Adam
    lr_decay: bool = True  # linearly to zero over the run
    value_lr: float = 5e-3  # learning rate of V
    value_steps: int = 20  # gradient steps of the critic per batch
    entropy_weight: float = 0.0  # of the entropy bonus in the loss
    max_grad_norm: float = 0.5  # longer gradients are cut to it
    hidden: tuple[int, ...] = (64, 64)  # units per layer
    log_std: float = 0.0  # initial log standard deviation of continuous actions
    normalize_obs: bool = False  # by running mean and deviation

    def __post_init__(self):
        require_unit(self, "gamma", "lam")
        require_positive(self, "lr", "value_lr")
        require_at_least(self, 1, "value_steps")
        require_at_least(self, 0, "entropy_weight")
        require(self.max_grad_norm > 0, f"max_grad_norm must be positive, got {self.max_grad_norm}")
        require_network(self.hidden, self.log_std)


class ActorCritic:
    def __init__(
        self, spec: EnvSpec, config: ActorCriticConfig, total_updates: int, device: torch.device, seed: int
    ):
        self.config = config
        self.lr = Linear(config.lr, 0.0 if config.lr_decay else config.lr, total_updates)
        self.generator = generator(seed, "explore", device=device)
        init = generator(seed, "init")
        self.policy = Policy(spec, config.hidden, config.log_std, config.normalize_obs, init).to(device)
        self.value = mlp(spec.obs_dim, *config.hidden, 1, generator=init).to(device)
        self.optimizer = Adam(self.policy.parameters(), config.lr)
        self.value_optimizer = Adam(self.value.parameters(), config.value_lr)
        self.updates = 0

    def act(self, obs: np.ndarray) -> np.ndarray:
        return self.policy.act(obs)

    def explore(self, obs: np.ndarray, step: int) -> np.ndarray:
        return self.policy.act(obs, self.generator)

    def update(self, rollout: Rollout) -> Metrics:
        c = self.config
        self.optimizer.param_groups[0]["lr"] = self.lr(self.updates)
        obs, next_obs = self.policy.normalize(rollout.obs), self.policy.normalize(rollout.next_obs)
        advantage, target = critic_advantage(self.value, rollout, obs, next_obs, c.gamma, c.lam)
        metrics = self.actor_step(obs, rollout.action, advantage) | self.critic_step(obs, target)
        if c.normalize_obs:  # only now: this batch was drawn with the old statistics
            self.policy.normalize.update(rollout.obs)
        self.updates += 1
        return metrics

    def actor_step(self, obs: Tensor, action: Tensor, advantage: Tensor) -> Metrics:
        """One step along the policy gradient, advantages standardised over the batch."""
        c = self.config
        pi = self.policy(obs)
        entropy = pi.entropy().mean()
        loss_policy = -(pi.log_prob(action) * standardize(advantage)).mean()
        loss = loss_policy - c.entropy_weight * entropy
        norm = gradient_step(loss, self.optimizer, [*self.policy.parameters()], c.max_grad_norm)
        return {
            "loss/policy": loss_policy.item(),
            "policy/entropy": entropy.item(),
            "grad/norm": norm.item(),
        }

    def critic_step(self, obs: Tensor, target: Tensor) -> Metrics:
        """Several steps of squared error towards fixed targets."""
        for _ in range(self.config.value_steps):
            value = self.value(obs).squeeze(-1)
            loss = F.mse_loss(value, target)
            gradient_step(loss, self.value_optimizer, [*self.value.parameters()], math.inf)
        explained = explained_variance(value.detach(), target).item()
        return {"loss/value": loss.item(), "value/explained_variance": explained}
