"""PPO with a policy that remembers, for what is observed only in part (Ni, Eysenbach, Salakhutdinov
2022).

h_t = GRU(h_{t-1}, o_t),  pi(a_t | o_1..o_t) = pi(a_t | h_t),  V(o_1..o_t) = V(h_t)
L(theta) = E[min(r A, clip(r, 1 - eps, 1 + eps) A)],  r = pi_theta(a_t | o_1..o_t) / pi_old(a_t | o_1..o_t)

Every gradient step recomputes h_1 .. h_T of whole environments from h_0, what the policy remembered when the
rollout began, and from zero where an episode begins. No gradient flows through h_0, A, pi_old or the targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks import GRU, mlp
from common.normalizer import ObsNormalizer, RewardScaler
from common.optim import Adam, gradient_step
from common.schedules import Linear
from common.seeding import generator
from common.types import EnvSpec, Metrics, Rollout, require, require_at_least, require_positive, require_unit
from hw2_policy_gradient.policies import Policy, require_network
from hw2_policy_gradient.ppo import clipped_surrogate
from hw2_policy_gradient.returns import explained_variance, gae, standardize


@dataclass(frozen=True)
class RecurrentPPOConfig:
    gamma: float = 0.99  # discount
    lam: float = 0.95  # GAE's lambda
    lr: float = 1e-3  # learning rate of Adam
    lr_decay: bool = True  # linearly to zero over the run
    clip: float = 0.2  # eps, how far a ratio may leave 1
    clip_decay: bool = False  # linearly to zero over the run
    epochs: int = 10  # passes over each rollout
    batch_envs: int = 8  # environments per gradient step, all their steps in order
    value_weight: float = 0.5  # of the squared error of V in the loss
    entropy_weight: float = 0.0  # of the entropy bonus in the loss
    max_grad_norm: float = 0.5  # longer gradients are cut to it
    units: int = 64  # size of the memory h, which policy and V share
    hidden: tuple[int, ...] = (64,)  # units per layer from h to the policy and to V
    log_std: float = 0.0  # initial log standard deviation of continuous actions
    normalize_obs: bool = True  # by running mean and deviation
    normalize_reward: bool = True  # by the deviation of the discounted return

    def __post_init__(self):
        require_unit(self, "gamma", "lam")
        require_positive(self, "lr", "clip")
        require_at_least(self, 0, "value_weight", "entropy_weight")
        require_at_least(self, 1, "epochs", "batch_envs", "units")
        require(self.max_grad_norm > 0, f"max_grad_norm must be positive, got {self.max_grad_norm}")
        require_network((self.units, *self.hidden), self.log_std)


class RecurrentPolicy(nn.Module):
    """pi(a_t | h_t): statistics of what is observed, the memory of it, and the head that reads the memory."""

    def __init__(self, spec: EnvSpec, config: RecurrentPPOConfig, generator: torch.Generator):
        super().__init__()
        c = config
        self.normalize = ObsNormalizer(spec.obs_dim) if c.normalize_obs else nn.Identity()
        self.memory = GRU(spec.obs_dim, c.units, generator)
        self.head = Policy(spec._replace(obs_dim=c.units), c.hidden, c.log_std, False, generator)

    def forward(self, obs: Tensor, h: Tensor, first: Tensor) -> Tensor:
        """h_1 .. h_T [T, N, H] of obs [T, N, D] as observed, h_0 [N, H], first [T, N] as in GRU."""
        return self.memory(self.normalize(obs), h, first)


class Actor:
    """The policy at work in N environments: it remembers of each the episode so far."""

    def __init__(self, policy: RecurrentPolicy, generator: torch.Generator | None = None):
        self.policy, self.generator = policy, generator
        self.memory: Tensor | None = None  # h [N, H]
        self.start: Tensor | None = None  # h_0 of the rollout, once it has begun

    def begin(self, first: np.ndarray) -> None:
        """Forget the past of the environments `first` [N] bool, where an episode begins."""
        weight = self.policy.memory.cell.weight_hh
        if first.all():  # perhaps of another number of environments
            self.memory = weight.new_zeros(len(first), self.policy.memory.units)
        else:
            self.memory = self.memory * torch.as_tensor(~first, device=weight.device)[:, None]

    @torch.no_grad()
    def __call__(self, obs: np.ndarray, step: int = 0) -> np.ndarray:
        """[N, D] -> actions [N] or [N, K]: drawn with the generator, or else the mode."""
        if self.start is None:
            self.start = self.memory
        x = torch.as_tensor(obs, dtype=torch.float32, device=self.memory.device)
        self.memory = self.policy.memory.cell(self.policy.normalize(x), self.memory)
        pi = self.policy.head(self.memory)
        return (pi.mode() if self.generator is None else pi.sample(self.generator)).cpu().numpy()

    def take_start(self) -> Tensor:
        """h_0 [N, H] of the rollout that is over; the next step begins another."""
        start, self.start = self.start, None
        return start

    def state_dict(self) -> dict:
        return {}  # a checkpoint ends all episodes, and with them what is remembered

    def load_state_dict(self, state: dict) -> None:
        self.memory = self.start = None


class RecurrentPPO:
    def __init__(
        self, spec: EnvSpec, config: RecurrentPPOConfig, total_updates: int, device: torch.device, seed: int
    ):
        self.config = c = config
        self.lr = Linear(c.lr, 0.0 if c.lr_decay else c.lr, total_updates)
        self.clip = Linear(c.clip, 0.0 if c.clip_decay else c.clip, total_updates)
        self.generator = generator(seed, "explore", device=device)
        init = generator(seed, "init")
        self.policy = RecurrentPolicy(spec, c, init).to(device)
        self.value = mlp(c.units, *c.hidden, 1, generator=init).to(device)
        self.scale_reward = RewardScaler(spec.num_envs, c.gamma).to(device)
        self.act, self.explore = Actor(self.policy), Actor(self.policy, self.generator)
        self.parameters = (*self.policy.parameters(), *self.value.parameters())
        self.optimizer = Adam(self.parameters, c.lr, eps=1e-5)
        self.updates = 0

    def update(self, rollout: Rollout) -> Metrics:
        c = self.config
        self.optimizer.param_groups[0]["lr"] = self.lr(self.updates)
        start = self.explore.take_start()
        if c.normalize_reward:
            rollout = rollout._replace(reward=self.scale_reward(rollout.reward, rollout.ended))
        first = rollout.ended.roll(1, 0)
        first[0] = False  # where it is, `start` is zero already
        with torch.no_grad():
            states = self.policy(rollout.obs, start, first)
            pi_old = self.policy.head(states)
            log_prob_old = pi_old.log_prob(rollout.action)  # [T, N]
            advantage, target = self.advantage(rollout, states)
        data = (rollout.obs, first, rollout.action, log_prob_old, advantage, target)
        losses = []  # [3] each, left on the device and read once
        for _ in range(c.epochs):
            order = torch.randperm(len(start), generator=self.generator, device=start.device)
            for envs in order.split(c.batch_envs):
                losses.append(self.step(start[envs], *(x[:, envs] for x in data)))
        with torch.no_grad():
            pi = self.policy.head(self.policy(rollout.obs, start, first))
        if c.normalize_obs:  # only now: within an iteration behaviour and update see the same inputs
            self.policy.normalize.update(rollout.obs)
        self.updates += 1
        loss_policy, loss_value, norm = torch.stack(losses).mean(0).tolist()
        return {
            "loss/policy": loss_policy,
            "loss/value": loss_value,
            "grad/norm": norm,
            "policy/entropy": pi.entropy().mean().item(),
            "policy/kl": pi_old.kl(pi).mean().item(),
            "value/explained_variance": explained_variance(target - advantage, target).item(),
        }

    def advantage(self, rollout: Rollout, states: Tensor) -> tuple[Tensor, Tensor]:
        """GAE by V(h_t), and the targets of V: [T, N] each. states: h_1 .. h_T [T, N, H].

        V of a successor remembers one observation more: h of `next_obs` after h_t, also where the next row
        belongs to another episode.
        """
        next_obs = self.policy.normalize(rollout.next_obs)
        after = self.policy.memory.cell(next_obs.flatten(0, 1), states.flatten(0, 1))  # [T N, H]
        value, next_value = self.value(states).squeeze(-1), self.value(after).view_as(rollout.reward)
        ends = (rollout.terminated, rollout.ended)
        advantage = gae(rollout.reward, value, next_value, *ends, self.config.gamma, self.config.lam)
        return advantage, advantage + value

    def step(
        self,
        start: Tensor,
        obs: Tensor,
        first: Tensor,
        action: Tensor,
        log_prob_old: Tensor,
        advantage: Tensor,
        target: Tensor,
    ) -> Tensor:
        """One gradient step on whole environments, [T, n] each and start [n, H]: its losses and gradient
        norm, left on the device."""
        c = self.config
        states = self.policy(obs, start, first)
        pi = self.policy.head(states)
        ratio = (pi.log_prob(action) - log_prob_old).exp()
        clip = self.clip(self.updates)
        loss_policy = -clipped_surrogate(ratio, standardize(advantage), clip).mean()
        loss_value = F.mse_loss(self.value(states).squeeze(-1), target)
        loss = loss_policy + c.value_weight * loss_value - c.entropy_weight * pi.entropy().mean()
        norm = gradient_step(loss, self.optimizer, self.parameters, c.max_grad_norm)
        return torch.stack((loss_policy.detach(), loss_value.detach(), norm))
