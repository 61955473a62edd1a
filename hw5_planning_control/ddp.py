"""Differential dynamic programming (Mayne 1966): iLQR with the second derivatives of the dynamics.

Q_t = C_t + F_t' V_{t+1} F_t + sum_i v_{t+1,i} d2f_i/dz2

The last term makes the expansion the cost's own to second order. So DDP converges quadratically, as Newton's
method does, where iLQR, which is Gauss-Newton, converges linearly. The term may make Q_uu indefinite far from
an optimum; then mu grows as in iLQR. Everything else is iLQR's: see hw5_planning_control.ilqr.
"""

from __future__ import annotations

from torch import Tensor

from hw5_planning_control.ilqr import ILQRConfig, solve
from hw5_planning_control.problem import Solution, TrajectoryProblem


def ddp(problem: TrajectoryProblem, u_init: Tensor, config: ILQRConfig | None = None) -> Solution:
    """From u_init [..., T, m]. The cost never rises; `converged` as in ilqr."""
    return solve(problem, u_init, config or ILQRConfig(), second_order=True)
