"""Recorded functions and their derivatives are torch's; what cannot be recorded is left to torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.envs.integration import discretize, discretize_jacobian
from common.envs.mujoco_dynamics import MujocoDynamics
from common.envs.systems import Acrobot, Car, CartPole, DoubleIntegrator, Pendulum, PlanarQuadrotor
from hw5_planning_control.derivatives import gradient_and_hessian, jacobian, second_derivatives
from hw5_planning_control.ilqr import ilqr
from hw5_planning_control.problem import over_batch
from hw5_planning_control.recorder import Recorded, record, recorded
from tests.hw5.problems import F64, pendulum

SYSTEMS = [Acrobot(), Car(), CartPole(), DoubleIntegrator(2), Pendulum(damping=0.1), PlanarQuadrotor()]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **F64)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: type(s).__name__)
def test_systems_and_their_derivatives_are_torchs(system):
    """One step of RK4: values, slopes and curvatures; the slopes also as the recorded hand-written ones."""
    f = discretize(system.dynamics, 0.1)
    x, u = normal(6, system.n), normal(6, system.m, seed=1)
    played = recorded(f, x[0], u[0])
    assert isinstance(played, Recorded)
    close = {"rtol": 1e-12, "atol": 1e-12}
    with torch.no_grad():
        torch.testing.assert_close(over_batch(played, 1)(x, u), f(x, u), **close)
    torch.testing.assert_close(jacobian(played, x, u), jacobian(f, x, u), **close)
    torch.testing.assert_close(second_derivatives(played, x, u), second_derivatives(f, x, u), **close)
    by_hand = record(discretize_jacobian(system.dynamics, system.jacobian, 0.1), x[0], u[0])
    np.testing.assert_allclose(by_hand(x.numpy(), u.numpy()), jacobian(f, x, u).numpy(), **close)


def everything(x: torch.Tensor, u: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
    """Of x [3], u [2], W [3, 3]: each operation that is known."""
    a, b, c = x.unbind()
    moved = torch.cat([x.flip(0)[1:], u.repeat(2).reshape(2, 2).T.diagonal(), W[:, 1].expand(2, 3)[0]])
    products = W @ x + (W @ W)[0] + (W[None] @ W[None])[0, 1] + (x @ W @ x)
    limits = (
        x.maximum(W[0])
        + x.minimum(W[1])
        + x.clamp(-0.5, 0.5)
        + x.clamp(min=0.1)
        + x.clamp(max=0.2)
        + x.relu()
        + x.abs()
    )
    powers = torch.stack(
        [a.remainder(0.7), b.remainder(c), a**2, b**3, (1 + c * c) ** 0.5, 2 - a, 1 / (2 + b * b)]
    )
    chosen = torch.where(x > 0.1, x.sin(), -x.cos())
    waves = x.tanh() + (0.1 * x).exp() + (x * x + 1).log() + (x * x + 1).sqrt() + (0.3 * x).tan()
    less = torch.where(x <= u[0], x, 2 * x) + torch.where(x >= u[1], x, 3 * x) + torch.where(x < 0, x, 0 * x)
    sums = torch.stack(
        [
            W.sum(),
            x[0].sum(),
            W[:1, :0] @ x[:0] @ u[:1],
            W.sum(0)[1],
            W.sum(-1, keepdim=True)[2, 0],
            x.new_tensor([3.0])[0],
        ]
    )
    squeezed = x[:, None].squeeze(1).split([1, 2])[1] + torch.zeros_like(u) + x.new_ones(2)
    parts = (moved, products, limits, powers, chosen, waves, less, sums, squeezed)
    return torch.cat([part.flatten() for part in parts])


def test_every_operation_is_torchs():
    x, u, W = normal(5, 3), normal(5, 2, seed=1), normal(5, 3, 3, seed=2)
    program = record(everything, x[0], u[0], W[0])
    expected = torch.stack([everything(*z) for z in zip(x, u, W, strict=True)])
    found = torch.from_numpy(program(x.numpy(), u.numpy(), W.numpy()))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    slopes = torch.from_numpy(program.jacobian(5)(x.numpy(), u.numpy(), W.numpy()))
    for z, slope in zip(zip(x, u, W, strict=True), slopes, strict=True):
        by_x, by_u, _ = torch.autograd.functional.jacobian(everything, z)
        torch.testing.assert_close(slope, torch.cat([by_x, by_u], -1), rtol=1e-11, atol=1e-11)


def test_a_cost_and_its_curvature_are_torchs():
    def cost(x, u, w):
        return (w * x.sin()).sum() * u.square().sum() + x[0] * u[1]

    x, u, w = normal(6, 3), normal(6, 2, seed=1), normal(6, 3, seed=2)
    played = recorded(cost, x[0], u[0], w[0])
    assert isinstance(played, Recorded)
    found, expected = gradient_and_hessian(played, x, u, w), gradient_and_hessian(cost, x, u, w)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def network(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    return normal(2, 60) @ (normal(60, 60) @ (normal(60, 2) @ x).tanh()).tanh()


def outside(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    return x + torch.from_numpy(np.sin(x.numpy()))


def in_place(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    y = torch.zeros_like(x)
    y[0] = x[1]
    return y


@pytest.mark.parametrize(
    "function",
    [
        network,
        outside,
        in_place,
        lambda x, u: x if x[0] > 0 else -x,
        lambda x, u: x * x[0].item(),
        lambda x, u: x.cumsum(0),
        lambda x, u: x**1.5 + 2**x,
        lambda x, u: 2**x + x**u,
        lambda x, u: torch.add(x, x, alpha=2),
    ],
)
def test_what_the_tape_cannot_follow_is_left_to_torch(function):
    """Large, outside of torch, in place, different from state to state, or not known."""
    assert record(function, normal(2).abs(), normal(1)) is None


def test_only_double_precision_is_recorded():
    assert record(lambda x, u: x + u, torch.zeros(1), torch.zeros(1)) is None


def test_mujoco_is_left_to_itself():
    system = MujocoDynamics("InvertedPendulum-v5")
    assert record(system, system.x0 + 0.01, torch.zeros(system.m, **F64)) is None


def test_a_recorded_problem_has_the_solution_of_one_that_is_not():
    """The same dynamics and costs with something unknown, times zero, in each; a batch with limits."""
    starts = torch.tensor([[0.0, 0.0], [2.5, 0.3]], **F64)
    problem, u = pendulum(starts, u_max=3.0), torch.zeros(20, 1, **F64)
    dynamics, cost, final_cost = problem.dynamics, problem.cost, problem.final_cost
    unknown = replace(
        problem,
        dynamics=lambda x, u: dynamics(x, u) + 0 * x.cumsum(0),
        cost=lambda x, u: cost(x, u) + 0 * x.cumsum(0).sum(),
        final_cost=lambda x: final_cost(x) + 0 * x.cumsum(0).sum(),
    )
    assert isinstance(problem.start(u)[0].dynamics, Recorded)
    assert not isinstance(unknown.start(u)[0].dynamics, Recorded)
    found, expected = ilqr(problem, u), ilqr(unknown, u)
    assert found.iterations.tolist() == expected.iterations.tolist()
    torch.testing.assert_close(found.cost_history, expected.cost_history, rtol=1e-10, atol=0)
    torch.testing.assert_close(found.u, expected.u, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.K, expected.K, rtol=1e-6, atol=1e-6)


def test_what_a_function_remembers_may_change_between_solutions():
    """A problem is recorded when it is solved, not when it is made."""
    weight = torch.ones(2, **F64)
    problem = replace(pendulum(), final_cost=lambda x: 20 * (weight * x.square()).sum())
    u = torch.zeros(20, 1, **F64) + 0.3
    before = ilqr(problem, u).cost
    weight *= 0
    assert float(ilqr(problem, u).cost) < float(before)
