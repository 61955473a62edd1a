"""Direct collocation: optimise states and controls together, with the dynamics as constraints.

min sum_t c(x_t, u_t)  s.t.  x_t = f(x_{t-1}, u_{t-1})   (the lecture; shooting optimises the controls alone)

in continuous time, on N segments, by the trapezoid (order 2) or Hermite-Simpson (order 4), whose equations
are in transcription.py. The solver is scipy's trust-constr: sequential quadratic programming in a trust
region (Lalee, Nocedal and Plantenga 1998), inside a barrier where there are limits (Byrd, Hribar and Nocedal
1999), with exact second derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, get_args

import torch
from scipy.interpolate import CubicHermiteSpline
from scipy.optimize import Bounds, NonlinearConstraint, minimize
from torch import Tensor

from common.types import require
from hw5_planning_control.transcription import ContinuousProblem, Method, NonlinearProgram, transcribe

Guess = Callable[[Tensor], tuple[Tensor, Tensor]]  # times [S] in seconds -> x [S, n], u [S, m]
RUNAWAY = 1e12  # no unknown of a bounded problem is so large


class CollocationSolution(NamedTuple):
    t: Tensor  # [N+1] seconds
    x: Tensor  # [N+1, n]
    u: Tensor  # [N+1, m]
    u_mid: Tensor  # [N, m] in the middle of each segment
    x_dot: Tensor  # [N+1, n] = f(x, u)
    cost: float
    violation: float  # the largest defect of a constraint, limits included
    iterations: int
    converged: bool

    def interpolate(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """x [S, n], u [S, m] at times [S] in seconds, by the polynomials that the method assumes.

        Hermite-Simpson: x cubic, u quadratic. The same formulas give the trapezoid's, quadratic and linear.
        """
        x = CubicHermiteSpline(self.t.numpy(), self.x.numpy(), self.x_dot.numpy())(time.numpy())
        k = (torch.searchsorted(self.t, time.contiguous(), right=True) - 1).clamp(0, len(self.u_mid) - 1)
        s = ((time - self.t[k]) / (self.t[k + 1] - self.t[k]))[:, None]  # from 0 to 1 in the segment
        left, mid, right = self.u[k], self.u_mid[k], self.u[k + 1]
        return torch.from_numpy(x), (1 - s) * (1 - 2 * s) * left + 4 * s * (1 - s) * mid + s * (
            2 * s - 1
        ) * right


def collocate(
    problem: ContinuousProblem,
    T: float,
    N: int,
    method: Method = "hermite-simpson",
    guess: Guess | None = None,
    tol: float = 1e-8,
    max_iterations: int = 500,
) -> CollocationSolution:
    """The local minimum near `guess`, by default the straight line from x0 to x_final with u = 0.

    T seconds in N segments. A coarse solution's `interpolate` is a good guess on a finer grid. converged: the
    gradient of the Lagrangian and the violation of every constraint are below `tol`; otherwise what comes
    back is, of all points that the solver accepted, that of the least violation, or of those within `tol`
    that of the least cost.
    """
    require(0 < T < float("inf"), f"T must be positive, in seconds, got {T}")
    require(isinstance(N, int) and N >= 1, f"N must be an integer of at least 1 segment, got {N!r}")
    require(method in get_args(Method), f"method must be one of {get_args(Method)}, got {method!r}")
    require(0 < tol < float("inf"), f"tol must be positive, got {tol}")
    require(max_iterations >= 1, f"max_iterations must be at least 1, got {max_iterations}")
    transcription = transcribe(method, T, N)
    program = NonlinearProgram(problem, transcription, N)
    guess = guess or straight_line(problem, T)
    z = program.start(*guess(torch.from_numpy(transcription.time)))
    accepted = [z]

    def accept(point, state):
        if abs(point).max() > RUNAWAY:
            raise FloatingPointError
        accepted.append(point)

    try:
        result = minimize(
            program.objective,
            z,
            method="trust-constr",
            jac=program.gradient,
            hess=program.hessian,
            constraints=NonlinearConstraint(program.defects, 0, 0, program.jacobian, program.defects_hessian),
            bounds=Bounds(*program.limits()) if problem.limited else None,  # none: no barrier
            callback=accept,
            options={
                "gtol": tol,
                "barrier_tol": tol,
                "xtol": 1e-14,
                "maxiter": max_iterations,
                "initial_tr_radius": len(z) ** 0.5,  # about one unit for every unknown
            },
        )
        z, iterations, converged = result.x, result.nit, result.status == 1
    except FloatingPointError:  # a derivative that is not finite, or a point that runs away
        iterations, converged = len(accepted) - 1, False
    if not converged:
        z = min(accepted, key=lambda z: (max(program.violation(z), tol), program.cost(z)))
    x, u = program.nodes(z)
    return CollocationSolution(
        t=torch.from_numpy(transcription.time[: N + 1]),
        x=x[: N + 1],
        u=u[: N + 1],
        u_mid=u[N + 1 :] if method == "hermite-simpson" else (u[1:] + u[:-1]) / 2,
        x_dot=program.rates(z)[: N + 1],
        cost=program.cost(z),
        violation=program.violation(z),
        iterations=iterations,
        converged=converged,
    )


def straight_line(problem: ContinuousProblem, T: float) -> Guess:
    """From x0 to x_final, or resting at x0, with the control nearest to zero that is allowed."""
    end = problem.x0 if problem.x_final is None else problem.x_final
    u = problem.x0.new_zeros(problem.control_size).clamp(*problem.limits())
    return lambda time: (torch.lerp(problem.x0, end, time[:, None] / T), u.expand(len(time), -1))
