"""Soft actor-critic (Haarnoja et al. 2018, 1812.05905) with twin critics and learned temperature.

y = r + gamma (1 - d) (min_i Q'_i(s', a') - alpha log pi(a'|s')),      a' ~ pi(. | s')
L(Q_i) = 1/2 mean (Q_i(s, a) - y)^2
L(pi) = mean alpha log pi(a|s) - min_i Q_i(s, a),        a = tanh(mu + sigma epsilon), epsilon ~ N(0, I)
L(alpha) = -mean log alpha (log pi(a|s) + H),            H = -K, the entropy aimed at

No gradient flows through y; that of L(pi) flows through Q into a, not into Q's parameters or alpha.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from common.distributions import squashed_gaussian
from common.ensemble import EnsembleMLP
from common.networks import mlp, require_hidden
from common.optim import Adam, descend, polyak
from common.replay import Batch
from common.seeding import generator
from common.types import EnvSpec, require, require_at_least, require_positive, require_unit
from hw3_q_learning.dqn import td_target

LOG_STD = (-10.0, 2.0)  # limits of the policy's log standard deviation


@dataclass(frozen=True)
class SACConfig:
    gamma: float = 0.99  # discount
    lr: float = 3e-4  # learning rate of each Adam
    hidden: tuple[int, ...] = (256, 256)  # units per layer of actor and critics
    critics: int = 2  # the least of their values counts
    tau: float = 0.005  # part of the critics in each update of the target critics
    alpha: float = 1.0  # temperature at first
    learn_alpha: bool = True  # drive the entropy to the target
    target_entropy: float | None = None  # nats; minus the number of action dimensions if none
    actor_period: int = 1  # gradient steps of the critics per step of the actor

    def __post_init__(self):
        require_unit(self, "gamma", "tau")
        require_positive(self, "lr", "alpha")
        require_at_least(self, 1, "critics", "actor_period")
        ok = self.target_entropy is None or math.isfinite(self.target_entropy)
        require(ok, f"target_entropy must be finite, got {self.target_entropy}")
        require_hidden(self.hidden)


def soft_value(q: Tensor, log_prob: Tensor, alpha: Tensor | float) -> Tensor:
    """min_i Q_i - alpha log pi: [E, B], [B] -> [B]."""
    return q.amin(0) - alpha * log_prob


def require_continuous(spec: EnvSpec, name: str) -> None:
    require(not spec.discrete, f"env_id must have continuous actions for {name}, this one's are discrete")


class Temperature(nn.Module):
    """alpha = exp(log_alpha) > 0."""

    def __init__(self, alpha: float, learned: bool):
        super().__init__()
        self.log_alpha = nn.Parameter(torch.tensor(math.log(alpha)), requires_grad=learned)

    def forward(self) -> Tensor:
        """Without gradient: only its own loss moves it."""
        return self.log_alpha.detach().exp()


class SAC:
    def __init__(self, spec: EnvSpec, config: SACConfig, total_updates: int, device: torch.device, seed: int):
        require_continuous(spec, "SAC")
        self.config, self.device = config, device
        self.target_entropy = float(
            -spec.action_dim if config.target_entropy is None else config.target_entropy
        )
        self.generator, init = generator(seed, "explore", device=device), generator(seed, "init")
        sizes = (spec.obs_dim, *config.hidden, 2 * spec.action_dim)
        relu = partial(nn.ReLU, inplace=True)  # in place: a twelfth of the time of an update
        self.actor = mlp(*sizes, generator=init, activation=relu).to(device)
        sizes = (spec.obs_dim + spec.action_dim, *config.hidden, 1)
        self.critic = EnsembleMLP(config.critics, *sizes, generator=init, activation=torch.relu_).to(device)
        self.temperature = Temperature(config.alpha, config.learn_alpha).to(device)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.critic_parameters = tuple(self.critic.parameters())
        self.target_parameters = tuple(self.critic_target.parameters())
        learned = tuple(self.temperature.parameters()) if config.learn_alpha else ()
        self.actor_parameters = (*self.actor.parameters(), *learned)
        self.critic_optimizer = Adam(self.critic_parameters, config.lr)
        self.actor_optimizer = Adam(self.actor_parameters, config.lr)
        self.updates = 0

    @torch.inference_mode()
    def act(self, obs: np.ndarray) -> np.ndarray:
        """The mode before squashing."""
        return self._gaussian(obs)[0].tanh().cpu().numpy()

    @torch.inference_mode()
    def explore(self, obs: np.ndarray, step: int) -> np.ndarray:
        mean, log_std = self._gaussian(obs)
        return torch.addcmul(mean, log_std.exp(), self._noise(mean)).tanh().cpu().numpy()

    def update(self, batch: Batch) -> dict[str, Tensor]:
        q, y = self.q(self.critic, batch.obs, batch.action), self.target(batch)
        metrics = self.regress(q, y, batch.weight)
        if self.updates % self.config.actor_period == 0:
            metrics |= self.actor_step(batch.obs)
        polyak(self.target_parameters, self.critic_parameters, self.config.tau)
        self.updates += 1
        return metrics

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """y [B]."""
        action, log_prob = self.sample(batch.next_obs)
        v_next = soft_value(self.q(self.critic_target, batch.next_obs, action), log_prob, self.temperature())
        return td_target(batch.reward, batch.terminated, v_next, self.config.gamma**batch.steps)

    def regress(self, q: Tensor, y: Tensor, weight: Tensor | float) -> dict[str, Tensor]:
        """One step of the critics from Q_i(s, a) [E, B] towards y [B]."""
        error = q - y
        loss = 0.5 * (weight * error.square()).mean(1).sum()
        descend(loss, self.critic_optimizer, self.critic_parameters)
        return {
            "loss/q": loss.detach(),
            "value/q": q.detach(),
            "value/td_error": error.detach().abs().mean(0),
        }

    def actor_step(self, obs: Tensor) -> dict[str, Tensor]:
        """Actor and temperature."""
        action, log_prob = self.sample(obs)
        alpha = self.temperature()
        loss = -soft_value(self.q(self.critic, obs, action), log_prob, alpha).mean()
        surplus = log_prob.detach().mean() + self.target_entropy
        loss_alpha = -self.temperature.log_alpha * surplus
        descend(loss + loss_alpha, self.actor_optimizer, self.actor_parameters)
        return {"loss/policy": loss.detach(), "policy/entropy": -log_prob.detach(), "policy/alpha": alpha}

    def q(self, critic: nn.Module, obs: Tensor, action: Tensor) -> Tensor:
        """[B, D], [B, K] -> [E, B]."""
        return critic(torch.cat((obs, action), 1)).squeeze(2)

    def sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """a ~ pi(. | obs) [B, K] and log pi(a | obs) [B], reparameterised."""
        mean, log_std = self.actor(obs).chunk(2, -1)
        return squashed_gaussian(mean, log_std.clamp(*LOG_STD), self._noise(mean))

    def _gaussian(self, obs: np.ndarray) -> tuple[Tensor, Tensor]:
        x = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        mean, log_std = self.actor(x).chunk(2, -1)
        return mean, log_std.clamp(*LOG_STD)

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, device=like.device)
