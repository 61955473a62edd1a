"""The lecture's probabilities, and draws that have them."""

import math

import numpy as np
import pytest

from common.types import UsageError
from hw3_q_learning.exploration import boltzmann, draw_boltzmann, draw_epsilon_greedy, epsilon_greedy

Q = [1.0, 3.0, 2.0, 3.0 - 1e-9]


def test_epsilon_greedy_by_hand():
    np.testing.assert_allclose(epsilon_greedy([1, 3, 2], 0.2), [0.1, 0.8, 0.1])


def test_boltzmann_by_hand():
    """exp(ln 2 / 1) : exp(0) = 2 : 1; at half the temperature 4 : 1."""
    np.testing.assert_allclose(boltzmann([math.log(2), 0], 1.0), [2 / 3, 1 / 3])
    np.testing.assert_allclose(boltzmann([math.log(2), 0], 0.5), [4 / 5, 1 / 5])


def test_limits():
    """Both are greedy at zero; random among the others at epsilon = 1, among all at a high temperature."""
    np.testing.assert_allclose(epsilon_greedy(Q[:3], 0.0), [0, 1, 0])
    np.testing.assert_allclose(epsilon_greedy(Q[:3], 1.0), [0.5, 0, 0.5])
    np.testing.assert_allclose(boltzmann(Q[:3], 1e-3), [0, 1, 0])
    np.testing.assert_allclose(boltzmann(Q[:3], 1e9), 1 / 3)


def test_equals_share_and_shifts_do_not_matter():
    np.testing.assert_allclose(epsilon_greedy([2, 2, 1], 0.2), [0.45, 0.45, 0.1])
    np.testing.assert_allclose(epsilon_greedy([2, 2, 2], 0.2), 1 / 3)
    np.testing.assert_allclose(boltzmann([1e6, 1e6 - 1, 0], 1.0), boltzmann([0, -1, -1e6], 1.0))


def test_batches_and_single_actions():
    q = np.random.default_rng(0).standard_normal((4, 3, 2))
    for rule in (epsilon_greedy, boltzmann):
        p = rule(q, 0.3)
        np.testing.assert_allclose(p.sum(-1), 1)
        np.testing.assert_allclose(p[2, 1], rule(q[2, 1], 0.3))
        np.testing.assert_allclose(rule([5.0], 0.3), [1])
    assert draw_epsilon_greedy([5.0], 1.0, np.random.default_rng(0)) == 0


@pytest.mark.parametrize("q", [[1.0, 3.0, 2.0], [2.0, 2.0, 1.0], [-1e9, 0.0, 1.0]])
@pytest.mark.parametrize(
    ("rule", "draw"), [(epsilon_greedy, draw_epsilon_greedy), (boltzmann, draw_boltzmann)]
)
def test_draws_have_these_probabilities(q, rule, draw):
    """20,000 draws, each frequency within five standard errors."""
    rng, p = np.random.default_rng(0), rule(q, 0.4)
    frequency = np.bincount([draw(q, 0.4, rng) for _ in range(20_000)], minlength=3) / 20_000
    assert (np.abs(frequency - p) <= 5 * np.sqrt(p * (1 - p) / 20_000)).all()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: epsilon_greedy(Q, 1.1), r"epsilon must lie in \[0, 1\]"),
        (lambda: epsilon_greedy(Q, math.nan), r"epsilon must lie in \[0, 1\]"),
        (lambda: epsilon_greedy([1, math.nan], 0.1), "q must be finite"),
        (lambda: epsilon_greedy([], 0.1), "q must be finite"),
        (lambda: boltzmann(Q, 0.0), "temperature must be positive"),
        (lambda: boltzmann([math.inf, 1], 1.0), "q must be finite"),
        (lambda: draw_epsilon_greedy(Q, -0.1, np.random.default_rng(0)), "epsilon must lie"),
        (lambda: draw_boltzmann(Q, -0.1, np.random.default_rng(0)), "temperature must be positive"),
    ],
)
def test_bad_input_is_one_sentence(call, sentence):
    with pytest.raises(UsageError, match=sentence):
        call()
