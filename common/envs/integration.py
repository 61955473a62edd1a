"""From dx/dt = f(x, u) to x_{t+1} = step(x_t, u_t), the control held for dt seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from common.types import require

Function = Callable[[Tensor, Tensor], Tensor]  # x [..., n], u [..., m] -> [..., n] or [..., n, n+m]
Method = Literal["rk4", "euler"]


def discretize(f: Function, dt: float, method: Method = "rk4") -> Function:
    """x_{t+1} = step(x_t, u_t), by Kutta's method of order 4 (1901) or by Euler's of order 1."""
    _check(dt, method)

    def euler(x: Tensor, u: Tensor) -> Tensor:
        return x + dt * f(x, u)

    def rk4(x: Tensor, u: Tensor) -> Tensor:
        k1 = f(x, u)
        k2 = f(x + (dt / 2) * k1, u)
        k3 = f(x + (dt / 2) * k2, u)
        k4 = f(x + dt * k3, u)
        return x + (dt / 6) * (k1 + 2 * (k2 + k3) + k4)

    return rk4 if method == "rk4" else euler


def discretize_jacobian(f: Function, jacobian: Function, dt: float, method: Method = "rk4") -> Function:
    """F = d step/d[x; u] [..., n, n+m] of `discretize`, by the chain rule from the jacobian of f."""
    _check(dt, method)

    def step(x: Tensor, u: Tensor) -> Tensor:
        n, z = x.shape[-1], x.shape[-1] + u.shape[-1]
        start = torch.eye(n, z, dtype=x.dtype, device=x.device)  # dx/d[x; u]
        k, dk, total, weight = torch.zeros_like(x), torch.zeros_like(start), 0.0, 0.0
        for h, w in ((0, 1), (dt / 2, 2), (dt / 2, 2), (dt, 1)) if method == "rk4" else ((0, 1),):
            at = x + h * k
            J = jacobian(at, u)
            k, dk = f(at, u), J[..., :n] @ (start + h * dk)
            dk = torch.cat([dk[..., :n], dk[..., n:] + J[..., n:]], -1)
            total, weight = total + w * dk, weight + w
        return start + (dt / weight) * total

    return step


def _check(dt: float, method: str) -> None:
    require(0 < dt < torch.inf, f"dt must be a positive number of seconds, got {dt}")
    require(method in ("rk4", "euler"), f"method must be rk4 or euler, got {method!r}")
