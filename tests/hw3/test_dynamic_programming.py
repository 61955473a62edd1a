"""Against linear solves, enumeration of all policies, published values and hand numbers."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
from scipy import sparse

from common.envs.finite_mdp import from_gymnasium, random_mdp
from common.types import UsageError
from hw3_q_learning import dynamic_programming
from hw3_q_learning.dynamic_programming import (
    action_values,
    policy_evaluation,
    policy_iteration,
    state_marginals,
    stationary_distribution,
    value_iteration,
)

GAMMAS = [0.0, 0.5, 0.9, 0.99]
SOLVERS = [value_iteration, policy_iteration]
# One state at rest; from the other, action 0 waits for nothing, action 1 arrives with reward 1.
WAIT_OR_ARRIVE = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]), np.array([[0, 1], [0, 0]])


def garnet(seed: int = 0, states: int = 30, actions: int = 3):
    """P, R and a policy of each kind."""
    rng = np.random.default_rng(seed)
    mdp = random_mdp(states, actions, 3, rng)
    actions_, probabilities = rng.integers(actions, size=states), rng.dirichlet(np.ones(actions), states)
    return mdp.P, mdp.R, actions_, probabilities


def rows(P: np.ndarray) -> sparse.csr_array:
    """[S, A, S] -> sparse [S A, S]."""
    return sparse.csr_array(P.reshape(-1, P.shape[2]))


def test_two_states_by_hand():
    """0 goes to 1 with reward 1, 1 stays for reward 2, gamma = 1/2: V(1) = 4, V(0) = 3."""
    P = np.array([[[0.0, 1.0]], [[0.0, 1.0]]])
    np.testing.assert_allclose(policy_evaluation(P, np.array([[1], [2]]), np.zeros(2, int), 0.5), [3, 4])


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("form", [np.asarray, rows], ids=["dense", "sparse"])
@pytest.mark.parametrize("kind", [2, 3], ids=["actions", "probabilities"])
def test_policy_evaluation_is_the_linear_solve(gamma, form, kind):
    P, R, *_ = mdp = garnet()
    policy = np.eye(3)[mdp[2]] if kind == 2 else mdp[3]
    P_pi, R_pi = np.einsum("sa,san->sn", policy, P), (policy * R).sum(1)
    expected = np.linalg.solve(np.eye(30) - gamma * P_pi, R_pi)
    V = policy_evaluation(form(P), R, mdp[kind], gamma)
    np.testing.assert_allclose(V, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize("form", [np.asarray, rows], ids=["dense", "sparse"])
def test_optimum_is_the_best_of_all_policies(gamma, solve, form):
    """81 policies of 4 states and 3 actions; one of them is the best in every state at once."""
    P, R, *_ = garnet(1, 4)
    values = [policy_evaluation(P, R, np.array(p), gamma) for p in itertools.product(range(3), repeat=4)]
    V, policy = solve(form(P), R, gamma)
    np.testing.assert_allclose(V, np.max(values, 0), rtol=0, atol=1e-10)
    np.testing.assert_allclose(policy_evaluation(P, R, policy, gamma), V, rtol=0, atol=1e-10)


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize(
    ("name", "gamma", "value"),
    [
        ("FrozenLake-v1", 0.9, 0.068890904889),
        ("FrozenLake-v1", 0.99, 0.542025932000),
        ("FrozenLake-v1", 1.0, 14 / 17),
        ("CliffWalking-v1", 0.99, -12.2478977001),
        ("CliffWalking-v1", 1.0, -13),
        ("Taxi-v4", 1.0, 7.93),
    ],
)
def test_published_optimal_values(solve, name, gamma, value):
    mdp = from_gymnasium(gym.make(name))
    V, policy = solve(mdp.P, mdp.R, gamma)
    assert mdp.start @ V == pytest.approx(value, abs=1e-10)
    np.testing.assert_allclose(policy_evaluation(mdp.P, mdp.R, policy, gamma), V, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("horizon", "success"), [(100, 0.7441902878), (200, 0.8167335047)])
def test_sweeps_from_zero_are_the_optimum_of_a_finite_horizon(horizon, success):
    """FrozenLake within its time limit, published to ten digits."""
    mdp = from_gymnasium(gym.make("FrozenLake-v1"))
    V = np.zeros(17)
    for _ in range(horizon):
        V = action_values(mdp.P, mdp.R, V, 1.0).max(1)
    assert V[0] == pytest.approx(success, abs=1e-10)


def test_the_backup_contracts_by_gamma():
    """By gamma at most for any two V, by exactly gamma for two that differ by a constant."""
    P, R, *_ = garnet()
    rng, factors = np.random.default_rng(0), []
    for _ in range(100):
        V, W = rng.standard_normal((2, 30))
        BV, BW = (action_values(P, R, X, 0.9).max(1) for X in (V, W))
        factors.append(np.abs(BV - BW).max() / np.abs(V - W).max())
    assert max(factors) < 0.9
    BV, BW = (action_values(P, R, X, 0.9).max(1) for X in (V, V + 2))
    np.testing.assert_allclose(BW - BV, 1.8, rtol=1e-12)


@pytest.mark.parametrize("tol", [1e-1, 1e-4, 1e-8])
@pytest.mark.parametrize("sign", [1, -1])
def test_value_iteration_is_as_near_as_it_says(tol, sign):
    """Rewards of one sign make all of V rise or fall: the bound must hold on both sides."""
    P, R, *_ = garnet()
    V, _ = policy_iteration(P, sign * R, 0.99)
    assert np.abs(value_iteration(P, sign * R, 0.99, tol)[0] - V).max() <= tol


def test_large_rewards_do_not_loop_for_ever():
    """1e-10 is below the rounding of V = 1e12."""
    P, R, *_ = garnet()
    V, _ = value_iteration(P, 1e10 * R, 0.99)
    np.testing.assert_allclose(V, policy_iteration(P, 1e10 * R, 0.99)[0], rtol=1e-12)


@pytest.mark.parametrize("form", [np.asarray, rows], ids=["dense", "sparse"])
@pytest.mark.parametrize("solve", SOLVERS)
def test_undiscounted_policy_does_not_wait_for_ever(solve, form):
    """Waiting is as good as arriving by Q, at V = 1; a policy that waits has V = 0."""
    P, R = WAIT_OR_ARRIVE
    V, policy = solve(form(P), R, 1.0)
    np.testing.assert_allclose(V, [1, 0])
    assert policy[0] == 1


def test_undiscounted_values_of_single_policies():
    P, R = WAIT_OR_ARRIVE
    np.testing.assert_allclose(policy_evaluation(P, R, np.array([0, 0]), 1.0), [0, 0])
    np.testing.assert_allclose(policy_evaluation(P, R, np.array([1, 0]), 1.0), [1, 0])
    # Each round costs 1, and half of them arrive: two rounds.
    uniform, R = np.full((2, 2), 0.5), np.array([[-1, -1], [0, 0]])
    np.testing.assert_allclose(policy_evaluation(P, R, uniform, 1.0), [-2, 0])
    np.testing.assert_allclose(policy_evaluation(rows(P), R, uniform, 1.0), [-2, 0])


def test_rest_may_be_a_cycle_that_is_left_at_a_price():
    """0 <-> 1 for nothing, or from 1 to 2 and its rest for a reward of -1, or of 3: V is 0, or 3."""
    P = np.zeros((3, 2, 3))
    P[0, :, 1] = P[1, 0, 0] = P[1, 1, 2] = P[2, :, 2] = 1
    for prize, value in ((-1, 0), (3, 3)):
        R = np.array([[0, 0], [0, prize], [0, 0]])
        for solve in SOLVERS:
            np.testing.assert_allclose(solve(P, R, 1.0)[0], [value, value, 0])


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize("sign", [1, -1])
def test_endless_rewards_need_a_discount(solve, sign, monkeypatch):
    """One may stay for 1 a step for ever; or all must, for -1."""
    monkeypatch.setattr(dynamic_programming, "SWEEPS", 1000)
    P = WAIT_OR_ARRIVE[0] if sign > 0 else np.eye(2)[:, None].repeat(2, 1)
    R = np.array([[sign, min(sign, 0)], [0, 0]])
    with pytest.raises(UsageError, match="gamma must be below 1 here"):
        solve(P, R, 1.0)
    with pytest.raises(UsageError, match="gamma must be below 1 here"):
        policy_evaluation(P, R, np.array([0, 0]), 1.0)


def test_state_marginals_by_hand():
    """Half of 0 goes to 1 in every step, where it stays: 1, 1/2, 1/4."""
    P = np.array([[[0.5, 0.5]], [[0.0, 1.0]]])
    p = state_marginals(P, [1, 0], np.zeros(2, int), 3)
    np.testing.assert_array_equal(p, [[1, 0], [0.5, 0.5], [0.25, 0.75]])


@pytest.mark.parametrize("form", [np.asarray, rows], ids=["dense", "sparse"])
def test_discounted_marginals_hold_the_value(form):
    """start V = sum_t gamma^t p_t R_pi."""
    P, R, _, policy = garnet()
    p = state_marginals(form(P), np.eye(30)[4], policy, 400)
    earned = 0.9 ** np.arange(400) @ p @ (policy * R).sum(1)
    assert earned == pytest.approx(policy_evaluation(P, R, policy, 0.9)[4], abs=1e-12)


def test_stationary_distribution_of_a_queue():
    """Up with 1/4, down with 1/2, 0 to 5: detailed balance, mu(k) ~ 2^-k."""
    P = np.zeros((6, 1, 6))
    for k in range(6):
        P[k, 0, min(k + 1, 5)] += 0.25
        P[k, 0, max(k - 1, 0)] += 0.5
        P[k, 0, k] += 0.25
    expected = 0.5 ** np.arange(6)
    for form in (P, rows(P)):
        mu = stationary_distribution(form, np.zeros(6, int))
        np.testing.assert_allclose(mu, expected / expected.sum(), rtol=0, atol=1e-14)


def test_stationary_distribution_is_where_the_marginals_lead():
    P, _, _, policy = garnet()
    mu = stationary_distribution(P, policy)
    np.testing.assert_allclose(mu, state_marginals(P, np.eye(30)[0], policy, 300)[-1], atol=1e-13)


def test_stationary_distribution_of_a_periodic_chain_with_a_way_in():
    """2 -> 0 <-> 1: half and half, though the marginals never settle."""
    P = np.eye(3)[[1, 0, 0]][:, None]
    np.testing.assert_allclose(stationary_distribution(P, np.zeros(3, int)), [0.5, 0.5, 0])


def test_stationary_distribution_must_not_depend_on_the_start():
    with pytest.raises(UsageError, match="policy must end in one closed class of states, it has 2"):
        stationary_distribution(np.eye(2)[:, None], np.zeros(2, int))


def test_large_and_sparse():
    """5e4 states, 4 actions: 0.8 million transitions; the residual proves it."""
    rng, S = np.random.default_rng(0), 50_000
    data = (np.full(16 * S, 0.25), rng.integers(S, size=16 * S), np.arange(0, 16 * S + 1, 4))
    P, R = sparse.csr_array(data, (4 * S, S)), rng.random((S, 4))
    V, policy = value_iteration(P, R, 0.8, 1e-6)
    Q = action_values(P, R, V, 0.8)
    assert np.abs(Q.max(1) - V).max() <= 2e-6
    assert (policy == Q.argmax(1)).mean() > 0.999


P, R, POLICY = np.full((2, 1, 2), 0.5), np.zeros((2, 1)), np.zeros(2, int)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: value_iteration(P[0], R, 0.9), r"P must be \[S, A, S\]"),
        (lambda: value_iteration(P[:0], R, 0.9), r"P must be \[S, A, S\]"),
        (lambda: value_iteration(P * 0.9, R, 0.9), "P must hold probabilities"),
        (lambda: value_iteration(rows(P) * 0.9, R, 0.9), "P must hold probabilities"),
        (lambda: value_iteration(P * np.nan, R, 0.9), "P must hold probabilities"),
        (lambda: value_iteration(rows(P) * np.nan, R, 0.9), "P must hold probabilities"),
        (lambda: value_iteration(P + np.array([1, -1]), R, 0.9), "P must hold probabilities"),
        (lambda: value_iteration(rows(P)[:1], R, 0.9), r"sparse P must be \[S A, S\]"),
        (lambda: policy_iteration(P, R[:1], 0.9), r"R must be \[2, 1\]"),
        (lambda: policy_iteration(P, R * np.nan, 0.9), "R must be finite"),
        (lambda: policy_iteration(P, R, 1.1), r"gamma must lie in \[0, 1\]"),
        (lambda: policy_iteration(P, R, np.nan), r"gamma must lie in \[0, 1\]"),
        (lambda: value_iteration(P, R, 0.9, 0.0), "tol must be positive"),
        (lambda: policy_evaluation(P, R, POLICY + 1, 0.9), r"policy must be \[2\] actions in \[0, 0\]"),
        (lambda: policy_evaluation(P, R, POLICY[:1], 0.9), r"policy must be \[2\] actions"),
        (lambda: policy_evaluation(P, R, POLICY + 0.5, 0.9), r"policy must be \[2\] actions"),
        (lambda: policy_evaluation(P, R, R + 0.5, 0.9), "policy must be .* rows that sum to one"),
        (lambda: policy_evaluation(P, R, R * np.nan, 0.9), "policy must be .* rows that sum to one"),
        (lambda: action_values(P, R, np.zeros(3), 0.9), r"V must be finite and \[2\]"),
        (lambda: action_values(P, R, np.full(2, np.inf), 0.9), r"V must be finite and \[2\]"),
        (lambda: state_marginals(P, [1, 1], POLICY, 3), "start must hold the probabilities of 2 states"),
        (lambda: state_marginals(P, [1], POLICY, 3), "start must hold the probabilities of 2 states"),
        (lambda: state_marginals(P, [1, 0], POLICY, 0), "horizon must be at least 1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(call, sentence):
    with pytest.raises(UsageError, match=sentence):
        call()
