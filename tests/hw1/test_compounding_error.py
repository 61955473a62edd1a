"""The tightrope: published numbers, the chain's matrix, Monte Carlo, and the powers of T."""

import numpy as np
import pytest

from common.types import UsageError
from hw1_imitation.compounding_error import expected_cost, mistake_probability, simulate, slope


def test_the_cost_of_fifty_steps():
    """T = 50, epsilon = 0.01: 50 - 99 (1 - 0.99^50) = 10.8956 of at most epsilon T^2 = 25, or epsilon T."""
    assert expected_cost(50, 0.01) == pytest.approx(50 - 99 * (1 - 0.99**50), abs=1e-12)
    assert round(expected_cost(50, 0.01), 4) == 10.8956
    assert expected_cost(50, 0.01, recover=True) == pytest.approx(0.5, abs=1e-12)


def test_two_steps_by_hand():
    """The first errs with 1/4, the second where it has fallen or errs: 1/4 + 3/4 1/4."""
    assert mistake_probability(2, 0.25).tolist() == pytest.approx([1 / 4, 7 / 16])
    assert mistake_probability(2, 0.25, recover=True).tolist() == [0.25, 0.25]


@pytest.mark.parametrize("recover", [False, True])
def test_probabilities_are_the_marginals_of_the_chain(recover):
    """On the rope, off it: p_t = p_{t-1} P."""
    epsilon, p = 0.03, np.array([1.0, 0.0])
    P = np.array([[1 - epsilon, epsilon], [1 - epsilon, epsilon] if recover else [0.0, 1.0]])
    for probability in mistake_probability(40, epsilon, recover):
        p = p @ P
        assert probability == pytest.approx(p[1], abs=1e-14)


@pytest.mark.parametrize("recover", [False, True])
@pytest.mark.parametrize(("horizon", "epsilon"), [(50, 0.01), (20, 0.3), (5, 0.9)])
def test_monte_carlo_agrees_within_four_standard_errors(horizon, epsilon, recover):
    costs = simulate(horizon, epsilon, recover, 20_000, np.random.default_rng(0))
    error = costs.std() / np.sqrt(len(costs))
    assert abs(costs.mean() - expected_cost(horizon, epsilon, recover)) < 4 * error


@pytest.mark.parametrize("epsilon", [1e-12, 1e-4, 0.01, 0.5, 1.0])
def test_the_lectures_bound_holds(epsilon):
    for horizon in (1, 2, 50, 1000):
        assert expected_cost(horizon, epsilon) <= min(epsilon * horizon**2, horizon) * (1 + 1e-12)
        assert expected_cost(horizon, epsilon, recover=True) == pytest.approx(epsilon * horizon)


def test_a_tiny_epsilon_keeps_its_digits():
    """epsilon T (T + 1) / 2 to first order."""
    assert expected_cost(1000, 1e-13) == pytest.approx(1e-13 * 1000 * 1001 / 2, rel=1e-9)


def test_cloning_grows_with_the_square_of_the_horizon_and_dagger_linearly():
    """While epsilon T is small; later cloning errs at nearly every step, and grows linearly too."""
    horizons = np.array([50, 100, 200, 400, 800])
    cost = lambda recover, epsilon: [expected_cost(int(T), epsilon, recover) for T in horizons]  # noqa: E731
    assert slope(horizons, cost(False, 1e-7)) == pytest.approx(2, abs=0.01)
    assert slope(horizons, cost(True, 1e-7)) == pytest.approx(1, abs=1e-9)
    assert slope(horizons, cost(False, 0.5)) == pytest.approx(1, abs=0.02)


def test_measured_slopes_are_two_and_one():
    """Of walks, not of the formula, within four standard errors: epsilon = 1e-3, 10 to 80 steps."""
    horizons, rng = np.array([10, 20, 40, 80]), np.random.default_rng(0)
    for recover, power in ((False, 2), (True, 1)):
        costs = [simulate(int(T), 1e-3, recover, 40_000, rng).mean() for T in horizons]
        exact = slope(horizons, [expected_cost(int(T), 1e-3, recover) for T in horizons])
        assert exact == pytest.approx(power, abs=0.12)
        assert slope(horizons, costs) == pytest.approx(exact, abs=0.12)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ((0, 0.1), "horizon must lie in .* got 0"),
        ((10**12, 0.1), "horizon must lie in"),
        ((5, -0.1), "epsilon must lie in"),
        ((5, float("nan")), "epsilon must lie in"),
        ((5, 1.1), "epsilon must lie in"),
    ],
)
def test_bad_input_is_named(args, sentence):
    with pytest.raises(UsageError, match=sentence):
        expected_cost(*args)
    with pytest.raises(UsageError, match=sentence):
        simulate(*args, False, 3, np.random.default_rng(0))
