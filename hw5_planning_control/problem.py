"""What the planners solve, and what they return.

min_u sum_{t<T} c(x_t, u_t) + c_T(x_T)   s.t.   x_{t+1} = f(x_t, u_t),  u_low <= u_t <= u_high

n state, m control, T steps; ... are batch dimensions: as many problems, each solved on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from common.types import require


@dataclass(frozen=True)
class TrajectoryProblem:
    """The functions are written with torch, for one state and without side effects; batching is by vmap.

    What changes with time (a reference, a multiplier, a fitted model) enters through `args`: row t of each
    is a further argument of dynamics(x, u, *args_t) and cost(x, u, *args_t), row T of final_cost(x, *args_T).
    """

    dynamics: Callable[..., Tensor]  # x [n], u [m] -> x' [n]
    cost: Callable[..., Tensor]  # x [n], u [m] -> []
    final_cost: Callable[..., Tensor]  # x [n] -> []
    x0: Tensor  # [..., n]
    horizon: int  # T
    u_low: Tensor | float | None = None  # [m] or one number for all; None is no limit
    u_high: Tensor | float | None = None  # [m] or one number for all
    args: tuple[Tensor, ...] = ()  # each [..., T+1, *], with the batch dimensions of x0

    def __post_init__(self):
        x0, T = self.x0, self.horizon
        ok = isinstance(x0, Tensor) and x0.is_floating_point() and x0.ndim >= 1 and x0.numel() >= 1
        require(ok, f"x0 must be a floating tensor [..., n], got {_what(x0)}")
        require(bool(x0.isfinite().all()), f"x0 must be finite, got {x0.tolist()}")
        require(isinstance(T, int) and T >= 1, f"horizon must be an integer of at least 1, got {T!r}")
        for name in ("u_low", "u_high"):
            if getattr(self, name) is not None:
                limit = torch.as_tensor(getattr(self, name), dtype=x0.dtype, device=x0.device)
                ok = limit.ndim <= 1 and not limit.isnan().any()
                require(ok, f"{name} must be [m] or one number, and not nan, got {limit.tolist()}")
                object.__setattr__(self, name, limit)
        if self.u_low is not None and self.u_high is not None:
            ok = bool((self.u_low <= self.u_high).all())
            require(ok, f"u_low must not exceed u_high, got {self.u_low.tolist()} and {self.u_high.tolist()}")
        for i, arg in enumerate(self.args):
            lead = (*x0.shape[:-1], T + 1)
            ok = isinstance(arg, Tensor) and arg.shape[: len(lead)] == lead
            require(ok, f"args[{i}] must be [{', '.join(map(str, lead))}, *], got {_what(arg)}")
            require(bool(arg.isfinite().all()), f"args[{i}] must be finite, got nan or inf")

    @property
    def limited(self) -> bool:
        return self.u_low is not None or self.u_high is not None

    def clip(self, u: Tensor) -> Tensor:
        """[..., m] -> [..., m] within the limits."""
        return u.clamp(self.u_low, self.u_high) if self.limited else u

    def expand(self, *batch: int) -> TrajectoryProblem:
        """The same problem with these batch dimensions, which those of x0 must broadcast to."""
        own = self.x0.shape[:-1]
        args = (
            arg.reshape(*[1] * (len(batch) - len(own)), *arg.shape).expand(*batch, *arg.shape[len(own) :])
            for arg in self.args
        )
        return replace(self, x0=self.x0.expand(*batch, -1), args=tuple(args))

    def rollout(self, u: Tensor) -> Tensor:
        """The states x [..., T+1, n] that u [..., T, m] leads to."""
        step, x = over_batch(self.dynamics, u.ndim - 2), [self.x0]
        for t in range(self.horizon):
            x.append(step(x[-1], u[..., t, :], *self.args_at(t)))
        return torch.stack(x, -2)

    def args_at(self, t: int) -> tuple[Tensor, ...]:
        return tuple(arg.select(self.x0.ndim - 1, t) for arg in self.args)

    def total_cost(self, x: Tensor, u: Tensor) -> Tensor:
        """sum_t c(x_t, u_t) + c_T(x_T) of x [..., T+1, n], u [..., T, m]: [...]"""
        dims = u.ndim - 2
        before = (arg.narrow(dims, 0, self.horizon) for arg in self.args)
        running = over_batch(self.cost, dims + 1)(x[..., :-1, :], u, *before)
        final = over_batch(self.final_cost, dims)(x[..., -1, :], *self.args_at(self.horizon))
        return running.sum(-1) + final


class Solution(NamedTuple):
    """A trajectory and the controller around it: u_t = u^_t + k_t + K_t (x_t - x^_t), where u^, x^ are `u`
    and `x`; k is what a further step would still change, zero at an optimum."""

    x: Tensor  # [..., T+1, n]
    u: Tensor  # [..., T, m]
    K: Tensor  # [..., T, m, n]
    k: Tensor  # [..., T, m]
    Q_uu: Tensor  # [..., T, m, m]
    cost: Tensor  # [...]
    cost_history: Tensor  # [..., S+1] of u_init and after each accepted step; the last repeats in a batch
    gradient_norm: Tensor  # [...] Euclidean norm of dJ/du [T, m], without what the limits hold back
    iterations: Tensor  # [...] int64, accepted steps
    converged: Tensor  # [...] bool


def over_batch(function: Callable[..., Any], dims: int) -> Callable[..., Any]:
    """`function` of one state, mapped over so many leading dimensions of all its arguments."""
    for _ in range(dims):
        function = vmap(function)
    return function


def _what(x: Any) -> str:
    return f"{list(x.shape)} {x.dtype}" if isinstance(x, Tensor) else repr(x)
