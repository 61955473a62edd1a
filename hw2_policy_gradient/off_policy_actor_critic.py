"""Off-policy actor-critic with a replay buffer (lecture "actor-critic"; Degris et al. 2012; SAC's ancestor).

1. act with pi, store (s, a, r, s')
2. draw a batch of all that was ever stored
3. y = r + gamma E_{a' ~ pi(.|s')}[Q_target(s', a') + alpha H(pi(.|s'))]; Q(s, a) <- y
4. grad J = E_{a ~ pi(.|s)}[grad log pi(a|s) (Q(s, a) - b)] + alpha grad H(pi(.|s))
Q instead of V: V of an old action would be the old policy's value. New actions in 3 and 4: E_{a ~ old}[grad
log pi(a|s) Q(s, a)] is another vector, and ascending it ends at pi(a|s) proportional to old(a|s) Q(s, a), not
at the best action. What stays biased is the state: drawn as old policies met it.
E over discrete actions is the sum over all of them; over continuous ones the mean of n draws, each with the
mean Q of the others for b. Q is the smallest of a few critics, against overestimation (Fujimoto et al. 2018);
alpha H(pi) counts as reward (Haarnoja et al. 2018). No gradient flows through y, Q and b of step 4.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.distributions import Categorical, DiagonalGaussian
from common.networks import mlp
from common.optim import Adam, gradient_step
from common.replay import Batch, Replay, transitions
from common.schedules import Linear
from common.seeding import generator
from common.types import EnvSpec, Metrics, Rollout, require, require_at_least, require_positive, require_unit
from hw2_policy_gradient.policies import Policy, require_network


@dataclass(frozen=True)
class OffPolicyActorCriticConfig:
    gamma: float = 0.99  # discount
    lr: float = 1e-3  # learning rate of Adam
    lr_decay: bool = True  # both rates, linearly to zero over the run
    q_lr: float = 1e-3  # learning rate of Q
    capacity: int = 100_000  # transitions in the buffer
    batch_size: int = 128  # transitions per gradient step
    gradient_steps: int = 64  # of critic and actor each, per rollout
    learning_starts: int = 1_000  # transitions collected before the first gradient step
    critics: int = 2  # networks of which the smallest value is taken
    tau: float = 0.01  # share of Q that its target takes over per gradient step
    actions: int = 4  # new actions per state if continuous; all of them if discrete
    fresh_actions: bool = True  # False: the buffer's action in step 4 instead, biased
    entropy_weight: float = 0.2  # alpha, what a nat of entropy is worth in reward
    max_grad_norm: float = 10.0  # longer gradients are cut to it
    hidden: tuple[int, ...] = (64, 64)  # units per layer
    log_std: float = 0.0  # initial log standard deviation of continuous actions
    normalize_obs: bool = False  # by running mean and deviation

    def __post_init__(self):
        require_unit(self, "gamma", "tau")
        require_positive(self, "lr", "q_lr")
        require_at_least(self, 1, "capacity", "batch_size", "gradient_steps", "learning_starts", "critics")
        require_at_least(self, 2, "actions")
        require_at_least(self, 0, "entropy_weight")
        require(self.max_grad_norm > 0, f"max_grad_norm must be positive, got {self.max_grad_norm}")
        require_network(self.hidden, self.log_std)


def td_target(reward: Tensor, terminated: Tensor, next_value: Tensor, gamma: float) -> Tensor:
    """y = r + gamma V(s'), r where s' is absorbing: [B] each. next_value = V(s') = E[Q(s', a')] + alpha H."""
    return reward + gamma * next_value * terminated.logical_not()


def actor_loss(log_prob: Tensor, q: Tensor) -> Tensor:
    """-mean log pi(a|s) (Q(s, a) - mean Q of the state's other actions): [n, B], [n, B] -> [].

    The n actions of a state are drawn independently. One alone has no others and no baseline.
    """
    n = len(q)
    baseline = (q.sum(0) - q) / (n - 1) if n > 1 else torch.zeros_like(q)
    return -(log_prob * (q - baseline).detach()).mean()


def exact_actor_loss(log_p: Tensor, q: Tensor) -> Tensor:
    """-mean over s of sum_a pi(a|s) Q(s, a), all actions: log pi [B, A], [A, B] -> []."""
    return -(log_p.exp().T * q.detach()).sum(0).mean()


class QNetwork(nn.Module):
    """Q(s, a) of E critics: one output per action, or the action among the inputs, clipped as the
    environment clips it."""

    def __init__(self, spec: EnvSpec, hidden: tuple[int, ...], critics: int, generator: torch.Generator):
        super().__init__()
        self.discrete = spec.discrete
        sizes = (spec.obs_dim, *hidden, spec.action_dim)
        if not spec.discrete:
            sizes = (spec.obs_dim + spec.action_dim, *hidden, 1)
        self.nets = nn.ModuleList(mlp(*sizes, generator=generator) for _ in range(critics))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """[B, D], [n, B] or [n, B, K] -> [E, n, B]"""
        if self.discrete:
            return torch.stack([net(obs).T.gather(0, action) for net in self.nets])
        x = torch.cat((obs.expand(len(action), -1, -1), action.clamp(-1, 1)), -1)
        return torch.stack([net(x)[..., 0] for net in self.nets])


class OffPolicyActorCritic:
    def __init__(
        self,
        spec: EnvSpec,
        config: OffPolicyActorCriticConfig,
        total_updates: int,
        device: torch.device,
        seed: int,
    ):
        self.config = config
        self.share = Linear(1.0, 0.0 if config.lr_decay else 1.0, total_updates)
        self.generator = generator(seed, "explore", device=device)
        init = generator(seed, "init")
        self.policy = Policy(spec, config.hidden, config.log_std, config.normalize_obs, init).to(device)
        self.q = QNetwork(spec, config.hidden, config.critics, init).to(device)
        self.q_target = copy.deepcopy(self.q).requires_grad_(False)
        self.replay = Replay(config.capacity, spec, device)
        self.optimizer = Adam(self.policy.parameters(), config.lr)
        self.q_optimizer = Adam(self.q.parameters(), config.q_lr)
        self.updates = 0

    def act(self, obs: np.ndarray) -> np.ndarray:
        return self.policy.act(obs)

    def explore(self, obs: np.ndarray, step: int) -> np.ndarray:
        return self.policy.act(obs, self.generator)

    def update(self, rollout: Rollout) -> Metrics:
        c, share = self.config, self.share(self.updates)
        self.optimizer.param_groups[0]["lr"] = share * c.lr
        self.q_optimizer.param_groups[0]["lr"] = share * c.q_lr
        self.replay.add(transitions(rollout))
        if c.normalize_obs:
            self.policy.normalize.update(rollout.obs)
        self.updates += 1
        if self.replay.added < c.learning_starts:
            return {}
        steps = []  # metrics of every gradient step, left on the device
        for _ in range(c.gradient_steps):
            batch = self.replay.sample(c.batch_size, self.generator)
            obs, next_obs = self.policy.normalize(batch.obs), self.policy.normalize(batch.next_obs)
            batch = batch._replace(obs=obs, next_obs=next_obs)
            loss_q, q = self.critic_step(batch)
            loss_policy, entropy, norm = self.actor_step(batch)
            torch._foreach_lerp_([*self.q_target.parameters()], [*self.q.parameters()], c.tau)
            steps.append(torch.stack((loss_q, q, loss_policy, entropy, norm)))
        names = ("loss/q", "value/q", "loss/policy", "policy/entropy", "grad/norm")
        return dict(zip(names, torch.stack(steps).mean(0).tolist(), strict=True))

    @torch.no_grad()
    def actions(self, pi: Categorical | DiagonalGaussian) -> Tensor:
        """Of pi in B states: all A [A, B], or n draws [n, B, K]."""
        if isinstance(pi, Categorical):
            every = torch.arange(pi.log_p.shape[-1], device=pi.log_p.device)
            return every[:, None].expand(-1, len(pi.log_p))
        return torch.stack([pi.sample(self.generator) for _ in range(self.config.actions)])

    @torch.no_grad()
    def next_value(self, next_obs: Tensor) -> Tensor:
        """E_{a' ~ pi}[Q_target(s', a')] + alpha H(pi(.|s')): [B, D] -> [B]"""
        pi = self.policy(next_obs)
        q = self.q_target(next_obs, self.actions(pi)).amin(0)
        expected = (pi.log_p.exp().T * q).sum(0) if isinstance(pi, Categorical) else q.mean(0)
        return expected + self.config.entropy_weight * pi.entropy()

    def critic_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Step 3: its loss, and the mean Q before it."""
        next_value = self.next_value(batch.next_obs)
        target = td_target(batch.reward, batch.terminated, next_value, self.config.gamma)
        q = self.q(batch.obs, batch.action[None])  # [E, 1, B]
        loss = F.mse_loss(q, target.expand_as(q))
        gradient_step(loss, self.q_optimizer, [*self.q.parameters()], math.inf)
        return loss.detach(), q.detach().mean()

    def actor_step(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Step 4: its loss, the entropy, the gradient's norm."""
        c = self.config
        pi = self.policy(batch.obs)
        action = self.actions(pi) if c.fresh_actions else batch.action[None]
        with torch.no_grad():
            q = self.q(batch.obs, action).amin(0)
        if c.fresh_actions and isinstance(pi, Categorical):
            loss = exact_actor_loss(pi.log_p, q)
        else:
            loss = actor_loss(torch.stack([pi.log_prob(each) for each in action]), q)
        entropy = pi.entropy().mean()
        total = loss - c.entropy_weight * entropy
        norm = gradient_step(total, self.optimizer, [*self.policy.parameters()], c.max_grad_norm)
        return loss.detach(), entropy.detach(), norm
