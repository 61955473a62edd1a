"""Targets that look H steps ahead through the model: MVE (Feinberg et al. 2018), STEVE (Buckman et al. 2018).

T_H = r + gamma sum_{i<H} gamma^i r(s_i, a_i, s_{i+1}) + gamma^{H+1} Q'(s_H, mu'(s_H)),   s_0 = s',
                                                      a_i = mu'(s_i),   s_{i+1} = f(s_i, a_i)
MVE    y = T_H, and the states on the way are fitted too, each to what is left of the sum (the "TD-k trick":
       otherwise Q' is asked where Q was never taught)
STEVE  y = sum_H w_H mean T_H,   w_H ~ 1 / Var T_H,   over all critics and all members of the model

T_0 is the target of DDPG. If the model were perfect and Q' exact, all T_H would be equal. Nothing is earned
after the end of an episode. The target reaches the critics as the reward of a transition that ends: to them
y is that reward then. No gradient flows through y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from common.envs.model_tasks import ModelTask
from common.replay import Batch
from common.seeding import generator
from common.types import EnvSpec, Metrics, require, require_at_least
from hw4_model_based.dynamics import Dynamics, DynamicsConfig
from hw4_model_based.imagination import Branches, imagine, joined

VARIANCE_FLOOR = 1e-8  # in squared units of reward: members that agree to the last bit share the weight


@dataclass(frozen=True)
class MVEConfig:
    horizon: int = 3  # H, imagined steps behind the real one; 0 is the agent's own target
    td_k: bool = False  # fit the imagined states too
    model: DynamicsConfig = field(default_factory=lambda: DynamicsConfig(members=1, elites=1))  # the dynamics

    def __post_init__(self):
        require_at_least(self, 0, "horizon")


@dataclass(frozen=True)
class STEVEConfig:
    horizon: int = 3  # H, imagined steps behind the real one, at most
    model: DynamicsConfig = field(default_factory=DynamicsConfig)  # settings of the dynamics

    def __post_init__(self):
        require_at_least(self, 0, "horizon")


class ActorCritic(Protocol):
    """What is asked of the agent: DDPG has it."""

    actor_target: nn.Module
    critic_target: nn.Module
    q: Callable[[nn.Module, Tensor, Tensor], Tensor]  # critics, obs [B, D], action [B, K] -> [C, B]


def reached(terminated: Tensor) -> Tensor:
    """Had the episode not ended before step i? [H+1, ...] bool, true in the first row."""
    goes_on = terminated.logical_not().cumprod(0).bool()
    return torch.cat((torch.ones_like(goes_on[:1]), goes_on[:-1]))


def expansions(reward: Tensor, terminated: Tensor, value: Tensor, gamma: float) -> Tensor:
    """T_0 ... T_H: [H+1, ...]. Step 0 is the real one; value[i] is that of the state after step i."""
    _check(reward, terminated, value, reward.shape, gamma)
    total, found = torch.zeros_like(reward[0]), []
    for i, alive in enumerate(reached(terminated)):
        total = torch.where(alive, total + gamma**i * reward[i], total)
        goes_on = alive & ~terminated[i]
        found.append(torch.where(goes_on, total + gamma ** (i + 1) * value[i], total))
    return torch.stack(found)


def backups(reward: Tensor, terminated: Tensor, value: Tensor, gamma: float) -> Tensor:
    """y_i = r_i + gamma (1 - d_i) y_{i+1}: [H+1, ...], `value` [...] is that of the last state. y_0 = T_H."""
    _check(reward, terminated, value, reward.shape[1:], gamma)
    y, found = value, []
    for i in reversed(range(len(reward))):
        y = torch.where(terminated[i], reward[i], reward[i] + gamma * y)
        found.append(y)
    return torch.stack(found[::-1])


def inverse_variance_weights(targets: Tensor) -> Tensor:
    """w_H of targets [H+1, M, B], M ways to compute each: [H+1, B], they sum to 1 over H. Targets that are
    not finite, as of a model that diverges, get none."""
    require(targets.ndim == 3, f"targets must be [H+1, M, B], got {list(targets.shape)}")
    precision = 1 / (targets.var(1, correction=0) + VARIANCE_FLOOR)
    precision = torch.where(targets.isfinite().all(1), precision, 0.0)
    return precision / precision.sum(0)


def steve_target(targets: Tensor) -> Tensor:
    """y [B] of targets [H+1, M, B]."""
    weights = inverse_variance_weights(targets)
    return torch.where(weights == 0, 0.0, weights * targets.mean(1)).sum(0)


def handed_over(batch: Batch, y: Tensor) -> Batch:
    """The batch of which any TD learner's own target is y [B]."""
    return batch._replace(reward=y, terminated=torch.ones_like(batch.terminated))


class MVE:
    def __init__(self, spec: EnvSpec, task: ModelTask, config: MVEConfig | STEVEConfig, seed: int):
        require(not spec.discrete, "env_id must have continuous actions for value expansion")
        self.config, self.task = config, task
        self.fits = generator(seed, "model")
        self.model = Dynamics(spec.obs_dim, spec.action_dim, config.model, self.fits)

    def fit(self, data: Batch, learner: ActorCritic) -> Metrics:
        if self.config.horizon == 0:
            return {}
        return self.model.fit(data.obs, data.action, data.next_obs, self.fits)

    @torch.no_grad()
    def augment(self, batch: Batch, learner: ActorCritic) -> Batch:
        """Its targets looked H steps ahead."""
        return self.expand(batch, learner) if self.config.horizon else batch

    def expand(self, batch: Batch, learner: ActorCritic) -> Batch:
        path = self.path(batch, learner)
        last = values(learner, path.next_obs[-1]).amin(0)  # [E, B]
        y = backups(path.reward, path.terminated, last, learner.config.gamma)  # [H+1, E, B]
        first = handed_over(batch, y[0].mean(0))
        if not self.config.td_k:
            return first
        path = path._replace(reward=y, alive=reached(path.terminated))
        rest = Branches(*(x[1:] for x in path)).transitions()
        return joined(first, handed_over(rest, rest.reward))

    def path(self, batch: Batch, learner: ActorCritic) -> Branches:
        """The real step and H imagined ones behind it, by each member: [H+1, E, B, ...]."""

        def step(obs: Tensor, action: Tensor) -> Tensor:
            return self.model.predict(obs, action)[0]

        members = self.model.elites
        start = batch.next_obs.expand(members, -1, -1)
        imagined = imagine(step, self.task, learner.actor_target, start, self.config.horizon)
        real = Branches(*batch[:5], torch.ones_like(batch.terminated))
        rows = zip(real, imagined, strict=True)
        return Branches(*(torch.cat((x.expand_as(y[0])[None], y)) for x, y in rows))


class STEVE(MVE):
    def expand(self, batch: Batch, learner: ActorCritic) -> Batch:
        path = self.path(batch, learner)
        value = values(learner, path.next_obs).transpose(0, 1)  # [H+1, C, E, B]
        reward, terminated = (x[:, None].expand_as(value) for x in (path.reward, path.terminated))
        targets = expansions(reward, terminated, value, learner.config.gamma)
        return handed_over(batch, steve_target(targets.flatten(1, 2)))


def _check(reward: Tensor, terminated: Tensor, value: Tensor, shape: torch.Size, gamma: float) -> None:
    require(len(reward) >= 1, "reward must hold the real step, got none")
    for name, x, wanted in (("terminated", terminated, reward.shape), ("value", value, shape)):
        require(x.shape == wanted, f"{name} must be {list(wanted)}, got {list(x.shape)}")
    require(0 <= gamma <= 1, f"gamma must lie in [0, 1], got {gamma}")


def values(learner: ActorCritic, obs: Tensor) -> Tensor:
    """Q'_c(s, mu'(s)) of all critics c: [..., D] -> [C, ...]."""
    flat = obs.reshape(-1, obs.shape[-1])
    return learner.q(learner.critic_target, flat, learner.actor_target(flat)).unflatten(1, obs.shape[:-1])
