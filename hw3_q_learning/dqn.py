"""Deep Q-learning (Mnih et al. 2015), double (van Hasselt et al. 2016) and duelling (Wang et al. 2016).

y = r + gamma^k (1 - d) Q_phi'(s', a*)     a* = argmax_a Q_phi'(s', a)   DQN
                                           a* = argmax_a Q_phi (s', a)   double DQN
L(phi) = mean_B w h(Q_phi(s, a) - y),  h Huber's loss, w = 1 but for prioritised replay, k = 1 but for n steps
phi' <- (1 - tau) phi' + tau phi  every `target_period` gradient steps; tau = 1 copies.

y is a constant: no gradient flows through it.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks import require_hidden
from common.optim import Adam, gradient_step, polyak
from common.replay import Batch
from common.schedules import Linear
from common.seeding import generator
from common.types import EnvSpec, UsageError, require, require_at_least, require_positive, require_unit
from hw3_q_learning.q_networks import QNetwork

LONGEST = 1_000  # steps that a random action is held


@dataclass(frozen=True)
class DQNConfig:
    gamma: float = 0.99  # discount
    lr: float = 5e-4  # learning rate of Adam
    lr_decay: bool = True  # linearly to zero over the run
    hidden: tuple[int, ...] = (256, 256)  # units per layer
    double: bool = True  # choose the action of the target by the online network
    duelling: bool = False  # state value and advantages instead of action values
    target_period: int = 1  # gradient steps between updates of the target network
    tau: float = 0.005  # part of the online network in such an update, 1 copies it
    huber: float = 1.0  # error beyond which the loss grows linearly
    max_grad_norm: float = 10.0  # longer gradients are cut to it
    epsilon: float = 1.0  # probability of a random action at first
    epsilon_final: float = 0.05  # and in the end
    epsilon_steps: int = 10_000  # environment steps of its linear decay
    zeta: float | None = None  # mu: a random action is held for n steps, P(n) ~ n^-mu; for one if none

    def __post_init__(self):
        require_unit(self, "gamma", "tau", "epsilon", "epsilon_final")
        require_positive(self, "lr", "huber")
        require_at_least(self, 1, "target_period", "epsilon_steps")
        ok = self.zeta is None or 1 < self.zeta < math.inf
        require(ok, f"zeta must be above 1 and finite, got {self.zeta}")
        require(self.max_grad_norm > 0, f"max_grad_norm must be positive, got {self.max_grad_norm}")
        require_hidden(self.hidden)


def td_target(reward: Tensor, terminated: Tensor, next_value: Tensor, gamma: Tensor | float) -> Tensor:
    """y = r + gamma (1 - d) V(s'), all [B]; gamma [B] where transitions span several steps."""
    if not reward.shape == terminated.shape == next_value.shape:
        shapes = [list(x.shape) for x in (reward, terminated, next_value)]
        raise UsageError(f"reward, terminated and next_value must have one shape, got {shapes}")
    if not isinstance(gamma, Tensor):
        require(0 <= gamma <= 1, f"gamma must lie in [0, 1], got {gamma}")
    return torch.where(terminated.bool(), reward, reward + gamma * next_value)


def value_of_greedy(q_evaluate: Tensor, q_select: Tensor) -> Tensor:
    """Q_evaluate(s', argmax_a Q_select(s', a)): [B, A], [B, A] -> [B]."""
    return q_evaluate.gather(1, q_select.argmax(1, keepdim=True)).squeeze(1)


def require_discrete(spec: EnvSpec, name: str) -> None:
    require(spec.discrete, f"env_id must have discrete actions for {name}, this one's are continuous")


class Hold(nn.Module):
    """Random actions that last: where dithering gets nowhere, n times the same does (Dabney et al. 2021,
    2006.01782)."""

    def __init__(self, num_envs: int, mu: float):
        super().__init__()
        weight = torch.arange(1, LONGEST + 1, dtype=torch.float64) ** -mu
        self.register_buffer("law", weight.cumsum(0) / weight.sum(), persistent=False)  # P(duration <= n)
        self.register_buffer("action", torch.zeros(num_envs, dtype=torch.int64))
        self.register_buffer("left", torch.zeros(num_envs, dtype=torch.int64))  # steps it is still held

    def forward(self, begin: Tensor, drawn: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Who acts at random, bool [N], and how [N], if those who are free now `begin` with what is drawn."""
        begin = begin & (self.left == 0)
        uniform = torch.rand(len(begin), generator=generator, dtype=torch.float64)
        self.action = torch.where(begin, drawn, self.action)
        self.left = torch.where(begin, torch.searchsorted(self.law, uniform) + 1, self.left)
        random = self.left > 0
        self.left = (self.left - 1).clamp(min=0)
        return random, self.action


class DQN:
    def __init__(self, spec: EnvSpec, config: DQNConfig, total_updates: int, device: torch.device, seed: int):
        require_discrete(spec, "DQN")
        self.config, self.device, self.num_actions = config, device, spec.action_dim
        self.lr = Linear(config.lr, 0.0 if config.lr_decay else config.lr, max(total_updates, 1))
        self.epsilon = Linear(config.epsilon, config.epsilon_final, config.epsilon_steps)
        if config.zeta:
            self.hold = Hold(spec.num_envs, config.zeta)
        self.generator = generator(seed, "explore")
        init = generator(seed, "init")
        self.q = self.network(spec, init).to(device)
        self.q_target = copy.deepcopy(self.q).requires_grad_(False)
        self.parameters = tuple(self.q.parameters())
        self.target_parameters = tuple(self.q_target.parameters())
        self.optimizer = Adam(self.parameters, config.lr)
        self.updates = 0

    def network(self, spec: EnvSpec, init: torch.Generator) -> QNetwork:
        return QNetwork(spec.obs_dim, self.config.hidden, spec.action_dim, init, self.config.duelling)

    def values(self, obs: Tensor) -> Tensor:
        """Q(s, a) of all actions: [B, D] -> [B, A]."""
        return self.q(obs)

    @torch.inference_mode()
    def act(self, obs: np.ndarray) -> np.ndarray:
        x = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        return self.values(x).argmax(1).cpu().numpy()

    def explore(self, obs: np.ndarray, step: int) -> np.ndarray:
        """Epsilon-greedy."""
        random = torch.rand(len(obs), generator=self.generator) < self.epsilon(step)
        drawn = torch.randint(self.num_actions, (len(obs),), generator=self.generator)
        if self.config.zeta:
            random, drawn = self.hold(random, drawn, self.generator)
        return drawn.numpy() if random.all() else np.where(random.numpy(), drawn.numpy(), self.act(obs))

    def update(self, batch: Batch) -> dict[str, Tensor]:
        c = self.config
        self.optimizer.param_groups[0]["lr"] = self.lr(self.updates)
        losses, q, y = self.loss(batch)
        loss = (batch.weight * losses).mean()
        norm = gradient_step(loss, self.optimizer, self.parameters, c.max_grad_norm)
        self.updates += 1
        if self.updates % c.target_period == 0:
            polyak(self.target_parameters, self.parameters, c.tau)
        return {"loss/q": loss.detach(), "value/q": q, "value/td_error": (q - y).abs(), "grad/norm": norm}

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Loss of each transition, Q(s, a) and y, both without gradient: [B] each."""
        y = self.target(batch)
        q = self.q(batch.obs).gather(1, batch.action[:, None]).squeeze(1)
        return F.huber_loss(q, y, reduction="none", delta=self.config.huber), q.detach(), y

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """y [B]."""
        q_next = self.q_target(batch.next_obs)  # [B, A]
        v_next = value_of_greedy(q_next, self.q(batch.next_obs) if self.config.double else q_next)
        return td_target(batch.reward, batch.terminated, v_next, self.config.gamma**batch.steps)
