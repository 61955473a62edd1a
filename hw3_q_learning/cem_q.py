"""Q-learning with continuous actions and no actor: the max is searched for (as in QT-Opt, Kalashnikov 2018).

y = r + gamma (1 - d) min_i Q'_i(s', a*),   a* = argmax_a min_i Q'_i(s', a) by one of

shooting   the best of uniform samples
cem        a Gaussian refitted to the best of its samples
cma-es     the same with full covariance, one state at a time: the most exact and the slowest
gradient   ascent from the best of some samples, each step the gradient's direction

No gradient flows through y. Q' follows Q by Polyak averaging.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from common.ensemble import EnsembleMLP
from common.networks import require_hidden
from common.optim import Adam, descend, polyak
from common.replay import Batch
from common.seeding import generator
from common.stochastic_search import cem, cma_es, random_shooting
from common.types import EnvSpec, require, require_at_least, require_positive, require_unit
from hw3_q_learning.dqn import td_target
from hw3_q_learning.sac import require_continuous

Search = Literal["shooting", "cem", "cma-es", "gradient"]


@dataclass(frozen=True)
class CEMQConfig:
    gamma: float = 0.99  # discount
    lr: float = 1e-3  # learning rate of Adam
    hidden: tuple[int, ...] = (64, 64)  # units per layer of each critic
    critics: int = 2  # the least of their values counts
    tau: float = 0.005  # part of the critics in each update of the target critics
    search: Search = "cem"  # how the best action is found
    samples: int = 16  # actions tried at a time, per state
    iterations: int = 2  # times that they are tried, or steps of the gradient
    noise: float = 0.2  # standard deviation of exploration, of actions in [-1, 1]

    def __post_init__(self):
        require_unit(self, "gamma", "tau")
        require_positive(self, "lr")
        require_at_least(self, 0, "noise")
        require_at_least(self, 1, "critics", "iterations")
        require_at_least(self, 4, "samples")
        ok = self.search in Search.__args__
        require(ok, f"search must be one of {', '.join(Search.__args__)}, got {self.search!r}")
        require_hidden(self.hidden)


def best_action(
    q: Callable[[Tensor], Tensor],
    like: Tensor,
    search: Search,
    samples: int,
    iterations: int,
    generator: torch.Generator,
) -> Tensor:
    """argmax over [-1, 1]^K of q: [samples, B, K] -> [samples, B]. `like` [B, K] gives the shape."""
    zero, one = torch.zeros_like(like), torch.ones_like(like)
    if search == "cem":
        elites = max(samples // 4, 2)
        std, low, high = 0.7, -one, one
        options = {"iterations": iterations, "samples": samples, "elites": elites}
        return cem(q, zero, std, low=low, high=high, generator=generator, **options).best
    if search == "cma-es":
        found = [
            cma_es(
                lambda a, k=k: q(a[:, None].expand(-1, len(like), -1))[:, k], zero[k], 0.5, iterations,
                samples, low=-1.0, high=1.0, generator=generator,
            ).best
            for k in range(len(like))
        ]  # fmt: skip
        return torch.stack(found)
    start = random_shooting(q, -one, one, samples, generator).best
    return ascend(q, start, iterations) if search == "gradient" else start


def ascend(q: Callable[[Tensor], Tensor], action: Tensor, iterations: int) -> Tensor:
    """Steps along sign dq/da from `action` [B, K], halved each time, within [-1, 1]: the better of both ends.

    Only the sign, as the scale of q says nothing about how far its top is.
    """
    best, step = action, 0.5
    for _ in range(iterations):
        with torch.enable_grad():
            leaf = action.detach().requires_grad_()
            (slope,) = torch.autograd.grad(q(leaf[None]).sum(), leaf)
        action, step = (action + step * slope.sign()).clamp(-1, 1), step / 2
        better = (q(action[None]) > q(best[None])).squeeze(0)
        best = torch.where(better[:, None], action, best)
    return best


class CEMQ:
    def __init__(
        self, spec: EnvSpec, config: CEMQConfig, total_updates: int, device: torch.device, seed: int
    ):
        require_continuous(spec, "CEM-Q")
        self.config, self.device, self.action_dim = config, device, spec.action_dim
        self.generator, init = generator(seed, "explore", device=device), generator(seed, "init")
        self.act_generator = generator(seed, "act", device=device)  # evaluations do not change the training
        sizes = (spec.obs_dim + spec.action_dim, *config.hidden, 1)
        self.critic = EnsembleMLP(config.critics, *sizes, generator=init).to(device)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.parameters = tuple(self.critic.parameters())
        self.target_parameters = tuple(self.critic_target.parameters())
        self.optimizer = Adam(self.parameters, config.lr)

    def act(self, obs: np.ndarray) -> np.ndarray:
        return self._search(obs, self.act_generator)

    def explore(self, obs: np.ndarray, step: int) -> np.ndarray:
        action = self._search(obs, self.generator)
        noise = torch.randn(action.shape, generator=self.generator, device=self.device).cpu().numpy()
        return (action + self.config.noise * noise).clip(-1, 1)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        c = self.config
        y = self.target(batch)
        x = torch.cat((batch.obs, batch.action), 1)
        error = self.critic(x).squeeze(2) - y  # [E, B]
        loss = 0.5 * (batch.weight * error.square()).mean(1).sum()
        descend(loss, self.optimizer, self.parameters)
        polyak(self.target_parameters, self.parameters, c.tau)
        return {"loss/q": loss.detach(), "value/target": y, "value/td_error": error.detach().abs().mean(0)}

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """y [B]."""
        action = self.greedy(self.critic_target, batch.next_obs, self.generator)
        v_next = self.value(self.critic_target, batch.next_obs, action[None]).squeeze(0)
        return td_target(batch.reward, batch.terminated, v_next, self.config.gamma**batch.steps)

    def greedy(self, critic: nn.Module, obs: Tensor, generator: torch.Generator) -> Tensor:
        """argmax_a min_i Q_i(s, a): [B, D] -> [B, K]."""
        c, like = self.config, obs.new_empty(len(obs), self.action_dim)
        value = partial(self.value, critic, obs)
        return best_action(value, like, c.search, c.samples, c.iterations, generator)

    def value(self, critic: nn.Module, obs: Tensor, action: Tensor) -> Tensor:
        """min_i Q_i(s, a) of several actions per state: [B, D], [S, B, K] -> [S, B]."""
        x = torch.cat((obs.expand(len(action), *obs.shape), action), 2)
        return critic(x.flatten(0, 1)).amin(0).view(action.shape[:2])

    def _search(self, obs: np.ndarray, generator: torch.Generator) -> np.ndarray:
        x = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        with torch.no_grad():
            return self.greedy(self.critic, x, generator).cpu().numpy()
