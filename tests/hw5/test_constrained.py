import itertools
import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from hw5_planning_control.constrained import (
    TrajectoryConstraint,
    augmented_lagrangian,
    constrain_trajectory,
    dual_gradient_descent,
)
from hw5_planning_control.ilqr import ILQRConfig, ilqr
from hw5_planning_control.problem import TrajectoryProblem


def f64(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def nearest(x):
    """1/2 |x|^2, with x_1 + x_2 = 2: the nearest point is (1, 1), lambda = -1."""
    return 0.5 * x @ x


def on_the_line(x):
    return x.sum(-1, keepdim=True) - 2


class QuadraticProgram:
    """min 1/2 x'Px + q'x with A x - b = 0 in the first rows, A x - b <= 0 in the others."""

    def __init__(self, d: int, p: int, equalities: int, seed: int):
        g = torch.Generator().manual_seed(seed)
        root, self.A = torch.randn(d, d, generator=g).double(), torch.randn(p, d, generator=g).double()
        self.P = root @ root.T / d + torch.eye(d, dtype=torch.float64)
        self.q, self.b = 3 * torch.randn(d, generator=g).double(), torch.rand(p, generator=g).double()
        self.equality = torch.arange(p) < equalities

    def objective(self, x):
        return 0.5 * x @ self.P @ x + self.q @ x

    def constraint(self, x):
        return self.A @ x - self.b

    def kkt(self):
        """x, lambda: one linear system for each set of active constraints, and one of them is optimal."""
        d, p = len(self.q), len(self.b)
        for extra in itertools.product([False, True], repeat=int((~self.equality).sum())):
            active = torch.cat([self.equality[self.equality], torch.tensor(extra, dtype=torch.bool)])
            A, multiplier = self.A[active], torch.zeros(p, dtype=torch.float64)
            KKT = torch.cat([torch.cat([self.P, A.T], 1), torch.cat([A, A.new_zeros(len(A), len(A))], 1)])
            solution = torch.linalg.solve(KKT, torch.cat([-self.q, self.b[active]]))
            x, multiplier[active] = solution[:d], solution[d:]
            feasible = (self.constraint(x)[~active] <= 0).all()
            if feasible and (multiplier[~self.equality] >= 0).all():
                return x, multiplier
        raise AssertionError("no set of active constraints is optimal")

    def largest_step(self) -> float:
        """2 over the curvature of the dual, A P^-1 A'."""
        return 2 / torch.linalg.eigvalsh(self.A @ torch.linalg.solve(self.P, self.A.T))[-1].item()


@pytest.mark.parametrize("step", [0.1, 0.4, 0.9, 1.1])
def test_dual_gradient_descent_by_hand(step):
    """x = -lambda (1, 1), so the violation 2 + 2 lambda changes by 1 - 2 alpha in each iteration."""
    solution = dual_gradient_descent(nearest, on_the_line, f64(0, 0), True, step, max_iterations=8)
    expected = [2 * abs(1 - 2 * step) ** k for k in range(8)]
    assert solution.violation == pytest.approx(expected)


@pytest.mark.parametrize("rho", [0.1, 1.0, 100.0])
def test_augmented_lagrangian_by_hand(rho):
    """The violation shrinks by 1 / (1 + 2 rho) in each iteration, whatever rho."""
    solution = augmented_lagrangian(
        nearest, on_the_line, f64(0, 0), True, rho, growth=1.0, tol=0, max_iterations=4
    )
    expected = [2 / (1 + 2 * rho) ** k for k in range(1, 5)]
    assert solution.violation == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_both_converge_to_the_kkt_point_of_a_quadratic_program(seed):
    program = QuadraticProgram(d=5, p=3, equalities=1, seed=seed)
    x, multiplier = program.kkt()
    stated = (program.objective, program.constraint, torch.zeros(5, dtype=torch.float64), program.equality)
    dual = dual_gradient_descent(*stated, 0.8 * program.largest_step(), tol=1e-7)
    for solution in (dual, augmented_lagrangian(*stated)):
        assert solution.converged
        torch.testing.assert_close(solution.x, x, rtol=0, atol=1e-6)
        torch.testing.assert_close(solution.multiplier, multiplier, rtol=0, atol=1e-6)


def test_augmented_lagrangian_convexifies():
    """-x_1 x_2 on x_1 + x_2 = 2: L has no minimum in x; with rho = 2 the violation shrinks by 1 - 2 rho."""

    def saddle(x):
        return -x.prod()

    solution = augmented_lagrangian(saddle, on_the_line, f64(0, 1), True, rho=2.0, growth=1.0)
    assert solution.converged
    torch.testing.assert_close(solution.x, f64(1, 1), rtol=0, atol=1e-7)
    torch.testing.assert_close(solution.multiplier, f64(1), rtol=0, atol=1e-7)
    assert solution.violation[1] / solution.violation[0] == pytest.approx(1 / 3)
    assert not dual_gradient_descent(saddle, on_the_line, f64(0, 1), True, 0.1).converged


def test_inactive_inequalities_cost_nothing():
    solution = augmented_lagrangian(nearest, lambda x: x - 1, f64(3, 3), False)
    assert solution.converged
    torch.testing.assert_close(solution.x, f64(0, 0), rtol=0, atol=1e-8)
    assert solution.multiplier.tolist() == [0, 0]


def test_a_growing_penalty_needs_fewer_iterations():
    few, many = (
        augmented_lagrangian(nearest, on_the_line, f64(0, 0), True, 0.1, growth, tol=1e-4, max_iterations=100)
        for growth in (4.0, 1.0)
    )
    assert few.converged
    assert many.converged
    assert len(few.violation) < len(many.violation) / 4


def test_constraints_that_contradict_do_not_converge():
    solution = augmented_lagrangian(nearest, lambda x: torch.stack([x[0] - 1, x[0] + 1]), f64(0, 0), True)
    assert not solution.converged
    assert math.isfinite(solution.violation[-1])


T, DT = 12, 0.25


def glide(x, u):
    """A point mass in the plane, one Euler step."""
    return torch.cat([x[:2] + DT * x[2:], x[2:] + DT * u])


def crossing(x0: torch.Tensor) -> TrajectoryProblem:
    """From x0 to rest near (3, 0): the straight way leads through a disc of radius 0.5 around (1.5, 0)."""
    goal = f64(3, 0, 0, 0)
    return TrajectoryProblem(
        glide, lambda x, u: 0.1 * u @ u, lambda x: 50 * (x - goal).square().sum(), x0=x0, horizon=T
    )


def inside(x, *u):
    """0.25 - |position - centre|^2, at most zero outside the disc."""
    return 0.25 - (x[:2] - f64(1.5, 0)).square().sum(-1, keepdim=True)


START = f64(0, 0.1, 0, 0)  # a little off the axis, so that one way round is shorter
REST = torch.zeros(T, 2, dtype=torch.float64)


def test_a_goal_is_met_by_the_least_controls():
    """Least |u| with x_T = goal: u = G'(G G')^-1 goal, where x_T = G u."""
    goal = f64(1, 2, 0, 0)
    problem = TrajectoryProblem(
        glide, lambda x, u: 0.5 * u @ u, lambda x: 0 * x.sum(), x0=f64(0, 0, 0, 0), horizon=T
    )
    reached = TrajectoryConstraint(lambda x, u: 0 * x, lambda x: x - goal, equality=True)
    solution = constrain_trajectory(problem, reached, REST, ilqr, tol=1e-9)
    G = torch.func.jacrev(lambda u: problem.rollout(u)[-1])(REST).flatten(1)
    assert solution.converged
    torch.testing.assert_close(solution.x.u.flatten(), torch.linalg.pinv(G) @ goal, rtol=0, atol=1e-7)


def test_a_trajectory_goes_round_the_obstacle_at_a_kkt_point():
    """The gradient of cost + lambda' g vanishes, and lambda > 0 only where the disc is touched."""
    problem = crossing(START)
    free = ilqr(problem, REST)
    assert max(inside(x) for x in free.x) > 0.1
    solution = constrain_trajectory(problem, TrajectoryConstraint(inside, inside), REST, ilqr)
    x, u, multiplier = solution.x.x, solution.x.u.clone().requires_grad_(), solution.multiplier
    assert solution.converged
    assert max(inside(state) for state in x) < 1e-6
    assert free.cost < problem.total_cost(x, solution.x.u) < 3 * free.cost

    states = problem.rollout(u)
    g = torch.stack([inside(state) for state in states])
    lagrangian = problem.total_cost(states, u) + (multiplier * g).sum()
    (gradient,) = torch.autograd.grad(lagrangian, u)
    assert gradient.abs().max() < 1e-5
    assert multiplier.min() >= 0
    assert multiplier.max() > 0.01
    assert (multiplier * g).abs().max() < 1e-5


def test_a_batch_of_trajectories_is_each_of_them():
    starts = torch.stack([START, f64(0, -0.3, 0, 0)])
    constraint = TrajectoryConstraint(inside, inside)
    batch = constrain_trajectory(
        crossing(starts), constraint, REST.expand(2, T, 2), ilqr, growth=1.0, rho=10.0
    )
    assert batch.converged
    for start, x in zip(starts, batch.x.x, strict=True):
        one = constrain_trajectory(crossing(start), constraint, REST, ilqr, growth=1.0, rho=10.0)
        torch.testing.assert_close(x, one.x.x, rtol=0, atol=1e-4)


def test_arguments_that_change_with_time_reach_the_constraint():
    """x' = x + u with the corridor x_t >= t: the least controls keep to it from the first step on."""
    bound = torch.arange(5, dtype=torch.float64)[:, None]
    problem = TrajectoryProblem(
        lambda x, u, low: x + u, lambda x, u, low: u @ u, lambda x, low: x @ x, f64(0), 4, args=(bound,)
    )
    above = TrajectoryConstraint(lambda x, u, low: low - x, lambda x, low: low - x)
    solution = constrain_trajectory(problem, above, torch.zeros(4, 1, dtype=torch.float64), ilqr)
    torch.testing.assert_close(solution.x.x, bound, rtol=0, atol=1e-5)


def test_a_plan_that_is_no_minimum_has_not_converged():
    """The disc is far away: its constraint holds from the start, but one step of iLQR is not enough."""
    problem = replace(crossing(START), dynamics=lambda x, u: glide(x, u + 0.3 * u.sin()))
    far = TrajectoryConstraint(lambda x, u: inside(x) - 100)
    short = partial(ilqr, config=ILQRConfig(iterations=1))
    solution = constrain_trajectory(problem, far, REST, short, max_iterations=2)
    assert solution.violation == [0, 0]
    assert solution.x.gradient_norm > 1e-3
    assert not solution.converged
    solution = constrain_trajectory(problem, far, REST, short, max_iterations=60)
    assert solution.x.gradient_norm < 1e-6
    assert solution.converged


def test_what_diverges_returns_its_least_violation():
    """A step of 1.1 multiplies the violation by -1.2: x and lambda are those of the first iteration."""
    solution = dual_gradient_descent(nearest, on_the_line, f64(0, 0), True, 1.1, max_iterations=20)
    assert not solution.converged
    assert solution.violation[-1] > 50
    torch.testing.assert_close(on_the_line(solution.x), f64(-2))
    torch.testing.assert_close(solution.multiplier, f64(-2.2))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"max_iterations": 0}, "max_iterations must be at least 1, got 0"),
        ({"tol": math.nan}, "tol must be at least 0, got nan"),
        ({"rho": 0.0}, "rho must be positive"),
        ({"growth": 0.5}, "growth must be at least 1"),
        ({"constraint": lambda x: x.sum()}, r"constraint must return finite float64 numbers \[p\]"),
        ({"constraint": lambda x: x / 0}, "constraint must return finite"),
        ({"x": f64(0, math.nan)}, "constraint must return finite"),
        ({"x": torch.zeros(2)}, "constraint must return finite float64"),
        ({"equality": torch.tensor([True, False])}, "equality must be a bool or 1 of them"),
        ({"equality": 1}, "equality must be a bool"),
        ({"objective": lambda x: x.sum() * math.nan}, "objective must be finite"),
    ],
)
def test_bad_input_is_named(change, sentence):
    stated = {"objective": nearest, "constraint": on_the_line, "x": f64(0, 0), "equality": True}
    with pytest.raises(ValueError, match=sentence):
        augmented_lagrangian(**stated | change)


def test_a_final_constraint_of_another_size_is_refused():
    constraint = TrajectoryConstraint(inside, lambda x: x)
    with pytest.raises(ValueError, match="final must return 1 numbers"):
        constrain_trajectory(crossing(START), constraint, REST, ilqr)
