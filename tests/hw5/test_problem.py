"""Rollouts and costs against a loop; everything that cannot be a problem is refused by name."""

from dataclasses import replace

import pytest
import torch

from tests.hw5.problems import F64, pendulum


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_hand(problem, x0, u):
    x, cost = [x0], torch.zeros((), **F64)
    for u_t in u:
        cost = cost + problem.cost(x[-1], u_t)
        x.append(problem.dynamics(x[-1], u_t))
    return torch.stack(x), cost + problem.final_cost(x[-1])


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_a_rollout_and_its_cost_are_their_definitions(batch):
    x0, u = (
        torch.randn(*batch, 2, generator=seeded(0), **F64),
        torch.randn(*batch, 20, 1, generator=seeded(1), **F64),
    )
    _, x, u, cost = pendulum(x0).start(u)
    assert x.shape == (*batch, 21, 2)
    assert cost.shape == batch
    for i in torch.cartesian_prod(*map(torch.arange, batch)).reshape(-1, len(batch)) if batch else [()]:
        i = tuple(i)
        x_expected, cost_expected = by_hand(pendulum(), x0[i], u[i])
        torch.testing.assert_close(x[i], x_expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(cost[i], cost_expected, rtol=1e-12, atol=1e-12)


def test_one_start_serves_many_plans_and_one_plan_many_starts():
    one, many = torch.zeros(20, 1, **F64), torch.randn(4, 20, 1, generator=seeded(2), **F64)
    starts = torch.randn(4, 2, generator=seeded(3), **F64)
    assert pendulum().start(many)[1].shape == (4, 21, 2)
    assert pendulum(starts).start(one)[1].shape == (4, 21, 2)


def test_arguments_change_with_time():
    """x' = x + u + w_t, cost w_t x: 1*1 + 2*(1+1+1) + 3*(3+1+2) at the end."""
    problem = replace(
        pendulum(torch.ones(1, **F64), horizon=2),
        dynamics=lambda x, u, w: x + u + w,
        cost=lambda x, u, w: (w * x).sum(),
        final_cost=lambda x, w: (w * x).sum(),
        args=(torch.tensor([1.0, 2.0, 3.0], **F64),),
    )
    assert float(problem.start(torch.ones(2, 1, **F64))[3]) == 1 + 2 * 3 + 3 * 6


def test_limits_clip_and_are_measured():
    problem = pendulum(u_max=2.0)
    u = torch.tensor([-3.0, 0.5, 3.0], **F64)
    assert problem.clip(u).tolist() == [-2, 0.5, 2]
    assert [limit.tolist() for limit in problem.limits_around(u)] == [[1, -2.5, -5], [5, 1.5, -1]]
    open_above = replace(problem, u_high=None)
    assert open_above.clip(u).tolist() == [-2, 0.5, 3]
    assert bool((open_above.limits_around(u)[1] == torch.inf).all())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x0": [0.0, 0.0]}, "x0 must be a floating tensor"),
        ({"x0": torch.zeros(2, dtype=torch.int64)}, "x0 must be a floating tensor"),
        ({"x0": torch.tensor(0.0)}, "x0 must be a floating tensor"),
        ({"x0": torch.zeros(0, 2, **F64)}, "x0 must be a floating tensor"),
        ({"x0": torch.tensor([0.0, torch.nan], **F64)}, "x0 must be finite"),
        ({"horizon": 0}, "horizon must be"),
        ({"horizon": 2.5}, "horizon must be"),
        ({"u_low": 1.0, "u_high": -1.0}, "u_low must not exceed u_high"),
        (
            {"u_low": -torch.ones(2, **F64), "u_high": torch.ones(3, **F64)},
            "u_low and u_high must have the same",
        ),
        ({"u_high": torch.tensor([torch.nan], **F64)}, "u_high must be"),
        ({"args": (torch.zeros(20, **F64),)}, r"args\[0\] must be \[21, \*\]"),
        ({"args": (torch.full((21,), torch.inf, **F64),)}, r"args\[0\] must be finite"),
    ],
)
def test_bad_problems_are_named(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(pendulum(), **change)


@pytest.mark.parametrize(
    ("change", "u", "sentence"),
    [
        ({}, torch.zeros(19, 1, **F64), r"u_init must be \[..., 20, m\]"),
        ({}, torch.zeros(20, **F64), r"u_init must be \[..., 20, m\]"),
        ({}, torch.zeros(0, 20, 1, **F64), r"u_init must be \[..., 20, m\]"),
        ({}, torch.zeros(20, 1), "u_init must be torch.float64"),
        ({}, torch.full((20, 1), torch.nan, **F64), "u_init must be finite"),
        ({"u_high": 1.0}, torch.full((20, 1), 1.5, **F64), "u_init must lie within"),
        ({"u_low": torch.zeros(2, **F64)}, torch.zeros(20, 1, **F64), "u_low must have the size 1"),
        ({"x0": torch.zeros(3, 2, **F64)}, torch.zeros(2, 20, 1, **F64), "u_init must have batch dimensions"),
        ({"dynamics": lambda x, u: x[:1]}, torch.zeros(20, 1, **F64), r"dynamics must return \[2\]"),
        ({"dynamics": lambda x, u: x.float()}, torch.zeros(20, 1, **F64), r"must return \[2\] torch.float64"),
        ({"dynamics": lambda x, u: x / 0 * 0}, torch.zeros(20, 1, **F64), "dynamics must give finite states"),
        ({"cost": lambda x, u: u}, torch.zeros(20, 1, **F64), r"cost must return \[\]"),
        ({"cost": lambda x, u: 0.0}, torch.zeros(20, 1, **F64), r"cost must return \[\]"),
        ({"cost": lambda x, u: u.sum().log()}, torch.zeros(20, 1, **F64), "cost and final_cost must"),
        ({"final_cost": lambda x: x}, torch.zeros(20, 1, **F64), r"final_cost must return \[\]"),
    ],
)  # fmt: skip
def test_bad_plans_and_functions_are_named(change, u, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(pendulum(), **change).start(u)
