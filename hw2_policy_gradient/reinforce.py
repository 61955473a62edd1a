"""REINFORCE (Williams 1992), with or without causality and baseline.

grad J = E[sum_t grad log pi(a_t|s_t) (weight_t - b_t)]
weight_t = sum_{t'} gamma^{t'} r_{t'} (total return) or sum_{t'>=t} gamma^{t'-t} r_{t'} (reward-to-go)
b_t = 0, the batch's average weight, the constant of least variance E[|g|^2 weight] / E[|g|^2], g = grad log
pi(a_t|s_t), or V(s_t).
No gradient flows through weight or b. What follows a segment that a time limit or the end of the batch cuts
is V(s') in all variants, as nothing else knows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.networks import mlp
from common.optim import Adam, gradient_step
from common.schedules import Linear
from common.seeding import generator
from common.types import EnvSpec, Metrics, Rollout, require, require_at_least, require_positive, require_unit
from hw2_policy_gradient.baselines import average_baseline, optimal_baseline, scores
from hw2_policy_gradient.policies import Policy, require_network
from hw2_policy_gradient.returns import reward_to_go, total_return


@dataclass(frozen=True)
class ReinforceConfig:
    gamma: float = 0.99  # discount
    weight: Literal["total-return", "reward-to-go"] = "reward-to-go"  # of grad log pi(a_t|s_t)
    baseline: Literal["none", "average", "optimal", "learned"] = "learned"  # subtracted from the weight
    normalize: bool = True  # divide the weights by their deviation in the batch
    lr: float = 1e-2  # learning rate of Adam
    lr_decay: bool = True  # linearly to zero over the run
    value_lr: float = 1e-2  # learning rate of V
    value_steps: int = 20  # gradient steps of V per batch
    max_grad_norm: float = 0.5  # longer gradients are cut to it
    hidden: tuple[int, ...] = (64, 64)  # units per layer
    log_std: float = 0.0  # initial log standard deviation of continuous actions

    def __post_init__(self):
        require_unit(self, "gamma")
        require_positive(self, "lr", "value_lr")
        require_at_least(self, 1, "value_steps")
        require(self.max_grad_norm > 0, f"max_grad_norm must be positive, got {self.max_grad_norm}")
        require_network(self.hidden, self.log_std)


def policy_gradient_loss(log_prob: Tensor, weight: Tensor) -> Tensor:
    """-mean log pi(a_t|s_t) weight_t, whose negative gradient estimates grad J: [T, N], [T, N] -> []."""
    return -(log_prob * weight.detach()).mean()


class Reinforce:
    def __init__(
        self, spec: EnvSpec, config: ReinforceConfig, total_updates: int, device: torch.device, seed: int
    ):
        self.config = config
        self.lr = Linear(config.lr, 0.0 if config.lr_decay else config.lr, total_updates)
        self.generator = generator(seed, "explore", device=device)
        init = generator(seed, "init")
        self.policy = Policy(spec, config.hidden, config.log_std, False, init).to(device)
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
        to_go, advantage = self.advantage(rollout)
        log_prob = self.policy(rollout.obs).log_prob(rollout.action)
        loss = policy_gradient_loss(log_prob, advantage)
        norm = gradient_step(loss, self.optimizer, [*self.policy.parameters()], c.max_grad_norm)
        for _ in range(c.value_steps):
            loss_value = F.mse_loss(self.value(rollout.obs).squeeze(-1), to_go)
            gradient_step(loss_value, self.value_optimizer, [*self.value.parameters()], math.inf)
        self.updates += 1
        return {
            "loss/policy": loss.item(),
            "loss/value": loss_value.item(),
            "value/reward_to_go": to_go.mean().item(),
            "grad/norm": norm.item(),
        }

    @torch.no_grad()
    def advantage(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Reward-to-go, the target of V, and the weights of grad log pi less the baseline: [T, N] each."""
        c = self.config
        bootstrap = self.value(rollout.next_obs).squeeze(-1) * rollout.terminated.logical_not()
        segment = (rollout.reward, rollout.ended, c.gamma, bootstrap)
        to_go = reward_to_go(*segment)
        advantage = to_go if c.weight == "reward-to-go" else total_return(*segment)
        if c.baseline == "average":
            advantage = advantage - average_baseline(advantage)
        elif c.baseline == "optimal":
            score = scores(self.policy, rollout.obs.flatten(0, 1), rollout.action.flatten(0, 1))  # [T N, P]
            advantage = advantage - optimal_baseline(score * advantage.flatten()[:, None], score)
        elif c.baseline == "learned":
            advantage = advantage - self.value(rollout.obs).squeeze(-1)
        if c.normalize:
            advantage = advantage / (advantage.std(correction=0) + 1e-8)
        return to_go, advantage
