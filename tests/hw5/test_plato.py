from dataclasses import replace

import pytest
import torch
from torch import nn

from common.types import UsageError
from hw5_planning_control.ilqr import ILQRConfig, ilqr
from hw5_planning_control.lqr import dare, lqr
from hw5_planning_control.plato import MPC, Arena, Plato, PlatoConfig, alone, behaviour, learn, mindful, play
from hw5_planning_control.problem import TrajectoryProblem

A = torch.tensor([[1.0, 0.1], [0.3, 1.0]], dtype=torch.float64)  # falls over by itself
B = torch.tensor([[0.0], [0.1]], dtype=torch.float64)
Q, R = torch.eye(2, dtype=torch.float64), torch.tensor([[0.1]], dtype=torch.float64)
P, K = dare(A, B, Q, R)
Q_uu = R + B.T @ P @ B
X = torch.tensor([[1.0, 0.0], [-0.5, 1.0], [0.3, -0.8]], dtype=torch.float64)


def problem(H: int = 5) -> TrajectoryProblem:
    """Whose optimum is u = Kx."""
    return TrajectoryProblem(
        lambda x, u: A @ x + B @ u,
        lambda x, u: 0.5 * x @ Q @ x + 0.5 * u @ R @ u,
        lambda x: 0.5 * x @ P @ x,
        torch.zeros(2, dtype=torch.float64),
        H,
    )


def mpc() -> MPC:
    return MPC(problem(), torch.zeros(3, 5, 1, dtype=torch.float64), ILQRConfig(iterations=3))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def arena(limit: float = 3.0, steps: int = 8) -> Arena:
    return Arena(
        lambda g: X,
        lambda x, u: x @ A.mT + u @ B.mT,
        lambda x, t: x[:, :1],
        lambda x: x[:, 0].abs() > limit,
        steps,
    )


def test_plan_of_a_linear_system_is_the_regulator():
    teacher = mpc()
    torch.testing.assert_close(teacher.plan(X), X @ K.mT)
    x = X @ (A + B @ K).mT
    torch.testing.assert_close(teacher.plan(x), x @ K.mT)  # warm from the step before


@pytest.mark.parametrize("weight", [0.0, 0.3, 1e9])
def test_teacher_meets_the_pupil_where_the_cost_to_go_lets_it(weight):
    """u = (Q_uu + w)^-1 (Q_uu u* + w mu): u* without weight, mu with much of it."""
    teacher, mu = mpc(), torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64)
    u_star = teacher.plan(X)
    expected = (Q_uu * u_star + weight * mu) / (Q_uu + weight)
    torch.testing.assert_close(teacher.follow(X, mu, weight), expected, rtol=1e-6, atol=1e-6)


def test_only_the_first_control_minds_the_pupil():
    mu = torch.full((3, 1), 2.0, dtype=torch.float64)
    p = mindful(replace(problem(), x0=X), mu, 4.0)
    x, u = X[0], torch.tensor([0.5], dtype=torch.float64)
    plain = problem().cost(x, u)
    now, later = ([arg[0, t] for arg in p.args] for t in (0, 1))
    assert (p.cost(x, u, *now) - plain).item() == pytest.approx(0.5 * 4 * 1.5**2)
    assert p.cost(x, u, *later) == plain
    solution = ilqr(p, torch.zeros(3, 5, 1, dtype=torch.float64))
    second = solution.x[:, 1] @ K.mT
    torch.testing.assert_close(solution.u[:, 1], second)


def test_an_episode_ends_with_its_crash():
    """x grows threefold from 4, 1, 2 with a limit of 10: crashes after 1, 3 and 2 steps."""
    start = torch.tensor([[4.0], [1.0], [2.0]])
    grow = Arena(lambda g: start, lambda x, u: 3 * x, lambda x, t: x + t, lambda x: x[:, 0] > 10, 5)
    found = play(grow, lambda x, obs, t: (x, -x), generator())
    assert found.alive.tolist() == [1, 3, 2]
    assert found.crashed.tolist() == [True] * 3
    assert found.x[:, 0].tolist() == [4, 1, 2, 3, 6, 9]
    assert found.obs[:, 0].tolist() == [4, 1, 2, 4, 7, 11]  # rows of all that still run, step by step
    assert found.label[:, 0].tolist() == [-4, -1, -2, -3, -6, -9]


def test_what_begins_as_a_crash_counts_no_step():
    start = torch.tensor([[1.0], [20.0]])
    still = Arena(lambda g: start, lambda x, u: x, lambda x, t: x, lambda x: x[:, 0] > 10, 4)
    found = play(still, lambda x, obs, t: (x, x), generator())
    assert found.alive.tolist() == [4, 0]
    assert found.crashed.tolist() == [False, True]
    assert len(found.obs) == 4


def test_a_crash_in_the_last_step_is_a_crash():
    grow = Arena(lambda g: torch.ones(2, 1), lambda x, u: x + u, lambda x, t: x, lambda x: x[:, 0] > 10, 3)
    found = play(grow, lambda x, obs, t: (torch.tensor([[2.0], [4.0]]), x), generator())
    assert found.alive.tolist() == [3, 3]
    assert found.crashed.tolist() == [False, True]


@pytest.mark.parametrize(
    ("plays", "i", "expected"),
    [("teacher", 3, "label"), ("plato", 0, "label"), ("dagger", 0, "label"), ("dagger", 60, "pupil")],
)
def test_who_acts(plays, i, expected):
    pupil = nn.Linear(1, 1).double()
    act = behaviour(mpc(), pupil, PlatoConfig(plays=plays), i, generator())
    u, label = act(X, X[:, :1], 0)
    torch.testing.assert_close(label, X @ K.mT)
    torch.testing.assert_close(u, {"label": label, "pupil": pupil(X[:, :1])}[expected])


def test_dagger_lets_the_teacher_act_with_probability_beta_to_the_round():
    class Half:
        def plan(self, x):
            return torch.ones(len(x), 1)

    act = behaviour(Half(), lambda obs: 0 * obs, PlatoConfig(plays="dagger", beta=0.6), 2, generator())
    u, _ = act(torch.zeros(4000, 2), torch.zeros(4000, 1), 0)
    assert u.mean().item() == pytest.approx(0.36, abs=0.03)


def test_learning_is_least_squares():
    pupil = nn.Linear(2, 1).double()
    obs = torch.randn(200, 2, generator=generator(), dtype=torch.float64)
    label = obs @ torch.tensor([[2.0], [-1.0]], dtype=torch.float64) + 0.5
    config = PlatoConfig(learning_steps=300, batch_size=64, lr=0.1)
    learn(pupil, torch.optim.Adam(pupil.parameters()), obs, label, config, generator())
    torch.testing.assert_close(pupil.weight, torch.tensor([[2.0, -1.0]]).double(), rtol=0, atol=1e-3)
    assert pupil.bias.item() == pytest.approx(0.5, abs=1e-3)


def test_a_pupil_that_can_mimic_its_teacher_stops_crashing():
    """Alone, a pupil that knows nothing falls in all three episodes; it learns u = Kx from the teacher."""
    everything = arena(steps=40)._replace(observe=lambda x, t: x)
    assert (play(everything, lambda x, obs, t: (0 * x[:, :1], x), generator()).alive < 40).all()
    pupil = nn.Linear(2, 1).double()
    config = PlatoConfig(rounds=3, weight=Q_uu.item(), learning_steps=200, batch_size=32, lr=0.3)
    plato = Plato(pupil, config, generator())
    taught = [plato.round(everything, mpc()) for _ in range(config.rounds)]
    assert [int(r.crashed.sum()) for r in taught] == [0, 0, 0]
    assert plato.crashes == 0
    assert not alone(everything, pupil, generator()).crashed.any()
    torch.testing.assert_close(pupil.weight.detach(), K, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    "change",
    [
        {"plays": "nobody"}, {"rounds": 0}, {"weight": -1.0}, {"beta": 1.5}, {"learning_steps": 0},
        {"batch_size": 0}, {"lr": float("nan")},
    ],
)  # fmt: skip
def test_bad_settings_are_named(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        PlatoConfig(**change)


def test_finite_horizon_regulator_agrees():
    """The numbers above rest on dare; the recursion over the same horizon gives the same first gain."""
    F = torch.cat([A, B], 1).expand(5, 2, 3)
    C = torch.block_diag(Q, R).expand(5, 3, 3)
    zero = torch.zeros(5, 3, dtype=torch.float64)
    torch.testing.assert_close(lqr(F, zero[:, :2], C, zero, P, zero[0, :2]).K[0], K)
