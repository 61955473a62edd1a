"""Iterative LQR: expand around the trajectory, solve the LQ problem that results, walk along its solution.

F_t = df/dz,  c_t = dc/dz,  C_t = d2c/dz2 at (x^_t, u^_t),  z = [x; u]        (Li and Todorov 2004)
backward:  LQR on dx = x - x^, du = u - u^ gives K_t, k_t
forward:   u_t = u^_t + alpha k_t + K_t (x_t - x^_t),  x_{t+1} = f(x_t, u_t)

The forward pass is nonlinear, so alpha is halved until the cost falls by a share of what the expansion
promises, -(alpha k'q_u + alpha^2/2 k'Q_uu k). If no alpha does, or some Q_uu is not positive definite, the
regularisation mu grows and the gains are computed again from the same expansion (Tassa, Erez and Todorov
2012): Q_uu + mu I keeps u near u^, or V + mu I keeps x near x^. It starts at zero, which leaves an LQ problem
to one exact step, and V is that of the gains with the cost itself, without mu.

Control limits (Tassa, Mansard and Todorov 2014): k_t minimises Q within u_low - u^ and u_high - u^, and the
rows of K_t that belong to controls on a limit are zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from common.types import require, require_at_least
from hw5_planning_control.box_qp import box_qp, free_block
from hw5_planning_control.derivatives import Expansion, expand
from hw5_planning_control.problem import Solution, TrajectoryProblem, on_arrays
from hw5_planning_control.small_matrices import dot, eliminate, mv


@dataclass(frozen=True)
class ILQRConfig:
    iterations: int = 500  # accepted steps at most
    tolerance: float = 1e-6  # stop when the Euclidean norm of dJ/du is this small
    regularize: Literal["control", "state"] = "control"  # mu keeps u, or x, near the trajectory
    mu_min: float = 1e-6  # smallest mu that is not zero
    mu_max: float = 1e10  # give up beyond
    mu_factor: float = 2.0  # mu's factor grows by this factor with every failure, shrinks with every success
    line_search: int = 10  # halvings of alpha before mu grows
    armijo: float = 1e-4  # share of the promised decrease that counts as success

    def __post_init__(self):
        require_at_least(self, 0, "iterations")
        require_at_least(self, 1, "line_search")
        require(self.tolerance >= 0, f"tolerance must be at least 0, got {self.tolerance}")
        require(0 <= self.mu_min < math.inf, f"mu_min must be at least 0 and finite, got {self.mu_min}")
        ok = self.mu_max > self.mu_min
        require(ok, f"mu_max must exceed mu_min = {self.mu_min}, got {self.mu_max}")
        require(0 < self.armijo < 0.5, f"armijo must lie in (0, 0.5), got {self.armijo}")
        require(self.mu_factor > 1, f"mu_factor must exceed 1, got {self.mu_factor}")
        ok = self.regularize in ("control", "state")
        require(ok, f"regularize must be control or state, got {self.regularize!r}")


class Gains(NamedTuple):
    K: Tensor  # [..., T, m, n]
    k: Tensor  # [..., T, m]
    Q_uu: Tensor  # [..., T, m, m] without mu
    linear: Tensor  # [...] sum_t k'q_u
    curved: Tensor  # [...] sum_t 1/2 k'Q_uu k
    definite: Tensor  # [...] bool: every Q_uu, with mu, was positive definite

    def promise(self, alpha: float) -> Tensor:
        """By how much the cost would fall were the expansion exact: [...]"""
        return -(alpha * self.linear + alpha**2 * self.curved)


def ilqr(problem: TrajectoryProblem, u_init: Tensor, config: ILQRConfig | None = None) -> Solution:
    """From u_init [..., T, m]. The cost never rises. `converged`: dJ/du vanished, or the decrease that the
    expansion promises is below the rounding of the cost; `gradient_norm` says how far dJ/du was from zero."""
    return solve(problem, u_init, config or ILQRConfig(), second_order=False)


@torch.no_grad()
def solve(problem: TrajectoryProblem, u_init: Tensor, config: ILQRConfig, second_order: bool) -> Solution:
    """iLQR; DDP where the second derivatives of the dynamics count too. The problems of a batch are
    expanded and rolled out together, and each has its own alpha, mu and end."""
    problem, x, u, cost = problem.start(u_init)
    expansion = expand(problem, x, u, second_order)
    ok = all(bool(part.isfinite().all()) for part in expansion if part is not None)
    require(ok, "dynamics and costs must have finite derivatives along u_init's trajectory, got nan or inf")

    controller = (u.new_zeros(*u.shape, x.shape[-1]), torch.zeros_like(u), u.new_zeros(*u.shape, u.shape[-1]))
    mu, factor = torch.zeros_like(cost), torch.ones_like(cost)
    iterations = torch.zeros_like(cost, dtype=torch.int64)
    converged, running = torch.zeros_like(cost, dtype=torch.bool), torch.ones_like(cost, dtype=torch.bool)
    history = [(iterations, cost)]
    while True:
        norm = (u - problem.clip(u - expansion.gradient())).flatten(-2).norm(dim=-1)
        gains = backward(problem, u, expansion, mu, config.regularize)
        controller = _where(gains.definite, gains[:3], controller)
        exhausted = gains.definite & (mu == 0) & (gains.promise(1.0) <= torch.finfo(x.dtype).eps * cost.abs())
        converged = converged | (running & ((norm <= config.tolerance) | exhausted))
        running = running & ~converged & (iterations < config.iterations) & (mu < config.mu_max)
        if not running.any():
            break
        x, u, cost, accepted = line_search(problem, x, u, cost, gains, running & gains.definite, config)
        if accepted.any():
            expansion = expand(problem, x, u, second_order)
        iterations = iterations + accepted
        history.append((iterations, cost))
        mu_next, factor = adapt(mu, factor, accepted, config)
        mu = torch.where(running, mu_next, mu)

    steps, costs = (torch.stack(parts, -1) for parts in zip(*history, strict=True))
    last = cost[..., None].expand(*cost.shape, int(iterations.max()) + 1)
    return Solution(x, u, *controller, cost, last.scatter(-1, steps, costs), norm, iterations, converged)


def adapt(mu: Tensor, factor: Tensor, accepted: Tensor, config: ILQRConfig) -> tuple[Tensor, Tensor]:
    """mu [...] falls, at last to zero, where a step was accepted, and grows elsewhere: faster every time that
    the same happens again."""
    down, up = factor.clamp(max=1) / config.mu_factor, factor.clamp(min=1) * config.mu_factor
    factor = torch.where(accepted, down, up)
    mu = mu * factor
    least = torch.where(accepted, 0, config.mu_min)
    return torch.where(mu < config.mu_min, least, mu), factor


@np.errstate(all="ignore")  # what follows a Q_uu that is not definite is of no use, and may be nan
def backward(
    problem: TrajectoryProblem, u: Tensor, e: Expansion, mu: Tensor, regularize: str = "control"
) -> Gains:
    """LQR on the expansion around u [..., T, m], with mu [...].

    The recursion of hw5_planning_control.lqr with a 1 in front: y = [1; dx] and z = [1; dx; du] make the
    affine problem a linear one, V = [[., v'], [v, V]], Q = [[., q'], [q, Q]] and G = [k, K].
    """
    n, m = e.F.shape[-2], u.shape[-1]
    F, C, V = _prepend(e.F), _prepend(e.C, e.c), _prepend(e.C_final, e.c_final)
    F[..., 0, 0] = 1
    f_zz = [] if e.f_zz is None else _steps(pad(e.f_zz, (1, 0, 1, 0)).flatten(-2), 2)
    low, high = (_steps(limit, 1) for limit in problem.limits_around(u))
    mu, eye = mu[..., None, None].numpy(), np.eye(n + 1 + m, dtype=F.dtype)
    I_y = np.broadcast_to(eye[: n + 1, : n + 1], V.shape)
    stay, definite, Gs, Q_us = mu * eye[n + 1 :], True, [], []
    for t, (F_t, C_t) in reversed(
        list(enumerate(zip(np.moveaxis(F, -3, 0), np.moveaxis(C, -3, 0), strict=True)))
    ):
        Q = C_t + F_t.mT @ V @ F_t
        if f_zz:
            Q = Q + (V[..., :1, 1:] @ f_zz[t]).reshape(Q.shape)
        Q_u = Q[..., n + 1 :, :]
        if regularize == "state":
            stay = mu * (F_t[..., n + 1 :].mT @ F_t)
        G, positive = eliminate(Q_u + stay)
        k, definite = G[..., 0], definite & positive
        if problem.limited and ((k < low[t]) | (k > high[t])).any():
            G = _limited_gains(Q_u + stay, positive, low[t], high[t])
        I_G = np.concatenate([I_y, G], -2)
        V = I_G.mT @ Q @ I_G
        Gs.append(G)
        Q_us.append(Q_u)
    G, Q_u = (torch.from_numpy(np.stack(steps[::-1], -3)) for steps in (Gs, Q_us))
    K, k, Q_uu = G[..., 1:], G[..., 0], Q_u[..., n + 1 :]
    linear, curved = (k * Q_u[..., 0]).sum((-2, -1)), 0.5 * dot(k, mv(Q_uu, k)).sum(-1)
    return Gains(K, k, Q_uu, linear, curved, torch.as_tensor(definite))


def _prepend(matrix: Tensor, vector: Tensor | float = 0.0) -> np.ndarray:
    """[[0, vector'], [vector, matrix]]"""
    *lead, rows, columns = matrix.shape
    padded = np.zeros((*lead, rows + 1, columns + 1), matrix.numpy().dtype)
    padded[..., 1:, 1:] = matrix
    padded[..., 0, 1:] = padded[..., 1:, 0] = vector
    return padded


def _limited_gains(Q_u: np.ndarray, definite: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """[k, K] where low <= k <= high [..., m]."""
    m = Q_u.shape[-2]
    Q_uu = np.where(np.expand_dims(definite, (-2, -1)), Q_u[..., -m:], np.eye(m))
    q_u, Q_ux, Q_uu, low, high = map(torch.from_numpy, (Q_u[..., 0], Q_u[..., 1:-m], Q_uu, low, high))
    k, free = box_qp(Q_uu, q_u, low, high)
    K = -torch.linalg.solve_ex(free_block(Q_uu, free), Q_ux * free[..., None]).result
    return torch.cat([k[..., None], K], -1).numpy()


def line_search(
    problem: TrajectoryProblem,
    x: Tensor,
    u: Tensor,
    cost: Tensor,
    gains: Gains,
    pending: Tensor,
    config: ILQRConfig,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, u, cost after the largest alpha = 1, 1/2, ... whose cost falls enough, and where one did. What is
    not pending [...] stays. A rise within the rounding of the cost is forgiven: near an optimum the gradient
    still shrinks when the cost no longer shows it. A cost of nan never falls."""
    best, accepted = (x, u, cost), torch.zeros_like(pending)
    rounding = 32 * torch.finfo(cost.dtype).eps * cost.abs()
    for i in range(config.line_search):
        if not pending.any():
            break
        x_new, u_new = forward(problem, x, u, gains, 0.5**i)
        cost_new = problem.total_cost(x_new, u_new)
        falls = pending & (cost - cost_new >= config.armijo * gains.promise(0.5**i) - rounding)
        best = _where(falls, (x_new, u_new, cost_new), best)
        accepted, pending = accepted | falls, pending & ~falls
    return *best, accepted


def forward(
    problem: TrajectoryProblem, x: Tensor, u: Tensor, gains: Gains, alpha: float
) -> tuple[Tensor, Tensor]:
    """The forward pass: u_t + alpha k_t + K_t (x_new - x_t), within the limits."""
    step = on_arrays(problem.dynamics, u.ndim - 2)
    low, high = (limit.numpy() for limit in problem.limits_around(torch.zeros_like(u[..., 0, :])))
    steps = (_steps(x, 1), _steps(u + alpha * gains.k, 1), _steps(gains.K, 2))
    x_new, u_new = [problem.x0.numpy()], []
    for t, (x_t, u_t, K) in enumerate(zip(*steps, strict=False)):  # there is one state more
        u_t = u_t + (K @ (x_new[-1] - x_t)[..., None])[..., 0]
        u_new.append(np.minimum(np.maximum(u_t, low), high) if problem.limited else u_t)
        x_new.append(step(x_new[-1], u_new[-1], *(arg.numpy() for arg in problem.args_at(t))))
    return torch.from_numpy(np.stack(x_new, -2)), torch.from_numpy(np.stack(u_new, -2))


def _steps(x: Tensor, dims: int) -> list[np.ndarray]:
    """The arrays [..., *] of so many dimensions behind those of the batch, one per step."""
    return [*np.moveaxis(x.numpy(), -1 - dims, 0)]


def _where(condition: Tensor, new: tuple[Tensor, ...], old: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Problem by problem, condition [...]."""
    return tuple(
        torch.where(condition.reshape(condition.shape + (1,) * (a.ndim - condition.ndim)), a, b)
        for a, b in zip(new, old, strict=True)
    )
