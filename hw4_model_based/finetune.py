"""Begin with a model, end without one (Nagabandi et al. 2018, MB-MF).

1  the first trials are planned through the learned model (mpc.py)
2  behaviour cloning: min_theta 1/B sum |a_MPC - mu_theta(s)|^2 over them
3  from there on the policy gradient, on its own trials

The model makes few steps go far, and its errors are where it stays behind; the policy gradient has no such
errors, but from scratch it must first find out what a good action is. Only the mean is imitated: with the
planner's own deviation, which is nearly none, there would be nothing left to explore with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from common import checkpoint
from common.envs.model_tasks import ModelTask
from common.normalizer import ObsNormalizer
from common.optim import Adam
from common.replay import Batch
from common.types import EnvSpec, Metrics, Rollout, require_at_least, require_positive
from hw4_model_based.mpc import MPC, MPCConfig


@dataclass(frozen=True)
class FinetuneConfig(MPCConfig):
    trials: int = 2  # planned through the model, the first ones; 0 is the policy gradient from scratch
    clone_epochs: int = 200  # passes over what the planner did
    clone_lr: float = 3e-3  # Adam's in them
    clone_batch_size: int = 64  # transitions per gradient step in them

    def __post_init__(self):
        super().__post_init__()
        require_at_least(self, 0, "trials")
        require_at_least(self, 1, "clone_epochs", "clone_batch_size")
        require_positive(self, "clone_lr")


class Learner(Protocol):
    """An agent of the policy gradient."""

    policy: nn.Module  # normalised obs [B, D] -> a Gaussian over actions, and a method `normalize`
    act: Callable[[np.ndarray], np.ndarray]
    explore: Callable[[np.ndarray, int], np.ndarray]

    def update(self, rollout: Rollout) -> Metrics: ...


class Saved:
    """An agent as one thing that another one owns."""

    def __init__(self, agent: Learner):
        self.agent = agent

    def parameters(self) -> Iterator[nn.Parameter]:
        for value in vars(self.agent).values():
            if isinstance(value, nn.Module):
                yield from value.parameters()

    def state_dict(self) -> dict:
        return checkpoint.state_of(self.agent)

    def load_state_dict(self, state: dict) -> None:
        checkpoint.restore(self.agent, state)


def rollout_of(batch: Batch, num_envs: int) -> Rollout:
    """Transitions [T N] in the order in which they were collected -> [T, N]. An episode that ends without
    being terminated was cut: what follows begins elsewhere."""
    obs, action, reward, next_obs, terminated = (x.unflatten(0, (-1, num_envs)) for x in batch[:5])
    truncated = torch.ones_like(terminated)
    truncated[:-1] = (next_obs[:-1] != obs[1:]).any(-1)
    return Rollout(obs, action, reward, next_obs, terminated, truncated & ~terminated)


def clone(
    policy: nn.Module, obs: Tensor, action: Tensor, config: FinetuneConfig, draws: torch.Generator
) -> float:
    """Fit the mean of the policy to action [B, K] at obs [B, D]; the squared error of the last pass.

    A policy that normalises what it sees does so by these data from now on: left as it was, its first own
    trial would shift everything that it has learned.
    """
    if isinstance(policy.normalize, ObsNormalizer):
        policy.normalize.update(obs)
    optimizer = Adam(policy.net.parameters(), config.clone_lr)
    for _ in range(config.clone_epochs):
        total = 0.0
        for index in torch.randperm(len(obs), generator=draws).split(config.clone_batch_size):
            error = (policy(policy.normalize(obs[index])).mean - action[index]).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            total += len(index) * error.item()
    return total / len(obs)


class Finetune(MPC):
    """The planner for `trials` rounds, then the learner."""

    def __init__(self, spec: EnvSpec, task: ModelTask, config: FinetuneConfig, learner: Learner, seed: int):
        super().__init__(spec, task, config, seed)
        self.learner = Saved(learner)
        self.rounds = 0  # updates so far
        self.random = self.seen = 0  # steps that the data held at the first one, and at the last

    @property
    def planning(self) -> bool:
        return self.rounds <= self.config.trials

    @property
    def act(self) -> Callable[[np.ndarray], np.ndarray]:
        return self if self.planning else self.learner.agent.act

    @property
    def explore(self) -> Callable[[np.ndarray, int], np.ndarray]:
        return self if self.planning else self.learner.agent.explore

    def update(self, batch: Batch) -> Metrics:
        """Of all data so far, the last trial at the end: fit the model, imitate, or learn from the trial."""
        trial, self.seen = Batch(*(x[self.seen :] for x in batch[:5])), len(batch.obs)
        self.random = self.random or self.seen
        self.rounds += 1
        if self.planning:
            return super().update(batch)
        if self.rounds > self.config.trials + 1:
            return self.learner.agent.update(rollout_of(trial, self.num_envs))
        if self.config.trials == 0:
            return {}
        obs, action = batch.obs[self.random :], batch.action[self.random :]
        return {"loss/clone": clone(self.learner.agent.policy, obs, action, self.config, self.fits)}
