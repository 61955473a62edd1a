"""Imitating a planner: a network that answers at once what a search would find (Guo et al. 2014).

theta = argmin sum over D of loss(pi_theta(o), planner(s)),
D grows by the states that pi_theta itself comes to: DAgger (Ross, Gordon and Bagnell 2011)

1. run pi_theta (in the first round the planner) and collect what it sees
2. let the planner say what it would do there, D <- D + these pairs
3. fit pi_theta to all of D by stochastic gradient descent

The loss is the cross-entropy where actions are discrete, else the squared distance of the controls. The
planner may use what the network does not see. It is asked anew at every state, from no first controls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from common.envs.registry import step_envs
from common.networks import mlp
from common.optim import Adam, gradient_step
from common.types import EnvSpec, Metrics, require_at_least, require_positive

Policy = Callable[[np.ndarray], np.ndarray]  # observations [N, D] -> actions [N], or controls [N, K]


@dataclass(frozen=True)
class StudentConfig:
    hidden: int = 128  # units of each of two layers
    lr: float = 2e-3  # step size of Adam, linearly to zero within a round
    epochs: int = 30  # passes over all pairs per round
    batch_size: int = 64  # pairs per gradient step
    max_grad_norm: float = 10.0  # longer gradients are cut to this

    def __post_init__(self):
        require_at_least(self, 1, "hidden", "epochs", "batch_size")
        require_positive(self, "lr", "max_grad_norm")


class Student:
    def __init__(self, spec: EnvSpec, config: StudentConfig, generator: torch.Generator):
        self.discrete, self.config, self.generator = spec.discrete, config, generator
        sizes = (spec.obs_dim, config.hidden, config.hidden, spec.action_dim)
        self.network = mlp(*sizes, generator=generator, last_gain=0.01)
        self.parameters = (*self.network.parameters(),)
        self.optimizer = Adam(self.parameters, config.lr)

    @torch.no_grad()
    def act(self, obs: np.ndarray) -> np.ndarray:
        """The best action [N], or controls [N, K] in [-1, 1]."""
        out = self.network(torch.as_tensor(obs, dtype=torch.float32))
        return (out.argmax(-1) if self.discrete else out.clamp(-1, 1)).numpy()

    def update(self, obs: Tensor, label: Tensor) -> Metrics:
        """All epochs over obs [B, D] and label [B] or [B, K]: the loss of the last one."""
        for epoch in range(self.config.epochs):
            self.optimizer.param_groups[0]["lr"] = self.config.lr * (1 - epoch / self.config.epochs)
            losses = []
            order = torch.randperm(len(obs), generator=self.generator)
            for batch in order.split(self.config.batch_size):
                loss = imitation_loss(self.network(obs[batch]), label[batch], self.discrete)
                gradient_step(loss, self.optimizer, self.parameters, self.config.max_grad_norm)
                losses.append(loss.detach() * len(batch))
        return {"loss/imitation": (torch.stack(losses).sum() / len(obs)).item()}


def imitation_loss(out: Tensor, label: Tensor, discrete: bool) -> Tensor:
    """-log pi(a|o) of the planner's action a: out [B, A], label [B]. Or |mu(o) - u|^2 / K: both [B, K]."""
    return cross_entropy(out, label) if discrete else mse_loss(out, label)


def agreement(action: np.ndarray, label: np.ndarray, discrete: bool) -> float:
    """Share of equal actions; of controls the mean distance, with a minus: larger is closer."""
    return float((action == label).mean() if discrete else -np.abs(action - label).mean())


class Pairs:
    """D, round by round; how the environments were led there; what the planner draws from."""

    def __init__(self, chance: torch.Generator | np.random.Generator):
        self.seen, self.labels, self.played, self.chance = [], [], [], chance


def dagger(
    student: Student, planner: Policy, envs: gym.vector.VectorEnv, pairs: Pairs, steps: int, seed: int
) -> Iterator[Metrics]:
    """Rounds of 1. to 3. with `steps` of all environments each, on from where `pairs` ends; after each its
    metrics. The agreement is that of the student with the planner on what it has just seen and not yet
    learned."""
    obs, _ = envs.reset(seed=seed)
    for action in (action for played in pairs.played for action in played.numpy()):
        obs, *_ = step_envs(envs, action)  # the same actions lead to the same states
    kind = torch.int64 if student.discrete else torch.float32
    while True:
        seen, labels, played, agreed = [], [], [], []
        for _ in range(steps):
            label, action = planner(obs), student.act(obs)
            seen.append(obs)
            labels.append(label)
            played.append(action if pairs.played else label)
            agreed.append(agreement(action, label, student.discrete))
            obs, *_ = step_envs(envs, played[-1])
        pairs.seen.append(torch.as_tensor(np.concatenate(seen), dtype=torch.float32))
        pairs.labels.append(torch.as_tensor(np.concatenate(labels), dtype=kind))
        pairs.played.append(torch.as_tensor(np.stack(played)))
        found = student.update(torch.cat(pairs.seen), torch.cat(pairs.labels))
        told = {"plan/agreement": float(np.mean(agreed)), "plan/labels": sum(map(len, pairs.labels))}
        yield found | told
