"""A problem in continuous time as a nonlinear program: the dynamics become constraints at M nodes.

min int_0^T c(x, u) dt + c_T(x(T))   s.t.  dx/dt = f(x, u),  x(0) = x0,  x(T) = x_final,  u_low <= u <= u_high

on N segments of h = T/N seconds, x_k = x(t_k), f_k = f(x_k, u_k), m = the middle of segment k:
trapezoid        x_{k+1} - x_k = h/2 (f_k + f_{k+1})
Hermite-Simpson  x_{k+1} - x_k = h/6 (f_k + 4 f_m + f_{k+1}),
                 x_m - (x_k + x_{k+1})/2 = h/8 (f_k - f_{k+1})
(Hargraves and Paris 1987; Kelly 2017, sections 3 and 4), the cost by the same quadrature.

Both read D x = W f(x, u) with constant matrices D and W. So the Jacobian of the constraints is D - W df/dz,
and the Hessian of multipliers times constraints has a block per node: exact and sparse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.func import vmap

from common.types import require
from hw5_planning_control.derivatives import gradient_and_hessian, jacobian

Method = Literal["trapezoid", "hermite-simpson"]
HUGE = 1e30  # what nan and inf count as where the solver tries a point: it steps back from there


@dataclass(frozen=True)
class ContinuousProblem:
    """Its functions are written with torch for one state; all tensors are float64."""

    dynamics: Callable[[Tensor, Tensor], Tensor]  # f(x [n], u [m]) -> dx/dt [n]
    cost: Callable[[Tensor, Tensor], Tensor]  # c(x [n], u [m]) -> [], per second
    x0: Tensor  # [n]
    control_size: int  # m
    x_final: Tensor | None = None  # [n], where the trajectory must end; None leaves it free
    final_cost: Callable[[Tensor], Tensor] | None = None  # c_T(x [n]) -> []
    u_low: Tensor | float | None = None  # [m], or what broadcasts to it
    u_high: Tensor | float | None = None

    def __post_init__(self):
        x0, m = self.x0, self.control_size
        for name, x in {"x0": x0, "x_final": x0 if self.x_final is None else self.x_final}.items():
            ok = isinstance(x, Tensor) and x.dtype == torch.float64 and x.ndim == 1 and len(x) == len(x0) > 0
            require(ok, f"{name} must be a float64 tensor [n], got {x}")
            require(bool(x.isfinite().all()), f"{name} must be finite, got {x.tolist()}")
        require(isinstance(m, int) and m >= 1, f"control_size must be an integer of at least 1, got {m!r}")
        for name in ("u_low", "u_high"):
            if getattr(self, name) is not None:
                limit = torch.as_tensor(getattr(self, name), dtype=torch.float64)
                ok = limit.shape in ((), (m,)) and not limit.isnan().any()
                require(ok, f"{name} must be a number or [{m}] numbers, got {limit.tolist()}")
                object.__setattr__(self, name, limit)
        low, high = self.limits()
        require(bool((low < high).all()), f"u_low must be below u_high, got {low.tolist()}, {high.tolist()}")

    @property
    def limited(self) -> bool:
        return self.u_low is not None or self.u_high is not None

    def limits(self) -> tuple[Tensor, Tensor]:
        """u_low, u_high [m], infinite where there is none."""
        none = self.x0.new_full((self.control_size,), torch.inf)
        low, high = self.u_low, self.u_high
        return -none if low is None else low.expand_as(none), none if high is None else high.expand_as(none)


class Transcription(NamedTuple):
    """D x = W f(x, u) and J = sum_i weight_i c_i on M nodes: the N+1 knots, then any middles of segments."""

    time: np.ndarray  # [M] seconds
    D: sparse.csr_array  # [M-1, M]
    W: sparse.csr_array  # [M-1, M] seconds
    weight: np.ndarray  # [M] seconds


def transcribe(method: Method, T: float, N: int) -> Transcription:
    h, knots, twos = T / N, np.linspace(0, T, N + 1), np.full(N - 1, 2)
    left, right, mid = sparse.eye_array(N, N + 1), sparse.eye_array(N, N + 1, k=1), sparse.eye_array(N)
    if method == "trapezoid":
        D, W = right - left, h / 2 * (left + right)
        return Transcription(knots, D.tocsr(), W.tocsr(), h / 2 * np.r_[1, twos, 1])
    D = sparse.block_array([[right - left, None], [-(left + right) / 2, mid]])
    W = sparse.block_array([[h / 6 * (left + right), 4 * h / 6 * mid], [h / 8 * (left - right), None]])
    weight = h / 6 * np.r_[1, twos, 1, np.full(N, 4)]
    return Transcription(np.r_[knots, knots[:-1] + h / 2], D.tocsr(), W.tocsr(), weight)


class NonlinearProgram:
    """Cost and constraints of z = [x; u] at all M nodes, flattened from [M, n+m], with derivatives for scipy.

    `objective` is the cost over `scale`, so that a solver's tolerances hold in any unit of cost.
    """

    def __init__(self, problem: ContinuousProblem, transcription: Transcription, N: int):
        self.problem, self.N = problem, N
        self.time, D, W, weight = transcription
        self.weight = torch.from_numpy(weight)
        n, M = problem.x0.numel(), len(self.time)
        self.n, self.shape = n, (M, n + problem.control_size)
        states = sparse.eye_array(n, self.shape[1])  # x = states @ z of one node
        self.D, self.W = sparse.kron(D, states, "csr"), sparse.kron(W, sparse.eye_array(n), "csr")
        ends = [(i, x) for i, x in ((0, problem.x0), (N, problem.x_final)) if x is not None]
        self.ends = sparse.vstack([sparse.kron(sparse.eye_array(1, M, k=i), states) for i, _ in ends])
        self.end_values = np.concatenate([x.numpy() for _, x in ends])

    def start(self, x: Tensor, u: Tensor) -> np.ndarray:
        """The guess x [M, n], u [M, m] as a point. The problem is tried on it, so that faults have names."""
        z = torch.cat([x, u], 1)
        ok = z.shape == self.shape and bool(z.isfinite().all())
        require(ok, f"guess must give finite x, u of {[*self.shape]} together, got {[*z.shape]}")
        p, largest = self.problem, 0.0
        parts = {
            "dynamics": (p.dynamics, x, u, x.shape[1:], jacobian),
            "cost": (p.cost, x, u, (), gradient_and_hessian),
            "final_cost": (self.final_cost, x[[self.N]], u[[self.N]], (), gradient_and_hessian),
        }
        for name, (function, x, u, shape, differentiate) in parts.items():
            value = vmap(function)(x, u)
            ok = value.shape[1:] == shape and value.dtype == torch.float64
            require(ok, f"{name} must return {[*shape]} float64, got {[*value.shape[1:]]} {value.dtype}")
            slopes = torch.cat([part.flatten() for part in [*differentiate(function, x, u)]])
            finite = bool(value.isfinite().all() and slopes.isfinite().all())
            require(finite, f"{name} and its derivatives must be finite on the guess, got nan or inf")
            largest = largest if name == "dynamics" else max(largest, slopes.abs().max().item())
        self.scale = largest or 1.0
        return z.numpy().ravel()

    def nodes(self, z: np.ndarray) -> tuple[Tensor, Tensor]:
        """x [M, n], u [M, m]"""
        return torch.from_numpy(z).view(self.shape).tensor_split([self.n], 1)

    def final_cost(self, x: Tensor, u: Tensor) -> Tensor:
        return self.problem.final_cost(x) if self.problem.final_cost else x.new_zeros(())

    def cost(self, z: np.ndarray) -> float:
        x, u = self.nodes(z)
        cost = self.weight @ vmap(self.problem.cost)(x, u) + self.final_cost(x[self.N], u[self.N])
        return cost.nan_to_num(HUGE, HUGE, HUGE).item()

    def objective(self, z: np.ndarray) -> float:
        return self.cost(z) / self.scale

    def gradient(self, z: np.ndarray) -> np.ndarray:
        return _finite(self.slopes(z)[0]).ravel()

    def hessian(self, z: np.ndarray) -> sparse.csr_array:
        return _block_diagonal(self.slopes(z)[1])

    def slopes(self, z: np.ndarray) -> tuple[Tensor, Tensor]:
        """Gradient [M, d] and Hessian [M, d, d] of the objective: each node has its own part."""
        x, u = self.nodes(z)
        g, H = gradient_and_hessian(self.problem.cost, x, u)
        g, H = self.weight[:, None] * g, self.weight[:, None, None] * H
        g_final, H_final = gradient_and_hessian(self.final_cost, x[[self.N]], u[[self.N]])
        g[self.N] += g_final[0]
        H[self.N] += H_final[0]
        return g / self.scale, H / self.scale

    def rates(self, z: np.ndarray) -> Tensor:
        """f(x, u) [M, n]"""
        return vmap(self.problem.dynamics)(*self.nodes(z))

    def defects(self, z: np.ndarray) -> np.ndarray:
        """D x - W f, and the ends less their values: zero where the constraints hold."""
        f = self.rates(z).nan_to_num(HUGE, HUGE, -HUGE).numpy().ravel()
        return np.r_[self.D @ z - self.W @ f, self.ends @ z - self.end_values]

    def violation(self, z: np.ndarray) -> float:
        """The largest defect, or by how much a control is beyond its limits."""
        low, high = self.limits()
        return max(abs(self.defects(z)).max(), (low - z).max(), (z - high).max()).item()

    def jacobian(self, z: np.ndarray) -> sparse.csr_array:
        f_z = _block_diagonal(jacobian(self.problem.dynamics, *self.nodes(z)))
        return sparse.vstack([self.D - self.W @ f_z, self.ends], "csr")

    def defects_hessian(self, z: np.ndarray, multiplier: np.ndarray) -> sparse.csr_array:
        lam = torch.from_numpy(-self.W.T @ multiplier[: self.W.shape[0]]).view(-1, self.n)
        _, H = gradient_and_hessian(lambda x, u, lam: lam @ self.problem.dynamics(x, u), *self.nodes(z), lam)
        return _block_diagonal(H)

    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.full(self.shape, -np.inf), np.full(self.shape, np.inf)
        low[:, self.n :], high[:, self.n :] = (limit.numpy() for limit in self.problem.limits())
        return low.ravel(), high.ravel()


def _block_diagonal(blocks: Tensor) -> sparse.csr_array:
    """[M, r, s] -> [M r, M s]"""
    M, r, s = blocks.shape
    return sparse.bsr_array((_finite(blocks), np.arange(M), np.arange(M + 1)), shape=(M * r, M * s)).tocsr()


def _finite(derivative: Tensor) -> np.ndarray:
    if not derivative.isfinite().all():
        raise FloatingPointError
    return derivative.contiguous().numpy()
