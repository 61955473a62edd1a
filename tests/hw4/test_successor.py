"""Successor representations: identities to 1e-12, better policies for new rewards, no new data."""

import gymnasium as gym
import numpy as np
import pytest

import common.envs  # noqa: F401  registers course/...
from common.envs.finite_mdp import from_gymnasium, random_mdp
from common.envs.maze import Maze
from common.types import UsageError
from hw3_q_learning.dynamic_programming import policy_evaluation, value_iteration
from hw4_model_based.successor import (
    improved_policy,
    reward_weights,
    successor_features,
    successor_representation,
    td_successor,
)

GAMMA = 0.9


@pytest.fixture
def mdp():
    return random_mdp(12, 3, 4, np.random.default_rng(0))


def stochastic(mdp, seed=1):
    return np.random.default_rng(seed).dirichlet(np.ones(mdp.R.shape[1]), len(mdp.R))


def test_it_is_the_inverse_and_the_sum_of_all_powers(mdp):
    policy = stochastic(mdp)
    M, P_pi = successor_representation(mdp.P, policy, GAMMA), np.einsum("sa,sat->st", policy, mdp.P)
    np.testing.assert_allclose(M @ (np.eye(12) - GAMMA * P_pi), np.eye(12), atol=1e-12)
    powers = sum(GAMMA**t * np.linalg.matrix_power(P_pi, t) for t in range(400))
    np.testing.assert_allclose(M, powers, atol=1e-12)
    np.testing.assert_allclose(M.sum(1), 1 / (1 - GAMMA), atol=1e-12)


def test_times_the_reward_it_is_the_value_of_any_reward(mdp):
    policy, rng = stochastic(mdp), np.random.default_rng(2)
    M = successor_representation(mdp.P, policy, GAMMA)
    for R in (mdp.R, rng.normal(size=(12, 3))):
        V = policy_evaluation(mdp.P, R, policy, GAMMA)
        np.testing.assert_allclose(M @ (policy * R).sum(1), V, atol=1e-12)


def test_two_states_by_hand():
    """0 -> 1 -> 1: M = [[1, g / (1 - g)], [0, 1 / (1 - g)]]."""
    P = np.array([[[0.0, 1.0]], [[0.0, 1.0]]])
    found = successor_representation(P, np.array([0, 0]), 0.5)
    np.testing.assert_allclose(found, [[1, 1], [0, 2]], atol=1e-15)


def test_features_obey_bellman_and_give_action_values(mdp):
    policy, rng = stochastic(mdp), np.random.default_rng(3)
    phi, w = rng.normal(size=(12, 3, 5)), rng.normal(size=5)
    psi = successor_features(mdp.P, phi, policy, GAMMA)
    later = np.einsum("sat,tb,tbd->sad", mdp.P, policy, psi)
    np.testing.assert_allclose(psi, phi + GAMMA * later, atol=1e-12)
    V = policy_evaluation(mdp.P, phi @ w, policy, GAMMA)
    np.testing.assert_allclose(psi @ w, phi @ w + GAMMA * mdp.P @ V, atol=1e-12)


def test_weights_of_a_reward_are_found(mdp):
    phi = np.random.default_rng(4).normal(size=(12, 3, 5))
    w = np.arange(5.0)
    np.testing.assert_allclose(reward_weights(phi, phi @ w), w, atol=1e-12)


def test_the_improved_policy_is_at_least_as_good_as_each_it_knows(mdp):
    """Q >= max_i Q_i in every state and action, for new rewards; somewhere it is better than all."""
    rng = np.random.default_rng(5)
    phi = rng.normal(size=(12, 3, 4))
    known = [value_iteration(mdp.P, phi @ task, GAMMA)[1] for task in np.eye(4)]
    psi = np.stack([successor_features(mdp.P, phi, policy, GAMMA) for policy in known])
    gains = []
    for _ in range(20):
        w = rng.normal(size=4)
        improved = improved_policy(psi, w)
        Q = successor_features(mdp.P, phi, improved, GAMMA) @ w
        gains.append((Q - (psi @ w).max(0)).min())
        best = value_iteration(mdp.P, phi @ w, GAMMA)[0]
        assert (Q.max(1) <= best + 1e-9).all()
    assert min(gains) > -1e-12
    assert max(gains) > 1e-3


def test_a_known_task_keeps_its_optimum(mdp):
    phi = np.random.default_rng(6).normal(size=(12, 3, 2))
    V, policy = value_iteration(mdp.P, phi @ [1.0, 0.0], GAMMA)
    psi = successor_features(mdp.P, phi, policy, GAMMA)[None]
    improved = improved_policy(psi, np.array([1.0, 0.0]))
    np.testing.assert_allclose(policy_evaluation(mdp.P, phi @ [1.0, 0.0], improved, GAMMA), V, atol=1e-9)


def test_a_new_goal_in_the_maze_is_reached_without_a_single_step():
    """Known: the ways to two corners. New: one reward in each of them, of other sizes; the nearer one may be
    worth less. The answer is the optimum that value iteration finds with all the dynamics."""
    mdp = from_gymnasium(Maze(("S....", ".....", "....G")))
    corners = [4, 10]  # upper right, lower left
    phi = np.stack([mdp.P[:, :, corner] for corner in corners], -1)  # arrival at each
    known = [value_iteration(mdp.P, phi @ task, GAMMA)[1] for task in np.eye(2)]
    psi = np.stack([successor_features(mdp.P, phi, policy, GAMMA) for policy in known])
    for w in ([1.0, 0.3], [0.1, 1.0], [1.0, 1.0]):
        found = policy_evaluation(mdp.P, phi @ w, improved_policy(psi, np.array(w)), GAMMA)
        best = value_iteration(mdp.P, phi @ w, GAMMA)[0]
        assert mdp.start @ found == pytest.approx(mdp.start @ best, abs=1e-9)


def test_learned_from_transitions_it_becomes_the_same():
    """TD with steps 1/n along a random walk, no model: within 0.15 of M, whose entries are up to 3.5."""
    rng = np.random.default_rng(7)
    P = random_mdp(4, 1, 2, rng).P
    M, visits, s = np.zeros((4, 4)), np.zeros(4), 0
    for _ in range(20_000):
        s_next = rng.choice(4, p=P[s, 0])
        visits[s] += 1
        M, s = td_successor(M, s, s_next, 0.7, visits[s] ** -0.7, False), s_next
    np.testing.assert_allclose(M, successor_representation(P, np.zeros(4, int), 0.7), atol=0.15)


def test_the_end_is_visited_once():
    M = td_successor(np.full((2, 2), 9.0), 0, 1, 0.5, 1.0, True)
    np.testing.assert_allclose(M, [[1, 0.5], [9, 9]])


def test_the_frozen_lake_agrees_with_its_published_value():
    """V*(s_0) = 0.542025932 at gamma = 0.99."""
    mdp = from_gymnasium(gym.make("FrozenLake-v1"))
    _, policy = value_iteration(mdp.P, mdp.R, 0.99, 1e-12)
    M = successor_representation(mdp.P, policy, 0.99)
    r = np.take_along_axis(mdp.R, policy[:, None], 1)[:, 0]
    assert mdp.start @ M @ r == pytest.approx(0.542025932000, abs=1e-10)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ((np.ones((2, 1, 3)) / 3, np.zeros(2, int), 0.9), r"P must be \[S, A, S\], got \[2, 1, 3\]"),
        ((np.ones((2, 1, 2)), np.zeros(2, int), 0.9), "P must hold probabilities"),
        ((np.full((2, 1, 2), np.nan), np.zeros(2, int), 0.9), "P must hold probabilities"),
        ((np.eye(2)[:, None], np.ones(2, int), 0.9), r"policy must be \[2\] actions below 1"),
        ((np.eye(2)[:, None], np.ones((2, 1)) / 2, 0.9), "policy must be"),
        ((np.eye(2)[:, None], np.zeros(2, int), 1.0), r"gamma must lie in \[0, 1\), got 1.0"),
    ],
)
def test_bad_input_is_refused(args, sentence):
    with pytest.raises(UsageError, match=sentence):
        successor_representation(*args)
