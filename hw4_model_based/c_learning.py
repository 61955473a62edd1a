"""A model of many steps where states are continuous: where does the policy go, by a classifier.

p+(g|s, a) = (1 - gamma) sum_{k >= 1} gamma^(k-1) p(s_{t+k} = g | s_t = s, a_t = a)
C(s, a, g) = P(g was drawn from p+(.|s, a), and not from p(g)),   C / (1 - C) = p+(g|s, a) / p(g)

L = -(1 - gamma) log C(s, a, s') - log(1 - C(s, a, g)) - gamma w log C(s, a, g),   g ~ p(g)
w = C(s', a', g) / (1 - C(s', a', g)),   a' ~ pi(s')

C-learning (Eysenbach et al. 2021). No density is ever written down: a classifier has to be right about a
ratio only, and the ratio obeys Bellman's equation p+ = (1 - gamma) p + gamma E p+(s', a'). So single steps,
of any policy, are enough to learn what another one reaches. It is the successor representation of continuous
states: of a table, p+ = (1 - gamma) / gamma (M - I). No gradient flows through w, which a slowly moving copy
gives.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks import mlp, require_hidden
from common.optim import Adam, polyak
from common.types import Metrics, require, require_at_least, require_positive, require_unit

W_MAX = 50.0  # weights are cut here: one state that the copy deems certain must not decide a step


@dataclass(frozen=True)
class CLearningConfig:
    gamma: float = 0.9  # of the steps, 1 / (1 - gamma) of which are looked ahead
    hidden: tuple[int, ...] = (64, 64)  # units per layer
    lr: float = 3e-3  # Adam's at first, falling to zero along half a cosine
    tau: float = 0.05  # share of the network that its copy takes over per step
    batch_size: int = 256  # transitions per step
    steps: int = 1_000  # gradient steps per fit

    def __post_init__(self):
        require_unit(self, "gamma", "tau")
        require(self.gamma < 1, f"gamma must lie in [0, 1), got {self.gamma}")
        require_positive(self, "lr", "tau")
        require_at_least(self, 1, "batch_size", "steps")
        require_hidden(self.hidden)


def c_loss(logit_next: Tensor, logit_random: Tensor, w: Tensor, gamma: float) -> Tensor:
    """L of log C / (1 - C) at the next state and at a random one, each [B] -> [B]."""
    reached, elsewhere = F.softplus(-logit_next), F.softplus(logit_random)
    return (1 - gamma) * reached + elsewhere + gamma * w * F.softplus(-logit_random)


class CLearning:
    """log C / (1 - C) by one network of [s, a, g]."""

    def __init__(self, obs_dim: int, action_dim: int, config: CLearningConfig, generator: torch.Generator):
        self.config, self.sizes = config, (obs_dim, action_dim)
        sizes = (2 * obs_dim + action_dim, *config.hidden, 1)
        self.net = mlp(*sizes, generator=generator, last_gain=0.01, activation=nn.SiLU)
        self.target = copy.deepcopy(self.net).requires_grad_(False)

    @torch.no_grad()
    def ratio(self, obs: Tensor, action: Tensor, goal: Tensor) -> Tensor:
        """p+(g|s, a) / p(g): [..., D], [..., K], [..., D] -> [...]."""
        return _logit(self.net, obs, action, goal).exp()

    def fit(
        self, obs: Tensor, action: Tensor, next_obs: Tensor, next_action: Tensor, generator: torch.Generator
    ) -> Metrics:
        """Transitions [B, D], [B, K], [B, D] and the action of the policy in question at s' [B, K]. Random
        goals are other states of the data."""
        self._check(obs, action, next_obs, next_action)
        c, data = self.config, (obs, action, next_obs, next_action)
        parameters, copies = tuple(self.net.parameters()), tuple(self.target.parameters())
        optimizer = Adam(parameters, c.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, c.steps)
        for _ in range(c.steps):
            index, other = torch.randint(len(obs), (2, c.batch_size), generator=generator)
            s, a, s_next, a_next = (x[index] for x in data)
            goal = next_obs[other]
            with torch.no_grad():
                w = _logit(self.target, s_next, a_next, goal).exp().clamp(max=W_MAX)
            at_both = _logit(self.net, s.repeat(2, 1), a.repeat(2, 1), torch.cat([s_next, goal]))
            loss = c_loss(*at_both.chunk(2), w, c.gamma).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            polyak(copies, parameters, c.tau)
        return {"loss/classifier": loss.item()}

    def _check(self, obs: Tensor, action: Tensor, next_obs: Tensor, next_action: Tensor) -> None:
        D, K = self.sizes
        names = {"obs": (obs, D), "action": (action, K), "next_obs": (next_obs, D)}
        for name, (x, size) in (names | {"next_action": (next_action, K)}).items():
            ok = x.shape == (len(obs), size)
            require(ok, f"{name} must be [{len(obs)}, {size}], got {list(x.shape)}")
            require(bool(x.isfinite().all()), f"{name} must be finite, got nan or inf")
        require(len(obs) >= 1, "obs must hold at least one transition, it is empty")


def _logit(net: nn.Module, obs: Tensor, action: Tensor, goal: Tensor) -> Tensor:
    return net(torch.cat([obs, action, goal], -1)).squeeze(-1)
