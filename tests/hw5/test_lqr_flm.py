import math

import pytest
import torch

from common.envs.integration import discretize
from common.envs.linear_quadratic import random_linear_quadratic
from common.envs.systems import Pendulum
from hw5_planning_control.gaussian_mixture import fit_mixture
from hw5_planning_control.local_models import LinearGaussian
from hw5_planning_control.lqr import lqr
from hw5_planning_control.lqr_flm import FLMConfig, lqr_flm, quadratic_cost
from hw5_planning_control.problem import TrajectoryProblem

F64 = {"dtype": torch.float64}


def noise_only(T: int, n: int, m: int) -> LinearGaussian:
    """u ~ N(0, 1), which knows nothing of the task."""
    return LinearGaussian(
        torch.zeros(T, m, n, **F64), torch.zeros(T, m, **F64), torch.eye(m, **F64).expand(T, m, m)
    )


def swing_up() -> TrajectoryProblem:
    """A pendulum of 1 kg and 1 m from hanging to upright in 2 s, 20 steps."""
    goal, weight = torch.tensor([math.pi, 0.0], **F64), torch.tensor([1.0, 0.1], **F64)

    def distance(x):
        return (weight * (x - goal).square()).sum()

    return TrajectoryProblem(
        discretize(Pendulum(damping=0.1).dynamics, 0.1),
        lambda x, u: 0.1 * distance(x) + 0.02 * u.square().sum(),
        lambda x: 10 * distance(x),
        torch.zeros(2, **F64),
        20,
    )


def improve(epsilon: float, seed: int = 0, rounds: int = 8):
    config = FLMConfig(rounds=rounds, samples=10, epsilon=epsilon)
    g = torch.Generator().manual_seed(seed)
    return lqr_flm(swing_up(), noise_only(20, 2, 1), config, g)


def linear_quadratic(T: int, n: int, m: int):
    """A problem that does not change with time, and its optimal gains."""
    lq = random_linear_quadratic(1, n, m, torch.Generator().manual_seed(0), growth=0.8)
    F, f, C, c = (part[0] for part in lq[:4])

    def cost(x, u):
        z = torch.cat([x, u])
        return 0.5 * z @ C @ z + z @ c

    problem = TrajectoryProblem(
        lambda x, u: F @ torch.cat([x, u]) + f,
        cost,
        lambda x: 0.5 * x @ lq.C_final @ x,
        torch.ones(n, **F64),
        T,
    )
    gains = lqr(*(part.expand(T, *part.shape) for part in (F, f, C, c)), lq.C_final)
    return problem, gains, (C, c, lq.C_final)


def test_on_a_linear_system_one_free_round_finds_lqr():
    """Without noise the regression is exact, and with 300 nats the bound is no hindrance."""
    problem, gains, _ = linear_quadratic(6, 3, 2)
    config = FLMConfig(rounds=1, samples=7, epsilon=300.0, start_std=0.1, components=0)
    solution = lqr_flm(problem, noise_only(6, 3, 2), config, torch.Generator().manual_seed(0))
    torch.testing.assert_close(solution.controller.K, gains.K, rtol=0, atol=1e-5)
    torch.testing.assert_close(solution.controller.k, gains.k, rtol=0, atol=1e-5)


def test_the_expansion_of_a_quadratic_cost_is_exact(generator):
    problem, _, (C, c, C_final) = linear_quadratic(4, 3, 2)
    x, u = (torch.randn(rows, size, generator=generator, **F64) for rows, size in ((5, 3), (4, 2)))
    expected = C.expand(4, 5, 5), c.expand(4, 5), C_final, torch.zeros(3, **F64)
    for found, part in zip(quadratic_cost(problem, x, u), expected, strict=True):
        torch.testing.assert_close(found, part)


def test_swing_up_from_noise_needs_the_bound():
    """Seeds 0 to 5: from 116 to 124 down to 28.8 to 29.2 after six rounds of 50 nats, where iLQR, which knows
    the dynamics, has 21.0 without noise. Practically unbounded, all rounds from the first on end at 49."""
    bounded = improve(50.0, rounds=6)
    assert bounded.cost[0] > 100
    assert bounded.cost[-1] < 31
    assert all(kl == pytest.approx(50, rel=1e-6) for kl in bounded.kl)
    assert improve(1e5, rounds=2).cost[-1] > 45


def test_a_round_without_a_step_keeps_the_controller():
    """No eta that is searched meets so small a bound."""
    first, config = noise_only(20, 2, 1), FLMConfig(rounds=2, samples=10, epsilon=1e-200)
    solution = lqr_flm(swing_up(), first, config, torch.Generator().manual_seed(0))
    assert solution.controller is first
    assert solution.kl == [0.0, 0.0]


def test_the_prior_is_fitted_to_all_rounds_so_far(monkeypatch):
    rows = []

    def fit(w, *args):
        rows.append(len(w))
        return fit_mixture(w, *args)

    monkeypatch.setattr("hw5_planning_control.lqr_flm.fit_mixture", fit)
    improve(50.0, rounds=3)
    assert rows == [200, 400, 600]  # 10 samples of 20 steps in each round


def test_the_same_seed_gives_the_same_controller():
    first, second = improve(50.0, seed=3, rounds=1), improve(50.0, seed=3, rounds=1)
    assert first.cost == second.cost
    assert torch.equal(first.controller.K, second.controller.K)


def test_the_real_system_may_differ_from_the_problem():
    """Only `step` is run: a problem whose own dynamics would fail is improved all the same."""

    def unknown(x, u):
        raise AssertionError("the dynamics must not be looked at")

    problem, gains, _ = linear_quadratic(6, 3, 2)
    step = torch.func.vmap(problem.dynamics)
    hidden = TrajectoryProblem(unknown, problem.cost, problem.final_cost, problem.x0, 6)
    config = FLMConfig(rounds=1, samples=7, epsilon=300.0, start_std=0.1, components=0)
    solution = lqr_flm(hidden, noise_only(6, 3, 2), config, torch.Generator().manual_seed(0), step)
    torch.testing.assert_close(solution.controller.K, gains.K, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"components": -1}, "components must be at least 0"),
        ({"epsilon": 0.0}, "epsilon must be positive"),
        ({"epsilon": math.nan}, "epsilon must be positive"),
        ({"prior_samples": 0.0}, "prior_samples must be positive"),
        ({"start_std": -1.0}, "start_std must"),
        ({"start_std": math.nan}, "start_std must"),
    ],
)
def test_bad_settings_are_named(setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        FLMConfig(**setting)


def test_limits_and_batches_are_refused():
    problem = swing_up()
    for change in ({"u_low": -1.0}, {"x0": torch.zeros(3, 2, **F64)}):
        changed = TrajectoryProblem(**vars(problem) | change)
        with pytest.raises(ValueError, match="problem must be a single one"):
            lqr_flm(changed, noise_only(20, 2, 1), FLMConfig(), torch.Generator())
