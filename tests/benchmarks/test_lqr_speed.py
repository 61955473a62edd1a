"""4,096 linear-quadratic problems at once, n = 4, m = 1, T = 100, beside Crocoddyl's solution of one."""

import numpy as np
import pytest
import torch

from common.envs.linear_quadratic import random_linear_quadratic
from hw5_planning_control.lqr import lqr
from tests.benchmarks.peers import in_turn

crocoddyl = pytest.importorskip("crocoddyl", reason="a peer, see tests/benchmarks/requirements.txt")
pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]
PROBLEMS, N, M, T = 4096, 4, 1, 100


def test_one_of_many_takes_no_longer_than_crocoddyls_only_one():
    """Matrices are the same at all steps of a problem, as in Crocoddyl's model, or change with every step."""
    torch.set_num_threads(1)
    s = random_linear_quadratic(T, N, M, torch.Generator().manual_seed(0), batch=(PROBLEMS,))
    once = [part[:, :1].expand_as(part) for part in s[:4]]
    model = crocoddyl.ActionModelLQR(N, M)
    problem = crocoddyl.ShootingProblem(np.ones(N), [model] * T, model)
    problem.nthreads = 1
    solver, xs, us = crocoddyl.SolverDDP(problem), [np.ones(N)] * (T + 1), [np.zeros(M)] * T
    solver.solve(xs, us, 1)
    assert solver.iter == 1

    def many():
        for _ in range(100):
            solver.solve(xs, us, 1)

    functions = {
        "4,096 problems": lambda: lqr(*once, *s[4:6]),
        "changing with time": lambda: lqr(*s[:6]),
        "100 solutions of Crocoddyl": many,
    }
    found = in_turn(functions, calls=1, rounds=7)
    for ours in ("4,096 problems", "changing with time"):
        assert found[ours] / PROBLEMS <= found["100 solutions of Crocoddyl"] / 100
