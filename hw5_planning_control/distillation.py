"""Distillation: one network that knows what many knew (Hinton, Vinyals and Dean 2015).

p_i(T) = exp(z_i / T) / sum_j exp(z_j / T)
L = -T^2 sum_i p_i^teacher(T) log p_i^student(T)

An ensemble teaches by the mean of its members' p(T); many policies teach one, each on the states of its own
task, by p(T) of their logits or Q-values (actor-mimic; Parisotto et al. 2016, Rusu et al. 2016). A target
says which mistakes would be small, so that it is worth more than the label argmax z. T^2 keeps the gradient's
size: as T grows it becomes (z^student - z^teacher) / A, both less their means.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from common.networks import mlp, require_hidden
from common.optim import Adam, gradient_step
from common.types import require, require_at_least, require_positive


@dataclass(frozen=True)
class DistillationConfig:
    temperature: float = 2.0  # T, of teachers and student
    hard: bool = False  # learn argmax of the teachers' p instead
    epochs: int = 200  # passes over all inputs
    batch_size: int = 64  # inputs per gradient step
    lr: float = 3e-3  # learning rate of Adam, linearly to zero
    hidden: tuple[int, ...] = (64, 64)  # units per layer

    def __post_init__(self):
        require_at_least(self, 1, "epochs", "batch_size")
        require_positive(self, "temperature", "lr")
        require_hidden(self.hidden)


def soft_targets(logits: Tensor, temperature: float) -> Tensor:
    """Teachers' logits [E, ..., A] -> the mean of their p(T) [..., A]; an entry of -inf has p = 0."""
    require(logits.ndim >= 2, f"logits must be [teachers, ..., A], got {list(logits.shape)}")
    ok = bool((logits < torch.inf).all() and (logits > -torch.inf).any(-1).all())  # nan is in neither
    require(ok, "logits must not be nan or inf, and not -inf for every action")
    require(temperature > 0, f"temperature must be positive, got {temperature}")
    return (logits / temperature).softmax(-1).mean(0)


def hard_targets(soft: Tensor) -> Tensor:
    """All of p on its largest entry: [..., A]"""
    return F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft)


def distillation_loss(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """L of the student's logits [..., A] and p^teacher [..., A]."""
    return -(temperature**2) * (target * (logits / temperature).log_softmax(-1)).sum(-1).mean()


class Distilled:
    """A student of as many inputs and actions."""

    def __init__(self, inputs: int, actions: int, config: DistillationConfig, generator: torch.Generator):
        self.config, self.generator = config, generator
        self.network = mlp(inputs, *config.hidden, actions, generator=generator)
        self.optimizer = Adam(self.network.parameters(), config.lr)
        self.epochs = 0  # passes so far

    def epoch(self, x: Tensor, soft: Tensor) -> None:
        """One pass over inputs x [M, D] and the teachers' p(T) [M, A]."""
        c = self.config
        ok = x.ndim == 2 and soft.ndim == 2 and len(x) == len(soft) and len(x) > 0
        require(ok, f"x and soft must be [M, D] and [M, A], got {list(x.shape)} and {list(soft.shape)}")
        # A hard label has no temperature: what it would do to the loss is a factor of the learning rate.
        target, temperature = (hard_targets(soft), 1.0) if c.hard else (soft, c.temperature)
        parameters = [*self.network.parameters()]
        self.optimizer.param_groups[0]["lr"] = c.lr * (1 - self.epochs / c.epochs)
        for rows in torch.randperm(len(x), generator=self.generator).split(c.batch_size):
            loss = distillation_loss(self.network(x[rows]), target[rows], temperature)
            gradient_step(loss, self.optimizer, parameters, torch.inf)
        self.epochs += 1
