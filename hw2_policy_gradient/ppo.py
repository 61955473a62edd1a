"""Proximal policy optimisation with the clipped surrogate (Schulman et al. 2017).

L(theta) = E[min(r A, clip(r, 1 - eps, 1 + eps) A)],  r = pi_theta(a|s) / pi_old(a|s)
A = GAE(gamma, lam), V fitted to A + V.  No gradient flows through A, pi_old or the targets.
"""

from __future__ import annotations

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
class PPOConfig:
    gamma: float = 0.99  # discount
    lam: float = 0.95  # GAE's lambda
    lr: float = 3e-4  # learning rate of Adam
    lr_decay: bool = True  # linearly to zero over the run
    clip: float = 0.2  # eps, how far a ratio may leave 1
    clip_decay: bool = False  # linearly to zero over the run
    epochs: int = 10  # passes over each rollout
    batch_size: int = 64  # transitions per gradient step
    value_weight: float = 0.5  # of the squared error of V in the loss
    entropy_weight: float = 0.0  # of the entropy bonus in the loss
    max_grad_norm: float = 0.5  # longer gradients are cut to it
    target_kl: float | None = None  # nats; an epoch that ends beyond it is the last of its rollout
    recompute_advantage: bool = True  # before every epoch, with V as it has become
    hidden: tuple[int, ...] = (64, 64)  # units per layer
    log_std: float = 0.0  # initial log standard deviation of continuous actions
    normalize_obs: bool = False  # by running mean and deviation
    normalize_reward: bool = False  # by the deviation of the discounted return

    def __post_init__(self):
        require_unit(self, "gamma", "lam")
        require_positive(self, "lr", "clip")
        require_at_least(self, 0, "value_weight", "entropy_weight")
        require_at_least(self, 1, "epochs")
        require_at_least(self, 2, "batch_size")
        ok = self.target_kl is None or self.target_kl > 0
        require(ok, f"target_kl must be positive, got {self.target_kl}")
        require(self.max_grad_norm > 0, f"max_grad_norm must be positive, got {self.max_grad_norm}")
        require_network(self.hidden, self.log_std)


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """min(r A, clip(r) A), to be maximised: [B], [B] -> [B]."""
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


class PPO:
    def __init__(self, spec: EnvSpec, config: PPOConfig, total_updates: int, device: torch.device, seed: int):
        self.config = config
        self.lr = Linear(config.lr, 0.0 if config.lr_decay else config.lr, total_updates)
        self.clip = Linear(config.clip, 0.0 if config.clip_decay else config.clip, total_updates)
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
        pi_old = self.policy(obs).frozen()  # the network has not moved since it acted
        log_prob_old = pi_old.log_prob(rollout.action)  # [T, N]
        losses = []  # [3] each, left on the device and read once
        for epoch in range(c.epochs):
            if epoch == 0 or c.recompute_advantage:
                advantage, target = critic_advantage(self.value, rollout, obs, next_obs, c.gamma, c.lam)
            order = torch.randperm(advantage.numel(), generator=self.generator, device=obs.device)
            data = (obs, rollout.action, log_prob_old, advantage, target)
            shuffled = (x.flatten(0, 1)[order].split(c.batch_size) for x in data)
            for minibatch in zip(*shuffled, strict=True):
                losses.append(self.step(*minibatch))
            if c.target_kl is not None and pi_old.kl(self.policy(obs)).mean() > c.target_kl:
                break
        if c.normalize_obs:  # only now: within an iteration behaviour and update see the same inputs
            self.policy.normalize.update(rollout.obs)
        clip = self.clip(self.updates)
        self.updates += 1
        loss_policy, loss_value, norm = torch.stack(losses).mean(0).tolist()
        with torch.no_grad():
            pi = self.policy(obs)
            ratio = (pi.log_prob(rollout.action) - log_prob_old).exp()
        return {
            "loss/policy": loss_policy,
            "loss/value": loss_value,
            "grad/norm": norm,
            "policy/entropy": pi.entropy().mean().item(),
            "policy/kl": pi_old.kl(pi).mean().item(),
            "policy/clip_fraction": ((ratio - 1).abs() > clip).float().mean().item(),
            "value/explained_variance": explained_variance(target - advantage, target).item(),
        }

    def step(
        self, obs: Tensor, action: Tensor, log_prob_old: Tensor, advantage: Tensor, target: Tensor
    ) -> Tensor:
        """One gradient step on a minibatch [B]: its losses and gradient norm, left on the device."""
        c = self.config
        pi = self.policy(obs)
        ratio = (pi.log_prob(action) - log_prob_old).exp()
        clip = self.clip(self.updates)
        loss_policy = -clipped_surrogate(ratio, standardize(advantage), clip).mean()
        loss_value = F.mse_loss(self.value(obs).squeeze(-1), target)
        loss = loss_policy + c.value_weight * loss_value
        if c.entropy_weight:
            loss = loss - c.entropy_weight * pi.entropy().mean()
        norm = gradient_step(loss, self.optimizer, self.parameters, c.max_grad_norm)
        return torch.stack((loss_policy.detach(), loss_value.detach(), norm))
