"""Trust region policy optimisation (Schulman et al. 2015).

max_theta L(theta) = E[r A]  subject to  E[KL(pi_old || pi_theta)] <= eps,  r = pi_theta(a|s) / pi_old(a|s)
theta = theta_old + beta^k alpha F^-1 g: the natural step, shortened until the true KL, not its second-order
model, keeps the bound and the true L, not its slope, has not fallen.
A = GAE(gamma, lam), V fitted to A + V.  No gradient flows through A, pi_old or the targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from common.networks import mlp
from common.normalizer import RewardScaler
from common.schedules import Linear
from common.seeding import generator
from common.types import EnvSpec, Metrics, Rollout, require, require_at_least, require_positive, require_unit
from hw2_policy_gradient.natural_gradient import fisher, fit_value, natural_step, policy_gradient
from hw2_policy_gradient.policies import Policy, require_network
from hw2_policy_gradient.returns import critic_advantage, explained_variance, standardize


@dataclass(frozen=True)
class TRPOConfig:
    gamma: float = 0.99  # discount
    lam: float = 0.95  # GAE's lambda
    max_kl: float = 0.01  # eps in nats, the mean over a rollout's states that no step exceeds
    max_kl_decay: bool = False  # linearly to zero over the run
    damping: float = 0.1  # times the identity, added to F
    cg_iterations: int = 10  # products F v per step
    shrink: float = 0.8  # beta, what a refused step is multiplied by
    backtracks: int = 10  # refusals before the policy stays as it is
    value_lr: float = 1e-3  # learning rate of V
    value_epochs: int = 10  # passes of V over each rollout
    batch_size: int = 128  # transitions per gradient step of V
    hidden: tuple[int, ...] = (64, 64)  # units per layer
    log_std: float = 0.0  # initial log standard deviation of continuous actions
    normalize_obs: bool = False  # by running mean and deviation
    normalize_reward: bool = False  # by the deviation of the discounted return

    def __post_init__(self):
        require_unit(self, "gamma", "lam")
        require_positive(self, "max_kl", "damping", "value_lr")
        require(0 < self.shrink < 1, f"shrink must lie in (0, 1), got {self.shrink}")
        require_at_least(self, 0, "backtracks")
        require_at_least(self, 1, "cg_iterations", "value_epochs", "batch_size")
        require_network(self.hidden, self.log_std)


def line_search(
    measure: Callable[[Tensor], tuple[float, float]],
    theta: Tensor,
    step: Tensor,
    max_kl: float,
    shrink: float,
    backtracks: int,
) -> tuple[Tensor, float, float, int]:
    """The first theta' = theta + shrink^k step, k = 0 ... backtracks, that may be taken; its KL, its gain, k.

    measure(theta') gives KL(theta || theta'), to be at most max_kl, and the gain L(theta') - L(theta), to be
    at least 0 and finite; NaN is neither. Where no k will do: theta itself, 0, 0, backtracks + 1.
    """
    for k in range(backtracks + 1):
        candidate = theta + shrink**k * step
        kl, gain = measure(candidate)
        if kl <= max_kl and 0 <= gain < math.inf:  # a ratio may overflow
            return candidate, kl, gain, k
    return theta, 0.0, 0.0, backtracks + 1


class TRPO:
    def __init__(
        self, spec: EnvSpec, config: TRPOConfig, total_updates: int, device: torch.device, seed: int
    ):
        self.config = config
        self.max_kl = Linear(config.max_kl, 0.0 if config.max_kl_decay else config.max_kl, total_updates)
        self.generator = generator(seed, "explore", device=device)
        init = generator(seed, "init")
        self.policy = Policy(spec, config.hidden, config.log_std, config.normalize_obs, init).to(device)
        self.value = mlp(spec.obs_dim, *config.hidden, 1, generator=init).to(device)
        self.scale_reward = RewardScaler(spec.num_envs, config.gamma).to(device)
        self.value_optimizer = torch.optim.Adam(self.value.parameters(), config.value_lr, fused=True)
        self.updates = 0

    def act(self, obs: np.ndarray) -> np.ndarray:
        return self.policy.act(obs)

    def explore(self, obs: np.ndarray, step: int) -> np.ndarray:
        return self.policy.act(obs, self.generator)

    def update(self, rollout: Rollout) -> Metrics:
        c = self.config
        obs, next_obs = self.policy.normalize(rollout.obs), self.policy.normalize(rollout.next_obs)
        if c.normalize_reward:
            rollout = rollout._replace(reward=self.scale_reward(rollout.reward, rollout.ended))
        advantage, target = critic_advantage(self.value, rollout, obs, next_obs, c.gamma, c.lam)
        metrics = self.actor_step(obs, rollout.action, standardize(advantage))
        data = (obs.flatten(0, 1), target.flatten())
        loss = fit_value(
            self.value, self.value_optimizer, *data, c.value_epochs, c.batch_size, self.generator
        )
        if c.normalize_obs:  # only now: within an iteration behaviour and update see the same inputs
            self.policy.normalize.update(rollout.obs)
        self.updates += 1
        explained = explained_variance(target - advantage, target)
        return metrics | {"loss/value": loss.item(), "value/explained_variance": explained.item()}

    def actor_step(self, obs: Tensor, action: Tensor, advantage: Tensor) -> Metrics:
        c, parameters, max_kl = self.config, [*self.policy.parameters()], self.max_kl(self.updates)
        gradient = policy_gradient(self.policy, obs, action, advantage)
        step = natural_step(gradient, fisher(self.policy, obs, c.damping), max_kl, c.cg_iterations)
        with torch.no_grad():
            pi_old = self.policy(obs).frozen()
            log_prob_old = pi_old.log_prob(action)

            def measure(theta: Tensor) -> tuple[float, float]:
                vector_to_parameters(theta, parameters)
                pi = self.policy(obs)
                ratio = (pi.log_prob(action) - log_prob_old).exp()
                return pi_old.kl(pi).mean().item(), ((ratio - 1) * advantage).mean().item()

            theta = parameters_to_vector(parameters)
            theta, kl, gain, k = line_search(measure, theta, step, max_kl, c.shrink, c.backtracks)
            vector_to_parameters(theta, parameters)  # the last one measured may have been refused
            return {
                "grad/norm": gradient.norm().item(),
                "policy/kl": kl,
                "policy/improvement": gain,
                "policy/backtracks": k,
                "policy/entropy": self.policy(obs).entropy().mean().item(),
            }
