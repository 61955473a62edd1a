import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from common.envs.systems import CartPole
from hw5_planning_control.collocation import ContinuousProblem, collocate
from hw5_planning_control.transcription import NonlinearProgram, transcribe

METHODS = ["trapezoid", "hermite-simpson"]
ORDER = {"trapezoid": 2, "hermite-simpson": 4}
cart_pole = CartPole().dynamics  # Kelly 2017: cart 1 kg, pole 0.3 kg at 0.5 m


def f64(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def effort(x, u):
    return u.square().sum()


def integrators(x, u):
    return torch.stack([x[1], u[0]])


def parking(**changes) -> ContinuousProblem:
    """One metre from rest to rest in one second with the least int u^2: u = 6 - 12 t, cost 12."""
    fields = dict(dynamics=integrators, cost=effort, x0=f64(0, 0), control_size=1, x_final=f64(1, 0))
    return ContinuousProblem(**fields | changes)


def swing_up(**changes) -> ContinuousProblem:
    """From hanging to upright 1 m further on in 2 s, with the least int u^2."""
    ends = dict(x0=f64(0, 0, 0, 0), x_final=f64(1, math.pi, 0, 0))
    return ContinuousProblem(cart_pole, effort, control_size=1, **ends, **changes)


def observed_order(problem, T, N, method, truth=None) -> float:
    """From the costs at N, 2N (and 4N): a coarse solution starts the next finer grid."""
    solutions = [collocate(problem, T, N, method)]
    for _ in range(2 if truth is None else 1):
        finer = 2 * len(solutions[-1].u_mid)
        solutions.append(collocate(problem, T, finer, method, guess=solutions[-1].interpolate))
    assert all(s.converged for s in solutions)
    costs = [s.cost for s in solutions]
    errors = np.diff(costs) if truth is None else np.array(costs) - truth
    return math.log2(abs(errors[0] / errors[1]))


@pytest.mark.parametrize("N", [1, 2, 7])
def test_hermite_simpson_is_exact_where_states_are_cubic(N):
    solution = collocate(parking(), 1.0, N)
    assert solution.converged
    assert solution.cost == pytest.approx(12, rel=1e-12)
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    x, u = solution.interpolate(t)
    torch.testing.assert_close(u[:, 0], 6 - 12 * t)
    torch.testing.assert_close(x, torch.stack([3 * t**2 - 2 * t**3, 6 * t - 6 * t**2], 1))


@pytest.mark.parametrize("N", [2, 3, 7])
def test_trapezoid_by_hand(N):
    """Least sum w_i u_i^2 under two linear constraints: 12 / (1 - 4 h^2 + 3 h^3), so 32 for two segments."""
    h = 1 / N
    assert collocate(parking(), 1.0, N, "trapezoid").cost == pytest.approx(12 / (1 - 4 * h**2 + 3 * h**3))


@pytest.mark.parametrize("method", METHODS)
def test_order_of_convergence_on_a_regulator(method):
    """x' = u, 1/2 int x^2 + u^2 + 1/4 x(1)^2: the Riccati equation gives 1/2 tanh(1 + artanh 1/2) x0^2."""
    problem = ContinuousProblem(
        lambda x, u: u,
        lambda x, u: 0.5 * (x.square() + u.square()).sum(),
        x0=f64(2),
        control_size=1,
        final_cost=lambda x: 0.25 * x.square().sum(),
    )
    truth = 2 * math.tanh(1 + math.atanh(0.5))
    order = observed_order(problem, 1.0, 4, method, truth)
    assert order == pytest.approx(ORDER[method], abs=0.15)


def test_linear_quadratic_problem_gives_the_riccati_solution(generator):
    """n = 3, m = 2, R = 2, against the flow of the Hamiltonian matrix; u = -R^-1 B' p, cost 1/2 x0' p0."""
    n, m = 3, 2
    A, B = torch.randn(n, n + m, generator=generator, dtype=torch.float64).split([n, m], 1)
    problem = ContinuousProblem(
        lambda x, u: A @ x + B @ u, lambda x, u: 0.5 * x @ x + u @ u, x0=f64(1, -2, 0.5), control_size=m
    )
    solution = collocate(problem, 1.0, 40)
    hamiltonian = torch.cat([torch.cat([A, -B @ B.T / 2], 1), torch.cat([-torch.eye(n), -A.T], 1)])
    flow = torch.linalg.matrix_exp(hamiltonian)  # of [x; p] from 0 to 1, where p(1) = 0
    p0 = -torch.linalg.solve(flow[n:, n:], flow[n:, :n] @ problem.x0)
    assert solution.cost == pytest.approx(0.5 * (problem.x0 @ p0).item(), rel=1e-6)
    torch.testing.assert_close(solution.u[0], -B.T @ p0 / 2, rtol=1e-3, atol=0)  # slower at the ends
    torch.testing.assert_close(solution.x[-1], flow[:n] @ torch.cat([problem.x0, p0]), rtol=0, atol=1e-6)


def test_swing_up_reaches_the_known_optimum():
    """58.80767 by an interior-point solver on the same grid. Measured: 33 iterations, 1.8 s on a core."""
    solution = collocate(swing_up(u_low=-20.0, u_high=20.0), 2.0, 100)
    assert solution.converged
    assert solution.cost == pytest.approx(58.80767, abs=1e-3)
    assert solution.violation < 1e-8


@pytest.mark.parametrize(("N", "cost"), [(25, 60.0355), (50, 59.1478)])
def test_swing_up_by_trapezoid(N, cost):
    assert collocate(swing_up(), 2.0, N, "trapezoid").cost == pytest.approx(cost, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_order_of_convergence_on_the_swing_up(method):
    assert observed_order(swing_up(), 2.0, 80, method) == pytest.approx(ORDER[method], abs=0.15)


def test_executed_controls_reach_the_goal():
    """Integrated finely, the plan misses the goal by O(h^4), though the falling pole amplifies it."""

    def miss(N):
        plan, h = collocate(swing_up(), 2.0, N), 2 / 200
        u = plan.interpolate(torch.linspace(0, 2, 401, dtype=torch.float64))[1]
        x = torch.zeros(4, dtype=torch.float64)
        for left, mid, right in zip(u[:-1:2], u[1::2], u[2::2], strict=True):
            k1 = cart_pole(x, left)
            k2 = cart_pole(x + h / 2 * k1, mid)
            k3 = cart_pole(x + h / 2 * k2, mid)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + cart_pole(x + h * k3, right))
        return (x - f64(1, math.pi, 0, 0)).norm()

    coarse, fine = miss(25), miss(50)
    assert fine < 0.1
    assert coarse / fine > 2**3.5


def test_limits_hold_and_cost_what_they_must():
    """|u| <= 4.8 saturates until s1 before half-time, s1^2 = 3/4 - 3/4.8, and costs 4.8^2 (1 - 4/3 s1)."""
    solution = collocate(parking(u_low=-4.8, u_high=4.8), 1.0, 50)
    assert solution.converged
    assert solution.u.abs().max() <= 4.8
    assert solution.cost == pytest.approx(4.8**2 * (1 - 4 / 3 * math.sqrt(0.75 - 3 / 4.8)), abs=1e-4)


def test_a_free_end_costs_less_and_one_limit_is_enough():
    assert collocate(parking(x_final=None), 1.0, 5).cost == pytest.approx(0, abs=1e-12)
    assert collocate(parking(u_high=4.8), 1.0, 50).cost > 12.01


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_unit_of_cost_does_not_matter(unit):
    plain = collocate(swing_up(), 2.0, 10)
    scaled = collocate(replace(swing_up(), cost=lambda x, u: unit * effort(x, u)), 2.0, 10)
    assert scaled.converged
    torch.testing.assert_close(scaled.u, plain.u, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_derivatives_are_those_of_finite_differences(method, generator):
    N, eps = 3, 1e-6
    problem = ContinuousProblem(
        cart_pole,
        lambda x, u: (x[0] * u[0]).sin() + x.square().sum(),
        x0=f64(0, 0, 0, 0),
        control_size=1,
        final_cost=lambda x: x.pow(3).sum(),
    )
    transcription = transcribe(method, 2.0, N)
    program = NonlinearProgram(problem, transcription, N)
    M = len(transcription.time)
    z = program.start(*torch.randn(M, 5, generator=generator, dtype=torch.float64).split([4, 1], 1))
    multiplier = torch.randn(len(program.defects(z)), generator=generator, dtype=torch.float64).numpy()

    def differences(function):
        steps = eps * np.eye(len(z))
        return np.stack([(function(z + step) - function(z - step)) / (2 * eps) for step in steps], -1)

    close = dict(rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(program.gradient(z), differences(program.objective), **close)
    np.testing.assert_allclose(program.hessian(z).toarray(), differences(program.gradient), **close)
    np.testing.assert_allclose(program.jacobian(z).toarray(), differences(program.defects), **close)
    curvature = differences(lambda y: program.jacobian(y).T @ multiplier)
    np.testing.assert_allclose(program.defects_hessian(z, multiplier).toarray(), curvature, **close)


def test_what_does_not_converge_says_so():
    cut = collocate(swing_up(), 2.0, 25, max_iterations=3)
    assert not cut.converged
    assert cut.x.isfinite().all()
    out_of_reach = collocate(parking(u_low=-3.0, u_high=3.0), 1.0, 5, max_iterations=30)
    assert not out_of_reach.converged
    assert out_of_reach.violation > 1e-3


def test_what_diverges_returns_its_least_violation():
    """A goal out of reach: whatever is accepted on the way, no shorter run came closer."""
    problem = swing_up(u_low=-3.0, u_high=3.0)
    violations = [collocate(problem, 2.0, 10, max_iterations=k).violation for k in (5, 10, 20, 40)]
    assert all(a >= b for a, b in pairwise(violations))


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_cost_without_minimum_stops_with_finite_states(sign):
    problem = ContinuousProblem(lambda x, u: u, lambda x, u: sign * x.sum(), x0=f64(1), control_size=1)
    solution = collocate(problem, 1.0, 5)
    assert not solution.converged
    assert solution.x.isfinite().all()


def test_it_steps_back_from_where_the_dynamics_are_undefined():
    """x' = u, defined for x > 0.3 only and pulled towards -5: it comes close, and no further."""
    problem = ContinuousProblem(
        lambda x, u: torch.where(x < 0.3, torch.nan, u),
        lambda x, u: (x + 5).square().sum() + 0.01 * u.square().sum(),
        x0=f64(1),
        control_size=1,
    )
    solution = collocate(problem, 1.0, 10, max_iterations=50)
    assert 0.3 <= solution.x.min() < 0.4
    assert math.isfinite(solution.cost)


def test_a_derivative_without_value_stops_it_at_the_last_point():
    """Below 1/2 the cost is defined; its derivative is 0 times that of an undefined root."""
    problem = ContinuousProblem(
        lambda x, u: u,
        lambda x, u: (x + torch.where(x > 0.5, (x - 0.5).sqrt(), 0.0) + u.square()).sum(),
        x0=f64(1),
        control_size=1,
    )
    solution = collocate(problem, 5.0, 5)
    assert not solution.converged
    assert solution.x.isfinite().all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x0": torch.zeros(2)}, "x0 must be a float64 tensor"),
        ({"x0": f64()}, "x0 must be a float64 tensor"),
        ({"x0": f64(0, math.nan)}, "x0 must be finite"),
        ({"x_final": f64(1)}, "x_final must be a float64 tensor"),
        ({"control_size": 0}, "control_size must be"),
        ({"u_low": 1.0, "u_high": -1.0}, "u_low must be below u_high"),
        ({"u_low": f64(1, 2)}, "u_low must be a number"),
        ({"u_high": math.nan}, "u_high must be a number"),
        ({"dynamics": lambda x, u: x * math.nan}, "dynamics and its derivatives must be finite"),
        ({"dynamics": lambda x, u: x[:1]}, r"dynamics must return \[2\]"),
        ({"dynamics": lambda x, u: x.float()}, "dynamics must return"),
        ({"cost": lambda x, u: u}, r"cost must return \[\]"),
        ({"cost": lambda x, u: x.sum().sqrt()}, "cost and its derivatives must be finite"),
        ({"final_cost": lambda x: x}, r"final_cost must return \[\]"),
    ],
)
def test_bad_problems_are_named(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        collocate(parking(**change), 1.0, 5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"T": 0.0}, "T must be positive"),
        ({"T": math.nan}, "T must be positive"),
        ({"N": 0}, "N must be an integer"),
        ({"N": 2.5}, "N must be an integer"),
        ({"method": "euler"}, "method must be one of"),
        ({"tol": math.nan}, "tol must be positive, got nan"),
        ({"tol": -1.0}, "tol must be positive, got -1"),
        ({"max_iterations": -3}, "max_iterations must be at least 1, got -3"),
        ({"guess": lambda t: (torch.zeros(len(t), 2), torch.zeros(len(t), 2))}, "guess must give"),
        ({"guess": lambda t: (t[:, None].expand(-1, 2) * math.inf, t[:, None])}, "guess must give"),
    ],
)
def test_bad_arguments_are_named(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        collocate(parking(), **{"T": 1.0, "N": 5} | change)
