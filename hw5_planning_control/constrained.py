"""Constraints by Lagrange multipliers: dual gradient descent and the augmented Lagrangian.

min_x f(x)  s.t.  g_i(x) = 0 (an equality) or g_i(x) <= 0,    L(x, lambda) = f(x) + lambda' g(x)

Dual gradient descent (Arrow, Hurwicz and Uzawa 1958), with the step alpha:
1. x <- argmin_x L(x, lambda)
2. lambda <- lambda + alpha g(x), the gradient of the dual, kept >= 0 for inequalities
Augmented Lagrangian (Hestenes 1969, Powell 1969; inequalities: Rockafellar 1973), with the penalty rho:
1. x <- argmin_x f(x) + (|y|^2 - |lambda|^2) / (2 rho),  y = lambda + rho g(x), kept >= 0 for inequalities
2. lambda <- y
For equalities its objective is L + rho/2 |g|^2. The curvature that it adds makes it converge where the first
needs a small alpha, or fails as L has no minimum in x. rho grows while the violation shrinks slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from common.types import require
from hw5_planning_control.derivatives import gradient_and_hessian
from hw5_planning_control.problem import Solution, TrajectoryProblem, over_batch

Function = Callable[[Tensor], Tensor]
SLOW = 0.25  # rho grows where the violation has not shrunk to this fraction in one iteration


class ConstrainedSolution(NamedTuple):
    """Of the last iteration within tol; if there is none, of that with the least violation."""

    x: Any  # [d], or the Solution of a trajectory problem
    multiplier: Tensor  # lambda [p], or [..., T+1, p]
    violation: list[
        float
    ]  # after each iteration: largest |g_i|, also of an inactive inequality with lambda_i > 0
    converged: bool  # the violation is within tol, and x is a minimum as `solve` or Newton's method has it


def next_multiplier(multiplier: Tensor, step: float, g: Tensor, equality: Tensor | bool) -> Tensor:
    """lambda + step g, and not below zero where g is no equality: [..., p]"""
    y = multiplier + step * g
    return torch.where(torch.as_tensor(equality), y, y.clamp(min=0))


def penalty(multiplier: Tensor, rho: float, g: Tensor, equality: Tensor | bool) -> Tensor:
    """What the augmented Lagrangian adds to f: [..., p] -> [...]"""
    y = next_multiplier(multiplier, rho, g, equality)
    return (y.square() - multiplier.square()).sum(-1) / (2 * rho)


def dual_gradient_descent(
    objective: Function,
    constraint: Function,
    x: Tensor,
    equality: Tensor | bool,
    step: float,
    tol: float = 1e-8,
    max_iterations: int = 1000,
) -> ConstrainedSolution:
    """f: [d] -> [], g: [d] -> [p], `equality` [p] or one for all; from x [d] and lambda = 0."""

    def argmin(x, multiplier, step):
        return newton(lambda x: objective(x) + multiplier @ constraint(x), x)

    return _ascend(argmin, constraint, x, constraint(x), equality, step, 1.0, tol, max_iterations)


def augmented_lagrangian(
    objective: Function,
    constraint: Function,
    x: Tensor,
    equality: Tensor | bool,
    rho: float = 1.0,
    growth: float = 4.0,
    tol: float = 1e-8,
    max_iterations: int = 50,
) -> ConstrainedSolution:
    """As dual_gradient_descent, with the first penalty rho and the factor by which it grows; 1 keeps it."""

    def argmin(x, multiplier, rho):
        return newton(lambda x: objective(x) + penalty(multiplier, rho, constraint(x), equality), x)

    return _ascend(argmin, constraint, x, constraint(x), equality, rho, growth, tol, max_iterations)


class TrajectoryConstraint(NamedTuple):
    """g of every step, zero or at most zero. Both functions take what the problem's costs take."""

    path: Callable[..., Tensor]  # x [n], u [m] -> g [p], for t < T
    final: Callable[..., Tensor] | None = None  # x [n] -> g [p], at T
    equality: Tensor | bool = False  # [p], or one for all

    def along(self, problem: TrajectoryProblem, x: Tensor, u: Tensor) -> Tensor:
        """g [..., T+1, p] of x [..., T+1, n], u [..., T, m]; without `final` the last row is zero."""
        g = over_batch(self.path, u.ndim - 1)(x[..., :-1, :], u, *problem.running_args())
        last = torch.zeros_like(g[..., 0, :])
        if self.final:
            last = over_batch(self.final, u.ndim - 2)(x[..., -1, :], *problem.args_at(problem.horizon))
            ok = last.shape == g[..., 0, :].shape
            require(ok, f"final must return {g.shape[-1]} numbers as path does, got {list(last.shape)}")
        return torch.cat([g, last[..., None, :]], -2)


def constrain_trajectory(
    problem: TrajectoryProblem,
    constraint: TrajectoryConstraint,
    u: Tensor,
    solve: Callable[[TrajectoryProblem, Tensor], Solution],
    rho: float = 1.0,
    growth: float = 4.0,
    tol: float = 1e-6,
    max_iterations: int = 30,
) -> ConstrainedSolution:
    """The augmented Lagrangian around a planner such as ilqr, started from u [..., T, m], then from its last
    controls. The cost in its solution is the augmented one, equal to the plain one where g holds. A plan that
    `solve` does not call converged is improved further."""
    problem, x, u, _ = problem.start(u)

    def argmin(solution, multiplier, rho):
        augmented = augmented_problem(problem, constraint, multiplier, rho)
        return solve(augmented, u if solution is None else solution.u)

    def g(solution):
        return constraint.along(problem, solution.x, solution.u)

    def minimal(solution):
        return bool(solution.converged.all())

    start, kind = constraint.along(problem, x, u), constraint.equality
    return _ascend(argmin, g, None, start, kind, rho, growth, tol, max_iterations, minimal)


def augmented_problem(
    problem: TrajectoryProblem, constraint: TrajectoryConstraint, multiplier: Tensor, rho: float
) -> TrajectoryProblem:
    """Its cost is the augmented Lagrangian; multiplier [..., T+1, p] enters as the last of `args`."""

    def cost(x, u, *args):
        *args, lam = args
        return problem.cost(x, u, *args) + penalty(
            lam, rho, constraint.path(x, u, *args), constraint.equality
        )

    def final_cost(x, *args):
        *args, lam = args
        g = constraint.final(x, *args) if constraint.final else torch.zeros_like(lam)
        return problem.final_cost(x, *args) + penalty(lam, rho, g, constraint.equality)

    return problem.with_cost(cost, (multiplier,), final_cost)


def newton(function: Function, x: Tensor) -> Tensor | None:
    """A local minimum of `function` near x [d], by scipy's trust-exact; None if it finds none."""

    def value(z: np.ndarray) -> float:
        return function(torch.from_numpy(z)).item()

    def slope(z: np.ndarray) -> np.ndarray:
        return expand(z)[0][0].numpy()

    def curvature(z: np.ndarray) -> np.ndarray:
        return expand(z)[1][0].numpy()

    def expand(z: np.ndarray) -> tuple[Tensor, Tensor]:
        z = torch.from_numpy(z)[None]
        return gradient_and_hessian(lambda x, nothing: function(x), z, z[:, :0])

    start, options = x.numpy(), {"gtol": 1e-10, "maxiter": 100}
    require(np.isfinite(value(start)), "objective must be finite at x, got nan or inf")
    result = minimize(value, start, jac=slope, hess=curvature, method="trust-exact", options=options)
    flat = abs(result.jac).max() <= 1e-6 * (1 + abs(slope(start)).max())  # rounding may keep it from 1e-10
    return torch.from_numpy(result.x) if flat else None


def _ascend(
    argmin, constraint, x, g, equality, step, growth, tol, max_iterations, minimal=lambda x: True
) -> ConstrainedSolution:
    """Both steps in turn, until no multiplier would change by more than step * tol and x is `minimal`."""
    require(0 < step < torch.inf, f"step or rho must be positive, got {step}")
    require(growth >= 1, f"growth must be at least 1, got {growth}")
    ok = g.ndim >= 1 and g.dtype == torch.float64 and bool(g.isfinite().all())
    require(ok, f"constraint must return finite float64 numbers [p] at the start, got {g}")
    kind = torch.as_tensor(equality)
    ok = kind.dtype == torch.bool and kind.shape in ((), g.shape[-1:])
    require(ok, f"equality must be a bool or {g.shape[-1]} of them, got {equality}")
    require(tol >= 0, f"tol must be at least 0, got {tol}")
    require(max_iterations >= 1, f"max_iterations must be at least 1, got {max_iterations}")
    multiplier, violation, converged = torch.zeros_like(g), [], False
    best = x, multiplier
    while not converged and len(violation) < max_iterations:
        found = argmin(x, multiplier, step)
        if found is None:
            break
        x, last = found, multiplier
        multiplier = next_multiplier(multiplier, step, constraint(x), equality)
        violation.append(((multiplier - last) / step).abs().max().item())
        if violation[-1] <= max(tol, min(violation)):
            best = x, multiplier
        converged = violation[-1] <= tol and minimal(x)
        if len(violation) > 1 and violation[-1] > SLOW * violation[-2]:
            step *= growth
    return ConstrainedSolution(*best, violation, converged)
