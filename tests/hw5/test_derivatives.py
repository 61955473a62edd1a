"""Against autograd of one state after the other."""

from dataclasses import replace

import pytest
import torch
from torch.autograd import functional

from common.envs.integration import discretize
from common.envs.systems import Acrobot, Car, PlanarQuadrotor
from hw5_planning_control.derivatives import (
    affine_scan,
    expand,
    gradient_and_hessian,
    jacobian,
    second_derivatives,
)
from tests.hw5.problems import F64, acrobot, pendulum

SYSTEMS = [Acrobot(), Car(), PlanarQuadrotor()]


def states(n: int, m: int, count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(count, n, generator=g, **F64), torch.randn(count, m, generator=g, **F64)


def one_by_one(differentiate, f, x, u, *args) -> torch.Tensor:
    """torch.autograd.functional's jacobian or hessian by z = [x; u], state by state."""
    results = []
    for x_i, u_i, *rest in zip(x, u, *args, strict=True):
        results.append(
            differentiate(
                lambda z, rest=rest: f(*z.split([len(x[0]), len(u[0])]), *rest), torch.cat([x_i, u_i])
            )
        )
    return torch.stack(results)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: type(s).__name__)
def test_derivatives_of_dynamics(system):
    step = discretize(system.dynamics, 0.1)
    x, u = states(system.n, system.m)
    second = torch.stack(
        [one_by_one(functional.hessian, lambda *z, i=i: step(*z)[i], x, u) for i in range(system.n)], 1
    )
    first = one_by_one(functional.jacobian, step, x, u)
    torch.testing.assert_close(jacobian(step, x, u), first, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(second_derivatives(step, x, u), second, rtol=1e-11, atol=1e-11)


def test_derivatives_of_a_cost_with_arguments():
    x, u = states(3, 2)
    w = torch.rand(6, 3, generator=torch.Generator().manual_seed(1), **F64)

    def cost(x, u, w):
        return (w * x.sin()).sum() * u.square().sum() + x[0] * u[1]

    g, H = gradient_and_hessian(cost, x, u, w)
    first, second = (one_by_one(d, cost, x, u, w) for d in (functional.jacobian, functional.hessian))
    torch.testing.assert_close(g, first, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(H, second, rtol=1e-12, atol=1e-12)


def test_what_does_not_depend_on_the_state_has_derivative_zero():
    x, u = states(2, 1)
    zero = x.new_zeros
    assert torch.equal(jacobian(lambda x, u: zero(2), x, u), zero(6, 2, 3))
    g, H = gradient_and_hessian(lambda x, u: 3 * u.sum(), x, u)
    assert torch.equal(g, torch.tensor([0.0, 0.0, 3.0], **F64).expand(6, 3))
    assert torch.equal(H, zero(6, 3, 3))
    assert torch.equal(second_derivatives(lambda x, u: 2 * x, x, u), zero(6, 2, 3, 3))


def test_affine_scan_is_its_recursion():
    g = torch.Generator().manual_seed(2)
    A, b = torch.randn(3, 5, 2, 2, generator=g, **F64), torch.randn(3, 5, 2, generator=g, **F64)
    y = b[:, 0]
    for t in range(5):
        y = (A[:, t] @ y[..., None])[..., 0] + b[:, t] if t else y
        torch.testing.assert_close(affine_scan(A, b)[:, t], y, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(affine_scan(A[0], b[0]), affine_scan(A, b)[0], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("problem", "batch"), [(acrobot(), ()), (pendulum(), (3,))])
def test_costates_give_the_gradient_of_the_cost(problem, batch):
    u = torch.randn(*batch, problem.horizon, 1, generator=torch.Generator().manual_seed(3), **F64)
    problem, x, u, _ = problem.start(u)
    u.requires_grad_()
    expected = torch.autograd.grad(problem.total_cost(problem.rollout(u), u).sum(), u)[0]
    torch.testing.assert_close(expand(problem, x, u).gradient(), expected, rtol=1e-10, atol=1e-10)


def test_a_jacobian_of_ones_own_is_used():
    problem = acrobot()
    x, u = problem.start(torch.zeros(50, 1, **F64))[1:3]
    marked = replace(problem, jacobian=lambda x, u: torch.full((4, 5), 7.0, **F64))
    assert torch.equal(expand(marked, x, u).F, torch.full((50, 4, 5), 7.0, **F64))
