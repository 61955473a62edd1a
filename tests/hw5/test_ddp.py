"""DDP is iLQR on LQ problems, Newton's method near an optimum."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.envs.integration import discretize
from common.envs.linear_quadratic import random_linear_quadratic
from common.envs.systems import Pendulum
from hw5_planning_control.ddp import ddp
from hw5_planning_control.derivatives import expand
from hw5_planning_control.ilqr import ILQRConfig, backward, ilqr
from tests.hw5.problems import F64, acrobot, as_problem, pendulum
from tests.hw5.test_ilqr import MINIMA, zeros


@pytest.mark.parametrize("seed", range(3))
def test_an_lq_problem_takes_exactly_one_step(seed):
    g = torch.Generator().manual_seed(seed)
    problem = as_problem(random_linear_quadratic(8, 3, 2, g, growth=1.2))
    u = torch.randn(8, 2, generator=g, **F64)
    second, first = ddp(problem, u), ilqr(problem, u)
    assert int(second.iterations) == 1
    assert bool(second.converged)
    torch.testing.assert_close(second.K, first.K, rtol=1e-12, atol=1e-12)


def test_the_tensor_term_completes_the_hessian():
    """One step of the pendulum: Q is the Hessian of c(z) + c_T(f(z)) itself; iLQR's is not."""
    problem = pendulum(torch.tensor([1.0, 2.0], **F64), horizon=1)
    problem = replace(problem, dynamics=discretize(Pendulum().dynamics, 0.1))
    problem, x, u, _ = problem.start(torch.full((1, 1), 0.5, **F64))

    def J(u):
        return problem.cost(x[0], u) + problem.final_cost(problem.dynamics(x[0], u))

    exact = torch.autograd.functional.hessian(J, u[0])
    mu = torch.tensor(0.0, **F64)
    full, gauss_newton = (backward(problem, u, expand(problem, x, u, order), mu) for order in (True, False))
    torch.testing.assert_close(full.Q_uu[0], exact, rtol=1e-10, atol=1e-10)
    assert float((gauss_newton.Q_uu[0] - exact).abs()) > 1e-6


def test_one_step_squares_the_gradient_where_ilqr_only_scales_it():
    """From eight distances of acrobot's minimum, one step each: log-log slope 2 for Newton's method, 1 for
    Gauss-Newton's."""
    best = ddp(acrobot(), zeros(acrobot())).u
    distance = 10 ** torch.linspace(-5, -7.5, 8, **F64)[:, None, None]
    u = best + distance * torch.randn(50, 1, generator=torch.Generator().manual_seed(0), **F64)
    for solver, slope in ((ddp, 2.0), (ilqr, 1.0)):
        before, after = (
            solver(acrobot(), u, ILQRConfig(iterations=steps, tolerance=0)).gradient_norm.log()
            for steps in (0, 1)
        )
        assert np.polyfit(before, after, 1)[0] == pytest.approx(slope, abs=0.1)


def test_acrobot_reaches_a_known_minimum():
    solution = ddp(acrobot(), zeros(acrobot()))
    assert bool(solution.converged)
    assert float((MINIMA - solution.cost).abs().min()) < 1e-6
    assert float(solution.gradient_norm) < 1e-6
    assert bool((solution.cost_history.diff() <= 1e-12 * solution.cost_history[1:]).all())


def test_both_find_the_same_optimum_under_limits():
    problem = pendulum(u_max=3.0)
    first, second = ilqr(problem, zeros(problem)), ddp(problem, zeros(problem))
    torch.testing.assert_close(second.u, first.u, rtol=1e-5, atol=1e-5)
    assert int(second.iterations) <= int(first.iterations)


def test_a_batch_is_a_loop():
    starts = torch.tensor([[0.0, 0.0], [2.5, 0.3]], **F64)
    together = ddp(pendulum(starts), torch.zeros(20, 1, **F64))
    for i, x0 in enumerate(starts):
        alone = ddp(pendulum(x0), torch.zeros(20, 1, **F64))
        assert int(together.iterations[i]) == int(alone.iterations)
        torch.testing.assert_close(together.u[i], alone.u, rtol=1e-7, atol=1e-7)


def test_arguments_reach_the_second_derivatives():
    """x' = x + w_t u^2 with w = 1 from x = 0: f_uu = 2 w_t."""
    problem = replace(
        pendulum(torch.zeros(1, **F64), horizon=2),
        dynamics=lambda x, u, w: x + w * u.square(),
        cost=lambda x, u, w: u.square().sum(),
        final_cost=lambda x, w: x.square().sum(),
        args=(torch.tensor([1.0, 3.0, 0.0], **F64),),
    )
    problem, x, u, _ = problem.start(torch.ones(2, 1, **F64))
    assert expand(problem, x, u, second_order=True).f_zz[:, 0, 1, 1].tolist() == [2, 6]
