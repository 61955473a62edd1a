"""Short branches of the learned model, from states that were really seen: errors have no time to add up.

a_i ~ pi(. | s_i),   s_{i+1} ~ p_theta(. | s_i, a_i),   r_i = r(s_i, a_i, s_{i+1}),   i = 0..H-1

Levine's v3.0; Sutton 1990 (one step); Gu et al. 2016 and Janner et al. 2019 (a few steps). What is learned
from them is told in mbpo.py and mve.py. A branch ends where the task terminates, and where the model leaves
the numbers. No gradient flows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from common.envs.model_tasks import ModelTask
from common.replay import Batch
from common.types import require

Step = Callable[[Tensor, Tensor], Tensor]  # obs [..., D], action [..., K] -> next_obs [..., D]
Policy = Callable[[Tensor], Tensor]  # obs [..., D] -> action [..., K] in [-1, 1]


class Branches(NamedTuple):
    """H steps of branches side by side."""

    obs: Tensor  # [H, ..., D]
    action: Tensor  # [H, ..., K]
    reward: Tensor  # [H, ...]
    next_obs: Tensor  # [H, ..., D]
    terminated: Tensor  # [H, ...] bool
    alive: Tensor  # [H, ...] bool: had not ended before, and next_obs and reward are finite

    def transitions(self) -> Batch:
        """Those that are alive, B of them."""
        return Batch(*(x[self.alive] for x in self[:5]))


def joined(a: Batch, b: Batch) -> Batch:
    """The transitions of both."""
    return Batch(*(torch.cat(pair) for pair in zip(a[:5], b[:5], strict=True)))


@torch.no_grad()
def imagine(step: Step, task: ModelTask, policy: Policy, obs: Tensor, horizon: int) -> Branches:
    """H = `horizon` steps from obs [..., D], all branches together."""
    require(horizon >= 1, f"horizon must be at least 1, got {horizon}")
    alive, rows = torch.ones_like(obs[..., 0], dtype=torch.bool), []
    for _ in range(horizon):
        action = policy(obs)
        next_obs = step(obs, action)
        reward, terminated = task.reward(obs, action, next_obs), task.terminated(next_obs)
        shape = reward.shape
        require(shape == alive.shape, f"reward must be {list(alive.shape)}, got {list(shape)}")
        alive = alive & next_obs.isfinite().all(-1) & reward.isfinite()
        rows.append((obs, action, reward, next_obs, terminated, alive))
        obs, alive = next_obs, alive & ~terminated
    return Branches(*(torch.stack(column) for column in zip(*rows, strict=True)))


def any_member(predict: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], draws: torch.Generator) -> Step:
    """A step of the ensemble as one random world, obs [B, D]: every row draws its member e anew, and then
    s' ~ N(mu_e, sigma_e^2). `predict` gives mean and standard deviation of all members, [E, B, D] each."""

    def step(obs: Tensor, action: Tensor) -> Tensor:
        mean, std = predict(obs, action)
        rows = torch.arange(len(obs))
        member = torch.randint(len(mean), rows.shape, generator=draws)
        mean, std = mean[member, rows], std[member, rows]
        noise = torch.randn(mean.shape, generator=draws, dtype=mean.dtype)
        return torch.addcmul(mean, std, noise)

    return step
