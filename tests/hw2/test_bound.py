"""The drift of the states and the error of the surrogate, on a random problem and on the worst one."""

import math

import numpy as np
import pytest

from common.types import UsageError
from hw2_policy_gradient.bound import (
    advantages,
    policy_change,
    state_marginals,
    total_variation,
)

S, A, T, GAMMA = 5, 3, 12, 0.9
RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.ones(S), (S, A))
R = RNG.normal(size=(S, A))
START = RNG.dirichlet(np.ones(S))
POLICY, OTHER = RNG.dirichlet(np.ones(A), (2, S))


def mix(eps: float) -> np.ndarray:
    return (1 - eps) * POLICY + eps * OTHER


def tightrope() -> tuple:
    """On the rope (state 0) action 0 stays on it, action 1 falls into state 1 for ever; pi never falls."""
    P = np.zeros((2, 2, 2))
    P[0, 0, 0] = P[0, 1, 1] = P[1, :, 1] = 1
    R = np.array([[1.0, 1.0], [0.0, 0.0]])  # a step from the rope pays
    policy = np.array([[1.0, 0.0], [1.0, 0.0]])
    return P, R, np.array([1.0, 0.0]), policy


def objective(policy: np.ndarray, P=P, R=R, start=START, gamma=GAMMA, horizon=T) -> float:
    """sum_t gamma^t sum_s p_t(s) sum_a pi(a|s) R(s, a), forwards in time."""
    p, total = start, 0.0
    for t in range(horizon):
        total += gamma**t * (p[:, None] * policy * R).sum()
        p = np.einsum("s,sa,san->n", p, policy, P)
    return total


@pytest.mark.parametrize("eps", [0.0, 0.01, 0.3, 1.0])
def test_gain_is_the_difference_of_the_returns(eps):
    """The lemma: J(pi') - J(pi) = sum_t gamma^t E_{p'_t, pi'}[A_t] (Kakade and Langford 2002)."""
    change = policy_change(P, R, START, POLICY, mix(eps), GAMMA, T)
    assert change.gain == pytest.approx(objective(mix(eps)) - objective(POLICY), abs=1e-12)


@pytest.mark.parametrize("eps", [0.01, 0.1, 1.0])
def test_drift_and_gap_stay_below_their_bounds(eps):
    change = policy_change(P, R, START, POLICY, mix(eps), GAMMA, T)
    t = np.arange(T)
    assert change.eps == pytest.approx(eps * total_variation(POLICY, OTHER))
    assert (change.drift <= 2 * (1 - (1 - change.eps) ** t) + 1e-12).all()
    np.testing.assert_allclose(change.drift_bound, 2 * change.eps * t)
    assert change.drift[1:].min() > 0
    assert 0 < abs(change.gain - change.surrogate_gain) <= change.gap_bound


def test_the_tightrope_meets_the_bound():
    """pi' falls with probability eps: p'_t = ((1 - eps)^t, 1 - (1 - eps)^t) against (1, 0)."""
    P, R, start, policy = tightrope()
    for eps in (0.01, 0.3):
        fallible = np.array([[1 - eps, eps], [1.0, 0.0]])
        change = policy_change(P, R, start, policy, fallible, 1.0, T)
        assert change.eps == pytest.approx(eps)
        np.testing.assert_allclose(change.drift, 2 * (1 - (1 - eps) ** np.arange(T)), atol=1e-12)


def test_surrogate_by_hand_on_the_tightrope():
    """T = 3, gamma = 1: a fall at t = 0 costs 2, at t = 1 it costs 1, at t = 2 nothing. The surrogate is
    always on the rope: -eps (2 + 1). In truth -2 eps - (1 - eps) eps = -3 eps + eps^2."""
    P, R, start, policy = tightrope()
    fallible = np.array([[0.9, 0.1], [1.0, 0.0]])
    change = policy_change(P, R, start, policy, fallible, 1.0, 3)
    assert change.surrogate_gain == pytest.approx(-0.3)
    assert change.gain == pytest.approx(-0.29)
    assert change.gap_bound == pytest.approx(2 * 0.1 * 0.1 * 1)  # t = 1 alone: 2 eps t max |E A_1|


def test_the_gap_is_of_second_order_and_the_gain_of_first():
    """Halve eps: a quarter of the gap, half of the gain."""
    gains, gaps = [], []
    for eps in (0.002, 0.001):
        change = policy_change(P, R, START, POLICY, mix(eps), GAMMA, T)
        gains.append(change.gain)
        gaps.append(change.gain - change.surrogate_gain)
    assert gains[0] / gains[1] == pytest.approx(2, rel=0.01)
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.01)


def test_an_unchanged_policy_changes_nothing():
    change = policy_change(P, R, START, POLICY, POLICY, GAMMA, T)
    assert change.eps == change.gap_bound == change.drift.max() == 0
    assert change.gain == pytest.approx(0, abs=1e-12)


def test_the_surrogate_has_the_gradient_of_the_return():
    """At pi' = pi, along any direction: what makes the policy gradient its first step."""
    h = 1e-6
    change = policy_change(P, R, START, POLICY, mix(h), GAMMA, T)
    slope = (objective(mix(h)) - objective(POLICY)) / h
    assert change.surrogate_gain / h == pytest.approx(slope, rel=1e-4)


def test_pinsker_turns_divergence_into_eps():
    """TV <= sqrt(KL / 2), the constraint that one can estimate from samples."""
    for eps in (0.01, 0.1, 1.0):
        kl = (mix(eps) * np.log(mix(eps) / POLICY)).sum(-1).max()
        assert total_variation(POLICY, mix(eps)) <= math.sqrt(kl / 2)


def test_marginals_are_distributions_that_start_at_the_start():
    p = state_marginals(P, START, POLICY, T)
    np.testing.assert_allclose(p.sum(-1), np.ones(T))
    np.testing.assert_allclose(p[0], START)
    np.testing.assert_allclose(p[1], np.einsum("s,sa,san->n", START, POLICY, P))


def test_advantages_average_to_zero_and_end_with_the_reward():
    a = advantages(P, R, POLICY, GAMMA, T)
    np.testing.assert_allclose((POLICY * a).sum(-1), np.zeros((T, S)), atol=1e-12)
    np.testing.assert_allclose(a[-1], R - (POLICY * R).sum(-1, keepdims=True))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"P": P[0]}, "P must be"),
        ({"P": 2 * P}, "P must hold"),
        ({"R": R.T}, "R must be"),
        ({"R": R * np.nan}, "R must be finite"),
        ({"start": START[:2]}, "start must be"),
        ({"policy": -POLICY}, "policy must hold"),
        ({"new_policy": POLICY * np.nan}, "new_policy must hold"),
        ({"gamma": 1.1}, "gamma must lie"),
        ({"horizon": 0}, "horizon must be"),
    ],
)
def test_bad_input_is_named(change, sentence):
    good = {"P": P, "R": R, "start": START, "policy": POLICY, "new_policy": OTHER, "gamma": 0.9, "horizon": 3}
    policy_change(**good)
    with pytest.raises(UsageError, match=sentence):
        policy_change(**good | change)
