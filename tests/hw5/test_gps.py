from dataclasses import replace

import pytest
import torch
from torch import nn

from common.types import UsageError
from hw5_planning_control.gps import (
    GPSConfig,
    GuidedPolicySearch,
    Round,
    TimedPolicy,
    frozen,
    imitation_loss,
    lagrangian,
    play,
    times,
    tube,
)
from hw5_planning_control.ilqr import ilqr
from hw5_planning_control.lqr import dare
from hw5_planning_control.problem import TrajectoryProblem

A = torch.tensor([[1.0, 0.1], [0.0, 1.0]], dtype=torch.float64)
B = torch.tensor([[0.0], [0.1]], dtype=torch.float64)
Q, R = torch.diag(torch.tensor([1.0, 0.1], dtype=torch.float64)), torch.tensor([[0.1]], dtype=torch.float64)
P, K = dare(A, B, Q, R)
STARTS = torch.tensor([[1.0, 0.0], [-0.5, 1.0], [0.3, -0.8]], dtype=torch.float64)
QUICK = GPSConfig(rounds=1, samples=0, policy_steps=100, lr=0.1)


def problem(T: int = 10, **changes) -> TrajectoryProblem:
    """Whose optimum is u = Kx at every step: the final cost is that of all steps to come."""
    return TrajectoryProblem(
        dynamics=lambda x, u: A @ x + B @ u,
        cost=lambda x, u: 0.5 * x @ Q @ x + 0.5 * u @ R @ u,
        final_cost=lambda x: 0.5 * x @ P @ x,
        **{"x0": STARTS, "horizon": T} | changes,
    )


def plans(of: TrajectoryProblem):
    return ilqr(of, torch.zeros(len(of.x0), of.horizon, 1, dtype=torch.float64))


class Linear(nn.Module):
    """u = W x + b, or only b."""

    def __init__(self, of_state: bool):
        super().__init__()
        self.W = nn.Parameter(torch.zeros(1, 2, dtype=torch.float64), requires_grad=of_state)
        self.b = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x, t):
        return x @ self.W.mT + self.b


def generator():
    return torch.Generator().manual_seed(0)


def searched(p, policy, plan, config: GPSConfig) -> tuple[Round, GuidedPolicySearch]:
    """What the last round left behind."""
    search = GuidedPolicySearch(p, policy, plan, config, generator())
    for _ in range(config.rounds):
        last = search.round()
    return last, search


def test_a_policy_that_can_mimic_the_optimum_becomes_it():
    """The constraint then costs nothing: no residual, no multiplier, the cost of the plans."""
    policy, p = Linear(True), problem()
    found, _ = searched(p, policy, plans(p), replace(QUICK, rounds=6))
    torch.testing.assert_close(policy.W, K, rtol=0, atol=1e-3)
    assert policy.b.abs() < 1e-3
    assert found.residual < 1e-3
    optimum = 0.5 * torch.einsum("ni,ij,nj->n", STARTS, P, STARTS)
    torch.testing.assert_close(play(p, policy), optimum, rtol=1e-4, atol=0)
    assert found.policy_cost == pytest.approx(optimum.mean().item(), rel=1e-4)


def test_a_policy_that_cannot_gets_the_best_of_its_class():
    """One control for all starts and steps: the dense least-squares optimum, not the mean of the plans."""
    policy, p = Linear(False), problem()
    plan = plans(p)
    config = replace(QUICK, rounds=30, rho=1.0, rho_growth=1.0, policy_steps=30, lr=0.05)
    _, found = searched(p, policy, plan, config)
    ones = torch.ones_like(plan.u)
    costs = [p.total_cost(p.rollout(b * ones), b * ones).sum() for b in (-1.0, 0.0, 1.0)]
    best = (costs[0] - costs[2]) / (2 * (costs[0] - 2 * costs[1] + costs[2]))  # of a parabola
    assert abs(plan.u.mean() - best) > 0.05
    assert policy.b.item() == pytest.approx(best.item(), abs=2e-3)
    torch.testing.assert_close(found.plan.u, best * ones, rtol=0, atol=1e-2)
    u = (best * ones).requires_grad_()
    (slope,) = torch.autograd.grad(p.total_cost(p.rollout(u), u).sum(), u)
    torch.testing.assert_close(found.multiplier, -slope, rtol=0, atol=0.02 * slope.abs().max().item())
    assert abs(found.multiplier.mean()) < 1e-3  # the policy feels no pull


def test_without_adapting_the_plans_are_cloned():
    """The best constant for the plans is their mean, whatever it costs to play it."""
    policy, p = Linear(False), problem()
    plan = plans(p)
    _, found = searched(p, policy, plan, replace(QUICK, rounds=2, adapt=False))
    assert policy.b.item() == pytest.approx(plan.u.mean().item(), abs=1e-3)
    assert torch.equal(found.plan.u, plan.u)
    assert not found.multiplier.any()


def test_lagrangian_by_hand():
    policy, multiplier = Linear(True), torch.full((3, 10, 1), 2.0, dtype=torch.float64)
    with torch.no_grad():
        policy.W.copy_(torch.tensor([[1.0, -1.0]]))
        policy.b.fill_(0.5)
    held = lagrangian(problem(), frozen(policy), multiplier, rho=3.0)
    x, u = torch.tensor([1.0, 0.5]).double(), torch.tensor([4.0]).double()
    expected = 0.5 * (1 + 0.1 * 0.25) + 0.05 * 16 + 2 * 3 + 1.5 * 9  # the gap is 4 - (1 - 0.5 + 0.5) = 3
    assert held.cost(x, u, multiplier[0, 0], torch.zeros(1)).item() == pytest.approx(expected)
    assert held.args[1][0, :, 0].tolist() == pytest.approx([k / 10 for k in range(11)])
    plan = ilqr(held, torch.zeros_like(multiplier))
    assert plan.converged.all()
    assert (plan.iterations == 1).all()  # still linear-quadratic


def test_tube_of_a_linear_system_follows_the_closed_loop():
    p = problem()
    plan, config = plans(p), replace(QUICK, samples=2, spread=0.3)
    x, u = tube(p, plan, config, generator())
    assert x.shape == (3, 3, 10, 2)
    assert torch.equal(x[0], plan.x[:, :-1])
    assert torch.equal(u[0], plan.u)
    gap = x[1:] - x[0]
    assert gap[:, :, 0].std().item() == pytest.approx(0.3, rel=0.5)
    torch.testing.assert_close(gap[:, :, 1:], gap[:, :, :-1] @ (A + B @ K).mT)
    torch.testing.assert_close(u[1:] - u[0], gap @ K.mT)


def test_noise_of_the_tube_is_what_the_cost_forgives():
    """u ~ N(u^ + K (x - x^), noise^2 Q_uu^-1), and what is taught is the mean."""
    p = problem(T=2, x0=STARTS[:1])
    plan, config = plans(p), replace(QUICK, samples=1000, spread=0.0, noise=0.5)
    x, u = tube(p, plan, config, generator())
    spread = (x[1:, 0, 1, 1] - x[0, 0, 1, 1]) / B[1, 0]
    assert spread.square().mean().item() == pytest.approx(0.25 / plan.Q_uu[0, 0, 0, 0].item(), rel=0.1)
    torch.testing.assert_close(u[:, 0, 0], plan.u[:, 0].expand(1001, -1))


def test_step_two_with_unit_weight_is_behaviour_cloning():
    error = torch.randn(4, 3, 20, 2, generator=generator(), dtype=torch.float64)
    mse = nn.functional.mse_loss(error, torch.zeros_like(error))
    eye = torch.eye(2, dtype=torch.float64).expand(3, 20, 2, 2)
    torch.testing.assert_close(imitation_loss(error, eye, "unit"), mse)
    torch.testing.assert_close(imitation_loss(error, 7 * eye, "Q_uu"), mse)
    heavy = eye.clone()
    heavy[:, :10] *= 3  # the first half counts three times the second
    expected = (1.5 * error[:, :, :10].square().mean() + 0.5 * error[:, :, 10:].square().mean()) / 2
    torch.testing.assert_close(imitation_loss(error, heavy, "Q_uu"), expected)


def test_played_plan_costs_what_was_planned():
    """Within the limits of the problem, which the policy itself need not know."""
    p = problem(u_low=-1.0, u_high=1.0)
    plan = plans(p)

    def table(x, t):
        u = plan.u[:, round(10 * t[0].item())]
        return torch.where(u.abs() < 1, u, 9 * u)

    assert (plan.u.abs() == 1).any()
    torch.testing.assert_close(play(p, table), plan.cost)


def test_policy_ignores_whole_turns_of_what_it_sees_as_angles():
    x = torch.randn(50, 2, generator=generator(), dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    policy = TimedPolicy(x, 2 * one, 3 * one, (8,), generator())
    features = TimedPolicy.features(x)
    torch.testing.assert_close(features[:, 2:], TimedPolicy.features(x + 2 * torch.pi)[:, 2:])
    scaled = (features - policy.mean) / policy.std
    torch.testing.assert_close(scaled.std(0), torch.ones(6, dtype=torch.float64))
    assert policy(x, torch.zeros(50, 1)).dtype == torch.float64
    assert policy(x, torch.zeros(50, 1)).mean().item() == pytest.approx(2, abs=0.5)


def test_times_run_from_zero_to_just_below_one():
    assert times(problem(T=4))[2, :, 0].tolist() == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": 0}, {"rho": 0.0}, {"rho_growth": 0.0}, {"plan_steps": 0}, {"policy_steps": 0},
        {"lr": -1.0}, {"samples": -1}, {"spread": -0.1}, {"noise": float("nan")}, {"weight": "none"},
        {"hidden": (0,)},
    ],
)  # fmt: skip
def test_bad_settings_are_named(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        GPSConfig(**change)


def test_one_start_without_a_batch_is_refused():
    p = problem(x0=STARTS[0])
    plan = ilqr(p, torch.zeros(10, 1, dtype=torch.float64))
    with pytest.raises(UsageError, match=r"x0 must be \[N, n\]"):
        GuidedPolicySearch(p, Linear(True), plan, QUICK, generator())
