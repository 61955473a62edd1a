"""Deterministic actor-critics: DDPG (Lillicrap et al. 2016) and TD3 (Fujimoto et al. 2018).

y = r + gamma (1 - d) min_i Q'_i(s', a'),   a' = mu'(s')                                   DDPG, one critic
                                            a' = clip(mu'(s') + clip(epsilon, -c, c))      TD3, two
L(Q_i) = 1/2 mean (Q_i(s, a) - y)^2
theta <- theta + lr mean dmu/dtheta dQ_1/da (s, mu_theta(s))      TD3: every second gradient step

Targets follow by Polyak averaging whenever the actor moves. No gradient flows through y; the actor's flows
through Q_1 into a, not into Q_1's parameters. With `layer_norm` the critics' layers are normalised (Ba et al.
2016, 1607.06450): what they say of actions far from all that was tried stays bounded (Ball et al. 2023).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.ensemble import EnsembleMLP
from common.networks import mlp, require_hidden
from common.optim import Adam, descend, polyak
from common.replay import Batch
from common.seeding import generator
from common.types import EnvSpec, require_at_least, require_positive, require_unit
from hw3_q_learning.dqn import td_target
from hw3_q_learning.sac import require_continuous


@dataclass(frozen=True)
class DDPGConfig:
    gamma: float = 0.99  # discount
    lr: float = 1e-3  # learning rate of each Adam
    hidden: tuple[int, ...] = (256, 256)  # units per layer of actor and critics
    layer_norm: bool = False  # normalise the hidden layers of the critics
    critics: int = 1  # the least of their values is the target
    tau: float = 0.005  # part of the networks in each update of the targets
    actor_period: int = 1  # gradient steps of the critics per step of actor and targets
    noise: float = 0.1  # standard deviation of exploration, of actions in [-1, 1]
    smoothing: float = 0.0  # standard deviation of the target action's noise
    smoothing_clip: float = 0.5  # limit of that noise

    def __post_init__(self):
        require_unit(self, "gamma", "tau")
        require_positive(self, "lr", "smoothing_clip")
        require_at_least(self, 0, "noise", "smoothing")
        require_at_least(self, 1, "critics", "actor_period")
        require_hidden(self.hidden)


@dataclass(frozen=True)
class TD3Config(DDPGConfig):
    lr: float = 3e-4  # learning rate of each Adam
    critics: int = 2  # the least of their values is the target
    actor_period: int = 2  # gradient steps of the critics per step of actor and targets
    smoothing: float = 0.2  # standard deviation of the target action's noise


def normalized_relu(x: Tensor) -> Tensor:
    """ReLU after the units of each sample are brought to mean 0 and variance 1: [..., H] -> [..., H]."""
    return F.relu(F.layer_norm(x, x.shape[-1:]))


def smoothed(action: Tensor, noise: Tensor, clip: float) -> Tensor:
    """clip(a + clip(epsilon, -c, c), -1, 1), so that Q' is averaged over like actions: [B, K] each."""
    return (action + noise.clamp(-clip, clip)).clamp(-1, 1)


class DDPG:
    def __init__(
        self, spec: EnvSpec, config: DDPGConfig, total_updates: int, device: torch.device, seed: int
    ):
        require_continuous(spec, "DDPG and TD3")
        self.config, self.device = config, device
        self.generator, init = generator(seed, "explore", device=device), generator(seed, "init")
        sizes = (spec.obs_dim, *config.hidden, spec.action_dim)
        self.actor = mlp(*sizes, generator=init, activation=nn.ReLU).append(nn.Tanh()).to(device)
        sizes = (spec.obs_dim + spec.action_dim, *config.hidden, 1)
        relu = normalized_relu if config.layer_norm else torch.relu_
        self.critic = EnsembleMLP(config.critics, *sizes, generator=init, activation=relu).to(device)
        self.actor_target = copy.deepcopy(self.actor).requires_grad_(False)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.actor_parameters = tuple(self.actor.parameters())
        self.critic_parameters = tuple(self.critic.parameters())
        self.parameters = self.actor_parameters + self.critic_parameters
        self.target_parameters = (*self.actor_target.parameters(), *self.critic_target.parameters())
        self.actor_optimizer = Adam(self.actor_parameters, config.lr)
        self.critic_optimizer = Adam(self.critic_parameters, config.lr)
        self.updates = 0

    @torch.inference_mode()
    def act(self, obs: np.ndarray) -> np.ndarray:
        x = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        return self.actor(x).cpu().numpy()

    def explore(self, obs: np.ndarray, step: int) -> np.ndarray:
        action = self.act(obs)
        noise = torch.randn(action.shape, generator=self.generator, device=self.device).cpu().numpy()
        return (action + self.config.noise * noise).clip(-1, 1)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        metrics = self.critic_step(batch, self.target(batch))
        self.updates += 1
        if self.updates % self.config.actor_period == 0:
            metrics |= self.actor_step(batch.obs)
            polyak(self.target_parameters, self.parameters, self.config.tau)
        return metrics

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """y [B]."""
        c, action = self.config, self.actor_target(batch.next_obs)
        if c.smoothing:
            noise = torch.randn(action.shape, generator=self.generator, device=action.device)
            action = smoothed(action, c.smoothing * noise, c.smoothing_clip)
        v_next = self.q(self.critic_target, batch.next_obs, action).amin(0)
        return td_target(batch.reward, batch.terminated, v_next, c.gamma**batch.steps)

    def critic_step(self, batch: Batch, y: Tensor) -> dict[str, Tensor]:
        q = self.q(self.critic, batch.obs, batch.action)  # [E, B]
        error = q - y
        loss = 0.5 * (batch.weight * error.square()).mean(1).sum()
        descend(loss, self.critic_optimizer, self.critic_parameters)
        return {
            "loss/q": loss.detach(),
            "value/q": q.detach(),
            "value/td_error": error.detach().abs().mean(0),
        }

    def actor_step(self, obs: Tensor) -> dict[str, Tensor]:
        loss = -self.critic(torch.cat((obs, self.actor(obs)), 1), members=1).mean()
        descend(loss, self.actor_optimizer, self.actor_parameters)
        return {"loss/policy": loss.detach()}

    def q(self, critic: nn.Module, obs: Tensor, action: Tensor) -> Tensor:
        """[B, D], [B, K] -> [E, B]."""
        return critic(torch.cat((obs, action), 1)).squeeze(2)
