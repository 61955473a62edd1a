"""LQ problems in one step, known minima, promises kept, limits, batches, and refusals."""

import warnings
from dataclasses import replace

import pytest
import torch

from common.envs.linear_quadratic import random_linear_quadratic
from common.envs.mujoco_dynamics import MujocoDynamics
from common.envs.systems import DoubleIntegrator
from hw5_planning_control.box_qp import box_qp
from hw5_planning_control.derivatives import expand
from hw5_planning_control.ilqr import ILQRConfig, adapt, backward, forward, ilqr, line_search
from hw5_planning_control.lqr import lqr
from hw5_planning_control.problem import TrajectoryProblem
from tests.hw5.problems import F64, acrobot, as_problem, pendulum

MINIMA = torch.tensor([40.424009645, 44.513285141, 49.288715248], **F64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def zeros(problem, m: int = 1) -> torch.Tensor:
    return torch.zeros(*problem.x0.shape[:-1], problem.horizon, m, **F64)


def lq(seed: int, T: int = 12, n: int = 4, m: int = 2, batch: tuple[int, ...] = ()):
    s = random_linear_quadratic(T, n, m, seeded(seed), growth=1.1, batch=batch)
    return s, as_problem(s), torch.randn(*batch, T, m, generator=seeded(seed + 1000), **F64)


@pytest.mark.parametrize("seed", range(10))
def test_an_lq_problem_takes_exactly_one_step(seed):
    """Of any size, from anywhere, at any scale of the cost; and the gains are lqr's."""
    scale = 10.0 ** (seed - 4)
    s, _, u = lq(seed, T=5 + seed, n=1 + seed // 2, m=1 + seed % 3)
    s = s._replace(C=scale * s.C, c=scale * s.c, C_final=scale * s.C_final, c_final=scale * s.c_final)
    solution, exact = ilqr(as_problem(s), u), lqr(*s[:6])
    assert int(solution.iterations) == 1
    assert bool(solution.converged)
    assert solution.cost_history.shape == (2,)
    assert float(solution.cost) == pytest.approx(float(exact.cost_to_go(s.x0)), rel=1e-11)
    torch.testing.assert_close(solution.K, exact.K, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(solution.Q_uu, exact.Q_uu, rtol=1e-9, atol=1e-9 * scale)


def test_a_solved_problem_takes_no_step():
    _, problem, u = lq(0)
    first = ilqr(problem, u)
    again = ilqr(problem, first.u)
    assert int(again.iterations) == 0
    assert bool(again.converged)
    assert again.cost_history.tolist() == [float(first.cost)]


@pytest.mark.parametrize("mode", ["control", "state"])
@pytest.mark.parametrize("mu", [0.0, 0.7, 50.0])
def test_on_an_lq_problem_every_promise_is_kept(mu, mode):
    """The cost changes by alpha k'q_u + alpha^2/2 k'Q_uu k exactly: for every alpha without mu; with it at
    alpha = 1, which would fail if V were that of the regularised Q."""
    _, problem, u = lq(1)
    problem, x, u, cost = problem.start(u)
    gains = backward(problem, u, expand(problem, x, u), torch.tensor(mu, **F64), mode)
    for alpha in (1.0, 0.5, 0.1, 1.7) if mu == 0 else (1.0,):
        after = problem.total_cost(*forward(problem, x, u, gains, alpha))
        assert float(cost - after) == pytest.approx(float(gains.promise(alpha)), rel=1e-10)


def test_mu_regularises_the_control_or_the_state():
    """One step, by hand: Q_uu + mu I, or Q with V + mu I."""
    _, problem, u = lq(2, T=1)
    problem, x, u, _ = problem.start(u)
    e = expand(problem, x, u)
    F, C = e.F[0], e.C[0]
    for mode in ("control", "state"):
        gains = backward(problem, u, e, torch.tensor(0.3, **F64), mode)
        V = e.C_final + (0.3 * torch.eye(4, **F64) if mode == "state" else 0)
        Q = C + F.mT @ V @ F
        Q_uu = Q[4:, 4:] + (0.3 * torch.eye(2, **F64) if mode == "control" else 0)
        q_u = e.c[0, 4:] + F[:, 4:].mT @ e.c_final
        torch.testing.assert_close(gains.K[0], -torch.linalg.solve(Q_uu, Q[4:, :4]), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gains.k[0], -torch.linalg.solve(Q_uu, q_u), rtol=1e-12, atol=1e-12)
        plain = C + F.mT @ e.C_final @ F
        torch.testing.assert_close(gains.Q_uu[0], plain[4:, 4:], rtol=1e-12, atol=1e-12)


def test_mu_grows_and_falls_faster_and_faster():
    config, failed, worked = ILQRConfig(mu_min=1e-3), torch.tensor(False), torch.tensor(True)
    mu, factor, seen = torch.tensor(0.0, **F64), torch.tensor(1.0, **F64), []
    for accepted in (failed, failed, failed, worked, worked, worked, worked):
        mu, factor = adapt(mu, factor, accepted, config)
        seen.append(round(float(mu), 6))
    assert seen == [0.001, 0.004, 0.032, 0.016, 0.004, 0.0, 0.0]


def test_acrobot_reaches_a_known_minimum():
    """From U = 0, cost 4959.476212; trajax's iLQR needs 62 iterations to a gradient of 9.12e-05."""
    solution = ilqr(acrobot(), zeros(acrobot()))
    assert bool(solution.converged)
    assert float((MINIMA - solution.cost).abs().min()) < 1e-6
    assert float(solution.gradient_norm) < 1e-6
    assert float(solution.cost_history[0]) == pytest.approx(4959.476212, abs=1e-6)
    assert float(solution.cost_history[-1]) == float(solution.cost)
    assert solution.cost_history.shape == (int(solution.iterations) + 1,)
    assert bool((solution.cost_history.diff() <= 1e-12 * solution.cost_history[1:]).all())
    gap = solution.cost_history - solution.cost
    assert pytest.approx(float(gap[50] / gap[49]), abs=0.1) == 0.82**2  # of the gradient, 0.82 per step


@pytest.mark.parametrize("mode", ["control", "state"])
def test_pendulum_swings_up(mode):
    solution = ilqr(pendulum(), zeros(pendulum()), ILQRConfig(regularize=mode))
    assert bool(solution.converged)
    assert float((solution.x[-1] - torch.tensor([torch.pi, 0.0], **F64)).abs().max()) < 0.1
    u = solution.u.clone().requires_grad_()
    problem = pendulum()
    gradient = torch.autograd.grad(problem.total_cost(problem.rollout(u), u), u)[0]
    assert float(gradient.norm()) < 1e-6
    assert float(solution.gradient_norm) == pytest.approx(float(gradient.norm()), abs=1e-9)


def test_an_indefinite_cost_raises_mu_until_it_is_definite():
    """cost 1 - cos(u) is concave at u = 2: without mu there is no step at all."""
    problem = TrajectoryProblem(
        lambda x, u: x + u,
        lambda x, u: 1 - u.cos().sum() + 0.01 * x.square().sum(),
        lambda x: 0.01 * x.square().sum(),
        torch.zeros(1, **F64),
        horizon=3,
    )
    u = torch.full((3, 1), 2.0, **F64)
    start, x, *_ = problem.start(u)
    assert not bool(backward(start, u, expand(start, x, u), torch.tensor(0.0, **F64)).definite)
    solution = ilqr(problem, u)
    assert bool(solution.converged)
    assert float(solution.u.abs().max()) < 1e-5


@pytest.mark.parametrize("iterations", [0, 2])
def test_gains_of_an_indefinite_expansion_are_never_returned(iterations):
    """A cost that is concave everywhere: no gains but the first, which are zero."""
    concave = replace(pendulum(), cost=lambda x, u: -u.square().sum())
    solution = ilqr(concave, zeros(concave) + 0.1, ILQRConfig(iterations=iterations, mu_max=1e-3))
    assert all(not part.any() for part in (solution.K, solution.k, solution.Q_uu))


def test_an_indefinite_expansion_warns_of_nothing():
    """Q_uu = 0 at the last step, where the state is worth nothing: a division by zero inside."""
    problem = replace(pendulum(), cost=lambda x, u: x[0] * u[0], final_cost=lambda x: 0 * x[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution = ilqr(problem, zeros(problem) + 0.1, ILQRConfig(iterations=3))
    assert all(bool(part.isfinite().all()) for part in solution)


def test_the_gradient_shrinks_on_where_the_cost_no_longer_shows_it():
    """From 1e-9 beside the optima of 64 LQ problems: some costs rise by their rounding, and yet every full
    step is taken and brings its gradient down."""
    _, problem, u = lq(4, batch=(64,))
    u = ilqr(problem, u).u + 1e-9 * torch.randn(u.shape, generator=seeded(6), **F64)
    problem, x, u, cost = problem.start(u)
    before = expand(problem, x, u)
    gains = backward(problem, u, before, torch.zeros(64, **F64))
    x, u, cost_new, accepted = line_search(
        problem, x, u, cost, gains, gains.definite, ILQRConfig(line_search=1)
    )
    assert bool((cost_new > cost).any())
    assert bool(accepted.all())
    left, norm = (e.gradient().flatten(1).norm(dim=1) for e in (expand(problem, x, u), before))
    assert bool((left < 1e-3 * norm).all())


def test_converged_may_mean_that_rounding_hides_the_rest():
    """With 1e10 more to pay the cost rounds to 2e-6: as good a plan as can be told from others."""
    inner = pendulum()
    costly = replace(inner, final_cost=lambda x: 1e10 + inner.final_cost(x))
    solution, best = ilqr(costly, zeros(costly)), ilqr(inner, zeros(inner))
    assert bool(solution.converged)
    assert 1e-6 < float(solution.gradient_norm) < 0.1
    assert float(inner.total_cost(solution.x, solution.u) - best.cost) < 1e-5


def box_mpc(x0: list[float], T: int = 20, limit: float = 0.5) -> TrajectoryProblem:
    """A double integrator, dt = 1 s, back to the origin by a limited force."""
    system = DoubleIntegrator()

    def step(x, u):
        return x + torch.stack([x[1] + 0.5 * u[0], u[0]])

    return TrajectoryProblem(
        step,
        lambda x, u: 0.5 * x.square().sum() + 0.05 * u.square().sum(),
        lambda x: 5 * x.square().sum(),
        torch.tensor(x0, **F64),
        T,
        u_low=-limit,
        u_high=limit * torch.ones(system.m, **F64),
    )


@pytest.mark.parametrize("x0", [[5.0, 0.0], [-3.0, 2.0], [0.1, 0.0]])
def test_box_limits_reach_the_optimum_of_the_quadratic_program(x0):
    """Written as one program in u: J(u) = 1/2 u'Hu + g'u + J(0), from gradients of the cost itself."""
    problem = box_mpc(x0)

    def J(u):
        u = u[:, None]
        return problem.total_cost(problem.rollout(u), u)

    g = torch.autograd.functional.jacobian(J, torch.zeros(20, **F64))
    H = torch.autograd.functional.hessian(J, torch.zeros(20, **F64))
    best, free = box_qp(H, g, torch.full((20,), -0.5, **F64), torch.full((20,), 0.5, **F64))
    solution = ilqr(problem, zeros(problem), ILQRConfig(tolerance=1e-9))
    assert bool(solution.converged)
    torch.testing.assert_close(solution.u[:, 0], best, rtol=0, atol=1e-8)
    assert float(solution.cost) == pytest.approx(float(J(best)), rel=1e-12)
    assert bool((solution.u.abs() <= 0.5).all())
    held = ~free
    assert bool((solution.K[held] == 0).all())
    assert bool((solution.K[free].abs().sum((-2, -1)) > 0).all())
    assert bool(held.any()) == (x0 != [0.1, 0.0])


def test_limits_that_hold_everything_by_hand():
    """x' = x + u, |u| <= 1, from 10, five steps, cost 1/2 x_T^2 + 1/200 u^2: full force, 12.5 + 0.020."""
    problem = TrajectoryProblem(
        lambda x, u: x + u,
        lambda x, u: 0.005 * u.square().sum(),
        lambda x: 0.5 * x.square().sum(),
        torch.tensor([10.0], **F64),
        horizon=5,
        u_low=-1.0,
        u_high=1.0,
    )
    solution = ilqr(problem, zeros(problem))
    assert solution.u.flatten().tolist() == [-1.0] * 5
    assert float(solution.cost) == 12.525
    assert float(solution.gradient_norm) == 0


def test_limits_far_away_change_nothing():
    free, limited = ilqr(pendulum(), zeros(pendulum())), ilqr(pendulum(u_max=1e3), zeros(pendulum()))
    torch.testing.assert_close(limited.u, free.u, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(limited.K, free.K, rtol=1e-7, atol=1e-7)


def test_a_nonlinear_problem_with_limits():
    problem = pendulum(u_max=3.0)
    solution = ilqr(problem, zeros(problem))
    assert bool(solution.converged)
    assert float(solution.u.abs().max()) == 3.0
    u = solution.u.clone().requires_grad_()
    gradient = torch.autograd.grad(problem.total_cost(problem.rollout(u), u), u)[0]
    assert float((u - (u - gradient).clamp(-3, 3)).detach().norm()) < 1e-6


@pytest.mark.parametrize("u_max", [None, 3.0])
def test_a_batch_is_a_loop(u_max):
    """Three starts that take different numbers of steps, some with failures on the way."""
    starts = torch.tensor([[0.0, 0.0], [2.5, 0.3], [-1.0, 4.0]], **F64)
    together = ilqr(pendulum(starts, u_max=u_max), torch.zeros(20, 1, **F64))
    assert len(set(together.iterations.tolist())) > 1
    for i, x0 in enumerate(starts):
        alone = ilqr(pendulum(x0, u_max=u_max), torch.zeros(20, 1, **F64))
        assert int(together.iterations[i]) == int(alone.iterations)
        steps = int(alone.iterations) + 1
        torch.testing.assert_close(together.cost_history[i, :steps], alone.cost_history, rtol=1e-10, atol=0)
        assert bool((together.cost_history[i, steps:] == together.cost[i]).all())
        torch.testing.assert_close(together.u[i], alone.u, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(together.K[i], alone.K, rtol=1e-6, atol=1e-6)
        assert bool(together.converged[i])


def test_a_batch_of_lq_problems_with_arguments():
    s, problem, u = lq(3, batch=(2, 2))
    solution = ilqr(problem, u)
    assert solution.iterations.tolist() == [[1, 1], [1, 1]]
    torch.testing.assert_close(solution.K, lqr(*s[:6]).K, rtol=1e-9, atol=1e-9)


def test_many_plans_from_one_start():
    u = torch.randn(3, 20, 1, generator=seeded(5), **F64)
    solution = ilqr(pendulum(), u)
    assert bool(solution.converged.all())
    assert solution.x.shape == (3, 21, 2)


def test_one_nan_in_a_batch_of_candidates_loses():
    """The dynamics fail beyond |u| = 5: the line search stays clear of them."""
    problem = pendulum(torch.tensor([[0.0, 0.0], [3.0, 0.0]], **F64), horizon=8)
    inner = problem.dynamics
    problem = replace(problem, dynamics=lambda x, u: torch.where(u.abs() > 5, torch.nan, inner(x, u)))
    solution = ilqr(problem, zeros(problem), ILQRConfig(iterations=3))
    assert all(bool(part.isfinite().all()) for part in solution)
    assert bool((solution.cost <= solution.cost_history[:, 0]).all())


def test_what_does_not_converge_says_so_and_keeps_the_best():
    """Out of iterations; and a cost without a minimum."""
    capped = ilqr(acrobot(), zeros(acrobot()), ILQRConfig(iterations=3))
    assert not bool(capped.converged)
    assert int(capped.iterations) == 3
    assert float(capped.cost) == float(capped.cost_history.min())
    endless = replace(pendulum(), cost=lambda x, u: -u.square().sum())
    solution = ilqr(endless, zeros(endless) + 0.1, ILQRConfig(iterations=30))
    assert not bool(solution.converged)
    assert all(bool(part.isfinite().all()) for part in solution)
    assert float(solution.cost) <= float(solution.cost_history[0])


def test_a_mujoco_pendulum_is_caught():
    """Two links on a cart, tilted by 0.05 rad either way: by finite differences, under the motor's limit."""
    system = MujocoDynamics("InvertedDoublePendulum-v5")
    problem = TrajectoryProblem(
        system,
        lambda x, u: 0.5 * x.square().sum() + 0.01 * u.square().sum(),
        lambda x: 100 * x.square().sum(),
        torch.tensor([0.0, 0.05, -0.05, 0.0, 0.0, 0.0], **F64),
        horizon=12,
        u_low=system.u_low,
        u_high=system.u_high,
        jacobian=system.jacobian,
    )
    solution = ilqr(problem, zeros(problem), ILQRConfig(tolerance=1e-4))
    assert bool(solution.converged)
    assert float(solution.cost) < 0.01 * float(solution.cost_history[0])
    assert float(solution.x[-1, 1:3].abs().max()) < 0.02


def test_no_graph_is_kept():
    """Neither of the solution nor through the parameters of a learned model."""
    weight = torch.ones(2, requires_grad=True, **F64)
    problem = replace(pendulum(), final_cost=lambda x: (weight * x.square()).sum())
    solution = ilqr(problem, zeros(problem), ILQRConfig(iterations=2))
    assert not any(part.requires_grad for part in solution)
    assert weight.grad is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"iterations": -1}, "iterations must be"),
        ({"tolerance": float("nan")}, "tolerance must be"),
        ({"line_search": 0}, "line_search must be"),
        ({"armijo": 0.7}, "armijo must lie"),
        ({"mu_factor": 1.0}, "mu_factor must exceed"),
        ({"regularize": "both"}, "regularize must be"),
        ({"mu_min": float("inf")}, "mu_min must be at least 0 and finite, got inf"),
        ({"mu_max": -1.0}, "mu_max must exceed mu_min = 1e-06, got -1"),
        ({"mu_max": float("nan")}, "mu_max must exceed mu_min"),
    ],
)
def test_bad_settings_are_named(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ILQRConfig(**options)


def test_derivatives_that_are_not_finite_are_refused():
    problem = replace(pendulum(), cost=lambda x, u: u.abs().sqrt().sum())
    with pytest.raises(ValueError, match="finite derivatives"):
        ilqr(problem, zeros(problem))
