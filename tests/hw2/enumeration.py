"""A small random problem of which every trajectory is known: expectations are sums, the gradient is exact."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

S, A, T = 2, 2, 3
F64 = {"dtype": torch.float64}


class SmallMDP:
    """S states, A actions, T steps; policies are softmax of logits [S, A]. Columns N: all trajectories."""

    def __init__(self, seed: int = 0):
        g = torch.Generator().manual_seed(seed)
        self.P = torch.rand(S, A, S, generator=g, **F64).softmax(-1)
        self.R = 1 + torch.rand(S, A, generator=g, **F64)  # all positive: a baseline has something to do
        self.start = torch.rand(S, generator=g, **F64).softmax(-1)
        self.logits, self.other_logits = torch.randn(2, S, A, generator=g, **F64)
        steps = itertools.product(range(S), range(A))
        rows = torch.tensor([*itertools.product(steps, repeat=T)])  # [N, T, 2]
        self.state, self.action = rows.permute(2, 1, 0)  # [T, N] each
        self.reward = self.R[self.state, self.action]
        self.ended = torch.zeros(T, self.state.shape[1], dtype=torch.bool)
        self.ended[-1] = True
        self.zero = torch.zeros_like(self.reward)

    def log_prob(self, logits: Tensor) -> Tensor:
        """log pi(a_t|s_t): [T, N]"""
        return logits.log_softmax(-1)[self.state, self.action]

    def probability(self, logits: Tensor) -> Tensor:
        """Of every trajectory: [N]"""
        moves = self.P[self.state[:-1], self.action[:-1], self.state[1:]]
        return self.start[self.state[0]] * moves.prod(0) * self.log_prob(logits).exp().prod(0)

    def value(self, logits: Tensor, gamma: float) -> Tensor:
        """V_t(s) = E[sum_{t'>=t} gamma^{t'-t} r_{t'}], backwards in time: [T + 1, S]"""
        pi, values = logits.softmax(-1), [torch.zeros(S, **F64)]
        for _ in range(T):
            values.insert(0, (pi * (self.R + gamma * self.P @ values[0])).sum(-1))
        return torch.stack(values)

    def exact_gradient(self, logits: Tensor, gamma: float) -> Tensor:
        """d J / d logits: [S A]"""
        logits = logits.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.start @ self.value(logits, gamma)[0], logits)
        return gradient.flatten()

    def scores(self, logits: Tensor) -> Tensor:
        """d log pi(a_t|s_t) / d logits by hand, 1 at (s, a) less pi(.|s): [T, N, S A]"""
        one = torch.zeros(*self.state.shape, S, A, **F64)
        where = torch.nn.functional.one_hot(self.state, S)[..., None].to(one)
        taken = torch.nn.functional.one_hot(self.action, A)[..., None, :].to(one)
        return (where * (taken - logits.softmax(-1))).flatten(-2)


def moments(probability: Tensor, estimate: Tensor) -> tuple[Tensor, float]:
    """Mean [P] and total variance of the estimates [N, P] with these probabilities [N]."""
    mean = probability @ estimate
    return mean, (probability @ (estimate - mean).square().sum(-1)).item()
