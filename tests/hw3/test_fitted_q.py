"""A table is value iteration; the published counterexamples, to their numbers."""

import math

import numpy as np
import pytest

from common.envs.finite_mdp import random_mdp
from common.types import UsageError
from hw3_q_learning.dynamic_programming import action_values, value_iteration
from hw3_q_learning.fitted_q import (
    Dataset,
    fitted_q_iteration,
    fitted_value_iteration,
    mean_step,
    online_q_iteration,
    projection,
    record,
    star,
    two_states,
)
from hw3_q_learning.tabular import q_learning
from tests.hw3.environments import garnet_env

TABLE = np.eye(10).reshape(5, 2, 10)  # features [S, A, S A]


def random_data(episodes: int = 10) -> Dataset:
    rng = np.random.default_rng(0)
    return record(garnet_env(), episodes, lambda s, episode: int(rng.integers(2)), 0)


def test_a_table_of_features_is_value_iteration():
    mdp = random_mdp(5, 2, 2, np.random.default_rng(0))
    path = fitted_value_iteration(mdp.P, mdp.R, 0.9, np.eye(5), np.arange(1, 6), 30)
    V = np.zeros(5)
    for phi in path:
        np.testing.assert_allclose(phi, V, atol=1e-12)
        V = action_values(mdp.P, mdp.R, V, 0.9).max(1)


def test_fitted_q_iteration_solves_the_counted_model():
    """With a table: value iteration on the frequencies of the data, exactly."""
    data = random_data()
    P, R, n = np.zeros((5, 2, 5)), np.zeros((5, 2)), np.zeros((5, 2))
    np.add.at(P, (data.state, data.action, data.next_state), 1)
    np.add.at(R, (data.state, data.action), data.reward)
    np.add.at(n, (data.state, data.action), 1)
    assert n.min() > 0
    V, _ = value_iteration(P / n[..., None], R / n, 0.8, 1e-13)
    Q = TABLE @ fitted_q_iteration(data, TABLE, 0.8, 150)[-1]
    np.testing.assert_allclose(Q, action_values(P / n[..., None], R / n, V, 0.8), atol=1e-12)


def test_terminated_transitions_do_not_bootstrap():
    """One state that pays 1 and ends, or does not: 1, or 1 / (1 - 1/2)."""
    one = [np.zeros(1, int), np.zeros(1, int), np.ones(1), np.zeros(1, int)]
    for terminated, value in ((True, 1), (False, 2)):
        data = Dataset(*one, np.array([terminated]))
        assert fitted_q_iteration(data, np.ones((1, 1, 1)), 0.5, 60)[-1] == pytest.approx(value)


def test_online_q_iteration_with_a_table_is_q_learning():
    """Bit for bit: the gradient of a table is one at (s, a)."""
    phi = online_q_iteration(garnet_env(), TABLE, 20, 0.1, 0.9, 0.3, 4)
    assert (TABLE @ phi == q_learning(garnet_env(), 20, 0.1, 0.9, 0.3, 4)).all()


def test_projection_is_the_weighted_least_squares_fit():
    rng = np.random.default_rng(0)
    f, w, y = rng.standard_normal((6, 2)), rng.random(6), rng.standard_normal(6)
    Pi = projection(f, w)
    np.testing.assert_allclose(Pi @ Pi, Pi, atol=1e-12)
    np.testing.assert_allclose(f.T @ (w * (y - Pi @ y)), 0, atol=1e-12)
    norm = lambda x: math.sqrt(w @ x**2)  # noqa: E731
    assert norm(Pi @ y) <= norm(y)


@pytest.mark.parametrize("gamma", [0.5, 0.8, 0.9, 1.0])
def test_two_states_grow_by_six_fifths_gamma(gamma):
    """argmin (phi - 2 gamma x)^2 + (2 phi - 2 gamma x)^2 is 6/5 gamma x: grows above gamma = 5/6."""
    P, R, f, w, start = two_states()
    path = fitted_value_iteration(P, R, gamma, f, w, 50, start)
    np.testing.assert_allclose(path[:, 0], (1.2 * gamma) ** np.arange(51), rtol=1e-12)
    assert (abs(path[-1]) > 1) == (gamma > 5 / 6)
    np.testing.assert_allclose(fitted_value_iteration(P, R, gamma, f, w, 5)[-1], 0)  # and 0 is a perfect fit


def test_each_factor_contracts_and_the_product_does_not():
    """On V = (1, 2): B by gamma in the largest entry, Pi by one in the mean square, Pi B grows in both."""
    P, R, f, w, _ = two_states()
    V = f[:, 0]
    BV = action_values(P, R, V, 0.9).max(1)
    PiBV = projection(f, w) @ BV
    assert np.abs(BV).max() == pytest.approx(0.9 * np.abs(V).max())
    assert w @ PiBV**2 <= w @ BV**2
    np.testing.assert_allclose(PiBV, 1.08 * V)


@pytest.mark.parametrize("gamma", [0.5, 0.88, 0.89, 0.99])
def test_star_diverges_from_fifteen_seventeenths_on(gamma):
    """By hand, for the values (V_1, V_7): 7 dV/dt = [[-10, 12 gamma - 2], [-12, 17 gamma - 5]] V. Trace
    17 gamma - 15, determinant 26 (1 - gamma)."""
    P, R, f, w, _ = star()
    A, b = mean_step(P.reshape(7, 7), R, np.zeros(7, int), gamma, f, w)
    matrix = np.array([[-10, 12 * gamma - 2], [-12, 17 * gamma - 5]]) / 7
    pick = f @ A  # dV/dt from phi
    for phi in np.eye(8)[6:]:  # V_1 and V_7 of the two features that the six share
        V = f @ phi
        np.testing.assert_allclose((pick @ phi)[[0, 6]], matrix @ V[[0, 6]], atol=1e-12)
    assert (np.linalg.eigvals(A).real.max() > 1e-12) == (gamma > 15 / 17)
    np.testing.assert_array_equal(b, 0)


def test_star_diverges_by_small_steps_and_converges_by_full_fits():
    P, R, f, w, phi = star()
    A, _ = mean_step(P.reshape(7, 7), R, np.zeros(7, int), 0.99, f, w)
    first, steps = np.abs(f @ phi).max(), phi
    for _ in range(20_000):
        steps = steps + 0.01 * A @ steps
    assert np.abs(f @ steps).max() > 100 * first
    fits = fitted_value_iteration(P, R, 0.99, f, w, 2000, phi)
    np.testing.assert_allclose(f @ fits[1], 0.99 * (f @ phi)[6])  # any V can be represented
    assert np.abs(f @ fits[-1]).max() < 1e-6


def test_averages_over_groups_of_states_always_converge():
    """Pi then contracts in the largest entry too (Gordon 1995): |V_k - V| falls by gamma or faster."""
    mdp = random_mdp(12, 3, 3, np.random.default_rng(0))
    groups = np.repeat(np.eye(4), 3, 0)
    V = fitted_value_iteration(mdp.P, mdp.R, 0.9, groups, np.ones(12), 400) @ groups.T
    error = np.abs(V - V[-1]).max(1)[:100]
    assert (error[1:] <= 0.9 * error[:-1] + 1e-12).all()


def test_features_that_lack_nothing_find_the_optimum_from_data():
    """8,000 transitions, 5 states: Q within 0.15 of 2.9; six sets of data were within 0.02 to 0.08."""
    env, data = garnet_env(), random_data(80)
    V, _ = value_iteration(env.mdp.P, env.mdp.R, 0.8)
    rng = np.random.default_rng(0)
    mixed = TABLE @ rng.standard_normal((10, 10))  # a basis that is no table
    Q = mixed @ fitted_q_iteration(data, mixed, 0.8, 100)[-1]
    assert np.abs(Q - action_values(env.mdp.P, env.mdp.R, V, 0.8)).max() < 0.15


def columns(**change) -> Dataset:
    zero = np.zeros(2, int)
    return Dataset(zero, zero, np.zeros(2), zero, np.zeros(2, bool))._replace(**change)


ONE, P, R = np.ones((1, 1, 1)), np.ones((1, 1, 1)), np.zeros((1, 1))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: fitted_q_iteration(columns(), ONE[0], 0.9, 1), "features, weights and start must be finite"),
        (lambda: fitted_q_iteration(columns(), ONE * np.nan, 0.9, 1), "must be finite arrays"),
        (lambda: fitted_q_iteration(columns(), ONE, 1.1, 1), "gamma must lie"),
        (lambda: fitted_q_iteration(columns(reward=np.array([0, np.nan])), ONE, 0.9, 1), "finite rewards"),
        (lambda: fitted_q_iteration(columns(reward=np.zeros(1)), ONE, 0.9, 1), "columns .* of one length"),
        (lambda: fitted_q_iteration(columns(action=np.ones(2, int)), ONE, 0.9, 1), "data.action must be"),
        (lambda: fitted_q_iteration(columns(state=np.zeros(2)), ONE, 0.9, 1), "data.state must be integers"),
        (lambda: fitted_value_iteration(P, R, 0.9, ONE[0], np.ones(2), 1), "features and weights must be"),
        (lambda: fitted_value_iteration(P, R, 1.9, ONE[0], np.ones(1), 1), "gamma must lie"),
        (lambda: fitted_value_iteration(P, R, 0.9, ONE[0], -np.ones(1), 1), "weights must not be negative"),
        (lambda: fitted_value_iteration(P, R, 0.9, ONE[0], np.ones(1), -1), "iterations must be at least 0"),
        (lambda: fitted_q_iteration(columns(), ONE, 0.9, 1, np.ones(2)), r"start must be \[1\], got \[2\]"),
        (lambda: mean_step(P[0], R, np.zeros(1, int), math.nan, ONE[0], np.ones(1)), "gamma must lie"),
        (lambda: online_q_iteration(garnet_env(), ONE, 1, 0.1, 0.9, 0.1, 0), r"features must be \[5, 2, d\]"),
        (lambda: online_q_iteration(garnet_env(), TABLE, 9, 1e60, 0.9, 0.1, 0), "alpha = 1e.60 is too large"),
        (lambda: online_q_iteration(garnet_env(), TABLE, 1, math.nan, 0.9, 0.1, 0), "alpha must be finite"),
        (lambda: record(garnet_env(), 0, lambda s, k: 0, 0), "episodes must be at least 1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(call, sentence):
    with np.errstate(all="ignore"), pytest.raises(UsageError, match=sentence):
        call()
