"""Advantage actor-critic, online and synchronous-parallel (A2C, the lock-step form of Mnih et al. 2016).

grad J = E[grad log pi(a_t|s_t) A_t],  A = GAE(gamma, lam),  V towards A + V: one descent step per rollout of
L = -mean log pi(a_t|s_t) A_t + value_weight mean (V(s_t) - target_t)^2 - entropy_weight mean H(pi(.|s_t))
T = 1 is the online actor-critic, A = r + gamma V(s') - V(s), in as many environments as step side by side;
lam = 1 the n-step advantage of the paper, n up to T. Separate networks, or one trunk that both losses shape.
No gradient flows through A or the targets. A keeps its scale: over few numbers a deviation is noise, and one
number standardised is always zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from common.networks import mlp
from common.optim import Adam, clip_gradient
from common.schedules import Linear
from common.seeding import generator
from common.types import EnvSpec, Metrics, Rollout, require, require_at_least, require_positive, require_unit
from hw2_policy_gradient.policies import Policy, require_network
from hw2_policy_gradient.reinforce import policy_gradient_loss
from hw2_policy_gradient.returns import critic_advantage


@dataclass(frozen=True)
class A2CConfig:
    gamma: float = 0.99  # discount
    lam: float = 0.95  # GAE's lambda
    lr: float = 2e-3  # learning rate of Adam
    lr_decay: bool = True  # linearly to zero over the run
    value_weight: float = 0.5  # of the squared error of V in the loss
    entropy_weight: float = 0.0  # of the entropy bonus in the loss
    max_grad_norm: float = 0.5  # longer gradients are cut to it
    shared: bool = False  # pi and V are two linear heads on the same hidden layers
    hidden: tuple[int, ...] = (64, 64)  # units per layer
    log_std: float = 0.0  # initial log standard deviation of continuous actions

    def __post_init__(self):
        require_unit(self, "gamma", "lam")
        require_positive(self, "lr")
        require_at_least(self, 0, "value_weight", "entropy_weight")
        require(self.max_grad_norm > 0, f"max_grad_norm must be positive, got {self.max_grad_norm}")
        require_network(self.hidden, self.log_std)


class A2C:
    def __init__(self, spec: EnvSpec, config: A2CConfig, total_updates: int, device: torch.device, seed: int):
        self.config = config
        self.lr = Linear(config.lr, 0.0 if config.lr_decay else config.lr, total_updates)
        self.generator = generator(seed, "explore", device=device)
        init = generator(seed, "init")
        self.policy = Policy(spec, config.hidden, config.log_std, False, init).to(device)
        if config.shared:  # the same modules: their gradient is the sum of both losses'
            head = mlp((spec.obs_dim, *config.hidden)[-1], 1, generator=init)
            self.value = nn.Sequential(*self.policy.net[:-1], *head).to(device)
        else:
            self.value = mlp(spec.obs_dim, *config.hidden, 1, generator=init).to(device)
        both = (*self.policy.parameters(), *self.value.parameters())
        self.parameters = tuple(dict.fromkeys(both))  # what is shared counts once
        self.optimizer = Adam(self.parameters, config.lr, eps=1e-5)
        self.updates = 0

    def act(self, obs: np.ndarray) -> np.ndarray:
        return self.policy.act(obs)

    def explore(self, obs: np.ndarray, step: int) -> np.ndarray:
        return self.policy.act(obs, self.generator)

    def update(self, rollout: Rollout) -> Metrics:
        metrics = self.backward(rollout)
        return metrics | self.descend()

    def backward(self, rollout: Rollout) -> Metrics:
        """Leave the gradient of L in the parameters."""
        c, obs = self.config, rollout.obs
        advantage, target = critic_advantage(self.value, rollout, obs, rollout.next_obs, c.gamma, c.lam)
        pi, value = self.policy(obs), self.value(obs).squeeze(-1)  # value [T, N]
        loss_policy = policy_gradient_loss(pi.log_prob(rollout.action), advantage)
        loss_value = F.mse_loss(value, target)
        entropy = pi.entropy().mean()
        self.optimizer.zero_grad()
        (loss_policy + c.value_weight * loss_value - c.entropy_weight * entropy).backward()
        return {
            "loss/policy": loss_policy.item(),
            "loss/value": loss_value.item(),
            "policy/entropy": entropy.item(),
            "value/target": target.mean().item(),
        }

    def descend(self) -> Metrics:
        """One step of Adam down the gradient that the parameters hold, its norm cut to max_grad_norm."""
        self.optimizer.param_groups[0]["lr"] = self.lr(self.updates)
        norm = clip_gradient(self.parameters, self.config.max_grad_norm)
        self.optimizer.step()
        self.updates += 1
        return {"grad/norm": norm.item()}
