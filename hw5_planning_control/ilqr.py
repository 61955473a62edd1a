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

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from common.types import require
from hw5_planning_control.box_qp import box_qp, free_block
from hw5_planning_control.derivatives import Expansion, expand
from hw5_planning_control.problem import Solution, TrajectoryProblem, over_batch
from hw5_planning_control.small_matrices import dot, mv


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
        for name, low in (("iterations", 0), ("tolerance", 0), ("mu_min", 0), ("line_search", 1)):
            require(getattr(self, name) >= low, f"{name} must be at least {low}, got {getattr(self, name)}")
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
    """From u_init [..., T, m]. The cost never rises; `converged` says whether dJ/du vanished."""
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
    eye = torch.eye(n + 1 + m, dtype=u.dtype, device=u.device)
    I_y = eye[: n + 1, : n + 1].expand(*V.shape)
    stay = mu[..., None, None] * eye[n + 1 :]
    f_zz = None if e.f_zz is None else pad(e.f_zz, (1, 0, 1, 0)).flatten(-2).mT.unbind(-3)
    steps = zip(F.unbind(-3), C.unbind(-3), u.unbind(-2), strict=True)
    Gs, Q_us, infos = [], [], []
    for t, (F_t, C_t, u_t) in reversed(list(enumerate(steps))):
        Q = C_t + F_t.mT @ V @ F_t
        if f_zz is not None:
            Q = Q + mv(f_zz[t], V[..., 1:, 0]).unflatten(-1, Q.shape[-2:])
        Q_u = Q.narrow(-2, n + 1, m)
        if regularize == "state":
            stay = mu[..., None, None] * F_t[..., n + 1 :].mT @ F_t
        Q_uy, Q_uu = (Q_u + stay).split((n + 1, m), -1)
        L, info = torch.linalg.cholesky_ex(Q_uu)
        if problem.limited:
            G = _limited_gains(problem, Q_uy, Q_uu, info, u_t)
        else:
            G = -torch.cholesky_solve(Q_uy, L)
        I_G = torch.cat([I_y, G], -2)
        V = I_G.mT @ Q @ I_G
        Gs.append(G)
        Q_us.append(Q_u)
        infos.append(info)
    G, Q_u = (torch.stack(parts[::-1], u.ndim - 2) for parts in (Gs, Q_us))
    K, k, Q_uu = G[..., 1:], G[..., 0], Q_u[..., n + 1 :]
    definite = (torch.stack(infos) == 0).all(0)
    return Gains(K, k, Q_uu, (k * Q_u[..., 0]).sum((-2, -1)), 0.5 * dot(k, mv(Q_uu, k)).sum(-1), definite)


def _prepend(matrix: Tensor, vector: Tensor | None = None) -> Tensor:
    """[[0, vector'], [vector, matrix]]"""
    padded = pad(matrix, (1, 0, 1, 0))
    if vector is not None:
        padded[..., 0, 1:] = padded[..., 1:, 0] = vector
    return padded


def _limited_gains(problem: TrajectoryProblem, Q_uy: Tensor, Q_uu: Tensor, info: Tensor, u: Tensor) -> Tensor:
    """[k, K] within the limits around u [..., m]."""
    eye = torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)
    Q_uu = torch.where((info == 0)[..., None, None], Q_uu, eye)  # the gains of the others are not used
    k, free = box_qp(Q_uu, Q_uy[..., 0], *problem.limits_around(u))
    K = -torch.linalg.solve_ex(free_block(Q_uu, free), Q_uy[..., 1:] * free[..., None]).result
    return torch.cat([k[..., None], K], -1)


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
    step = over_batch(problem.dynamics, u.ndim - 2)
    x_new, u_new = [problem.x0], []
    target = (u + alpha * gains.k).unbind(-2)
    for t, (K, x_t, u_t) in enumerate(zip(gains.K.unbind(-3), x.unbind(-2)[:-1], target, strict=True)):
        u_new.append(problem.clip(u_t + mv(K, x_new[-1] - x_t)))
        x_new.append(step(x_new[-1], u_new[-1], *problem.args_at(t)))
    return torch.stack(x_new, -2), torch.stack(u_new, -2)


def _where(condition: Tensor, new: tuple[Tensor, ...], old: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Problem by problem, condition [...]."""
    return tuple(
        torch.where(condition.reshape(condition.shape + (1,) * (a.ndim - condition.ndim)), a, b)
        for a, b in zip(new, old, strict=True)
    )
