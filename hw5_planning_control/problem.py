"""What the planners solve, and what they return.

min_u sum_{t<T} c(x_t, u_t) + c_T(x_T)   s.t.   x_{t+1} = f(x_t, u_t),  u_low <= u_t <= u_high

n state, m control, T steps; ... are batch dimensions: as many problems, each solved on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from common.types import require
from hw5_planning_control.recorder import Recorded, played, recorded


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
    jacobian: Callable[..., Tensor] | None = None  # x, u, *args_t -> df/d[x; u] [n, n+m]; None: autograd

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
            sizes = [limit.numel() for limit in (self.u_low, self.u_high)]
            ok = 1 in sizes or sizes[0] == sizes[1]
            require(ok, f"u_low and u_high must have the same size, got {sizes[0]} and {sizes[1]}")
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

    def limits_around(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """How far u [..., m] is from its limits: u_low - u and u_high - u, infinite where there is none."""
        low = -torch.inf if self.u_low is None else self.u_low
        high = torch.inf if self.u_high is None else self.u_high
        return low - u, high - u

    @torch.no_grad()
    def start(self, u: Tensor) -> tuple[TrajectoryProblem, Tensor, Tensor, Tensor]:
        """Check u [..., T, m] against the problem. The problem, its functions recorded, its batch as u's and
        x0's dimensions broadcast; and there x [..., T+1, n], u [..., T, m] and the cost [...] u leads to."""
        x0, T = self.x0, self.horizon
        ok = isinstance(u, Tensor) and u.ndim >= 2 and u.shape[-2] == T and u.numel() >= 1
        require(ok, f"u_init must be [..., {T}, m], got {_what(u)}")
        require(u.dtype == x0.dtype, f"u_init must be {x0.dtype} as x0 is, got {u.dtype}")
        require(bool(u.isfinite().all()), "u_init must be finite, got nan or inf")
        for name in ("u_low", "u_high"):
            limit = getattr(self, name)
            ok = limit is None or limit.numel() in (1, u.shape[-1])
            require(ok, f"{name} must have the size {u.shape[-1]} of u, got {_what(limit)}")
        require(torch.equal(self.clip(u), u), "u_init must lie within u_low and u_high")
        try:
            batch = np.broadcast_shapes(x0.shape[:-1], u.shape[:-2])
        except ValueError:
            require(False, f"u_init must have batch dimensions as x0 {_what(x0)} has, got {_what(u)}")
        problem, u = self._expand(batch), u.expand(*batch, *u.shape[-2:])
        problem = problem._record(u)
        x = problem.rollout(u)
        require(bool(x.isfinite().all()), "dynamics must give finite states from u_init, got nan or inf")
        cost = problem.total_cost(x, u)
        require(bool(cost.isfinite().all()), "cost and final_cost must be finite from u_init, got nan or inf")
        return problem, x, u, cost

    def _expand(self, batch: torch.Size) -> TrajectoryProblem:
        own = self.x0.ndim - 1
        new = (None,) * (len(batch) - own)
        args = tuple(arg[new].expand(*batch, *arg.shape[own:]) for arg in self.args)
        return replace(self, x0=self.x0.expand(*batch, -1), args=args)

    def _record(self, u: Tensor) -> TrajectoryProblem:
        """The functions with their programs, where they have any. By the first state of the first problem: do
        they return what they must?"""
        dims = self.x0.ndim - 1
        x, u = self.x0.flatten(0, -2)[0] if dims else self.x0, u.flatten(0, -2)[0]
        args = [arg.flatten(0, dims)[0] for arg in self.args]
        found = {}
        for name, inputs, shape in (
            ("dynamics", (x, u, *args), x.shape),
            ("cost", (x, u, *args), ()),
            ("final_cost", (x, *args), ()),
        ):
            function = getattr(self, name)
            y = function(*inputs)
            ok = isinstance(y, Tensor) and y.shape == shape and y.dtype == x.dtype
            require(ok, f"{name} must return {list(shape)} {x.dtype} for one state, got {_what(y)}")
            found[name] = recorded(function, *inputs)
        return replace(self, **found)

    def with_cost(
        self,
        cost: Callable[..., Tensor],
        args: tuple[Tensor, ...],
        final_cost: Callable[..., Tensor] | None = None,
    ) -> TrajectoryProblem:
        """The same system under another cost, which sees `args` after the problem's own; a final_cost, if one
        is given, does so too."""

        def as_before(function: Callable[..., Tensor] | None) -> Callable[..., Tensor] | None:
            return function and (lambda *inputs: function(*inputs[: -len(args)]))

        return replace(
            self,
            dynamics=as_before(self.dynamics),
            jacobian=as_before(self.jacobian),
            cost=cost,
            final_cost=final_cost or as_before(self.final_cost),
            args=(*self.args, *args),
        )

    def rollout(self, u: Tensor) -> Tensor:
        """The states x [..., T+1, n] that u [..., T, m] leads to."""
        step, x = over_batch(self.dynamics, u.ndim - 2), [self.x0]
        for t in range(self.horizon):
            x.append(step(x[-1], u[..., t, :], *self.args_at(t)))
        return torch.stack(x, -2)

    def total_cost(self, x: Tensor, u: Tensor) -> Tensor:
        """sum_t c(x_t, u_t) + c_T(x_T) of x [..., T+1, n], u [..., T, m]: [...]"""
        dims = u.ndim - 2
        running = over_batch(self.cost, dims + 1)(x[..., :-1, :], u, *self.running_args())
        return running.sum(-1) + over_batch(self.final_cost, dims)(x[..., -1, :], *self.args_at(self.horizon))

    def args_at(self, t: int) -> list[Tensor]:
        """Row t of every argument: [..., *]"""
        return [arg.select(self.x0.ndim - 1, t) for arg in self.args]

    def running_args(self) -> list[Tensor]:
        """All rows but the last: [..., T, *]"""
        return [arg.narrow(self.x0.ndim - 1, 0, self.horizon) for arg in self.args]


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
    converged: Tensor  # [...] bool: dJ/du vanished, or what it promises is below the rounding of the cost


def over_batch(function: Callable[..., Any], dims: int) -> Callable[..., Any]:
    """`function` of one state, mapped over so many leading dimensions of all its arguments: by its program,
    unless someone might want derivatives, or else by vmap."""
    if isinstance(function, Recorded) and not torch.is_grad_enabled():
        return partial(played, function.program)
    for _ in range(dims):
        function = vmap(function)
    return function


def on_arrays(function: Callable[..., Tensor], dims: int) -> Callable[..., np.ndarray]:
    """The same for numpy's arrays."""
    if isinstance(function, Recorded):
        return function.program
    mapped = over_batch(function, dims)
    return lambda *inputs: mapped(*map(torch.from_numpy, inputs)).numpy()


def _what(x: Any) -> str:
    return f"{list(x.shape)} {x.dtype}" if isinstance(x, Tensor) else repr(x)
