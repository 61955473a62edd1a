"""Toy-text environments as arrays: published optimal values, the environment's own steps, refusals."""

import gymnasium as gym
import numpy as np
import pytest

from common.envs.finite_mdp import FiniteMDP, from_gymnasium, random_mdp
from common.types import UsageError


def optimal_value(mdp: FiniteMDP, gamma: float, sweeps: int = 4000) -> np.ndarray:
    """V <- max_a R + gamma P V, from zero."""
    V, P = np.zeros(len(mdp.P)), mdp.P.reshape(-1, len(mdp.P))
    for _ in range(sweeps):
        V, before = (mdp.R + gamma * (P @ V).reshape(mdp.R.shape)).max(1), V
        if np.abs(V - before).max() < 1e-14:
            break
    return V


@pytest.mark.parametrize(
    "name", ["FrozenLake-v1", "FrozenLake8x8-v1", "CliffWalking-v1", "CliffWalkingSlippery-v1", "Taxi-v4"]
)
def test_rows_are_probabilities_and_the_last_state_absorbs(name):
    env = gym.make(name)
    mdp = from_gymnasium(env)
    S, A = env.observation_space.n, env.action_space.n
    assert mdp.P.shape == (S + 1, A, S + 1)
    assert np.abs(mdp.P.sum(-1) - 1).max() < 1e-12
    assert mdp.start.sum() == pytest.approx(1)
    assert mdp.start[S] == 0
    assert (mdp.P[S, :, S] == 1).all()
    assert (mdp.R[S] == 0).all()
    assert (mdp.P[:S, :, S] > 0).any()  # something ends


@pytest.mark.parametrize(
    ("name", "gamma", "value"),
    [
        ("FrozenLake-v1", 0.9, 0.068890904889),
        ("FrozenLake-v1", 0.95, 0.180471578397),
        ("FrozenLake-v1", 0.99, 0.542025932000),
        ("FrozenLake-v1", 1.0, 14 / 17),
        ("CliffWalking-v1", 1.0, -13),
        ("CliffWalking-v1", 0.99, -12.2478977001),
    ],
)
def test_optimal_value_of_the_first_state(name, gamma, value):
    """Published to twelve digits; a hole that led back to life, or a goal that paid twice, would show."""
    mdp = from_gymnasium(gym.make(name))
    assert mdp.start @ optimal_value(mdp, gamma) == pytest.approx(value, abs=1e-10)


def test_optimal_value_of_taxi_is_counted_by_hand():
    """Taxi at R (0, 0), passenger at Y (4, 0), to R: 4 steps south, pick up, 4 north, drop off: 20 - 9."""
    env = gym.make("Taxi-v4")
    mdp = from_gymnasium(env)
    V = optimal_value(mdp, 1.0, 100)
    assert V[env.unwrapped.encode(0, 0, 2, 0)] == pytest.approx(20 - 9)
    assert V[-1] == 0


@pytest.mark.parametrize("name", ["FrozenLake-v1", "CliffWalking-v1", "Taxi-v4"])
def test_steps_of_the_environment_are_possible_and_paid_alike(name):
    env = gym.make(name)
    mdp = from_gymnasium(env)
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    assert mdp.start[obs] > 0
    for _ in range(2000):
        action = env.action_space.sample()
        next_obs, reward, terminated, truncated, _ = env.step(action)
        assert mdp.P[obs, action, -1 if terminated else next_obs] > 0
        if mdp.P[obs, action].max() == 1:
            assert mdp.R[obs, action] == reward
        obs = env.reset()[0] if terminated or truncated else next_obs


def test_reward_is_the_mean_over_successors():
    """FrozenLake: left of the goal, going right reaches it with 1/3."""
    mdp = from_gymnasium(gym.make("FrozenLake-v1"))
    assert mdp.R[14, 2] == pytest.approx(1 / 3)
    assert mdp.P[14, 2, 16] == pytest.approx(1 / 3)
    assert mdp.R.sum() == pytest.approx(1)  # 14 reaches the goal by three of its actions


def test_step_samples_the_rows():
    """20,000 draws of one row, every frequency within five standard errors; the absorbing state ends."""
    mdp = from_gymnasium(gym.make("FrozenLake-v1"))
    rng = np.random.default_rng(0)
    draws = [mdp.step(14, 2, rng) for _ in range(20_000)]
    frequency = np.bincount([state for state, _, _ in draws], minlength=17) / 20_000
    p = mdp.P[14, 2]
    assert (np.abs(frequency - p) <= 5 * np.sqrt(p * (1 - p) / 20_000)).all()
    assert {(state, terminal) for state, _, terminal in draws} == {(10, False), (14, False), (16, True)}
    assert {reward for _, reward, _ in draws} == {mdp.R[14, 2]}  # the mean one, also where nothing is reached
    assert list(mdp.actions(3)) == [0, 1, 2, 3]


def test_random_mdp_is_a_garnet():
    mdp = random_mdp(7, 3, 2, np.random.default_rng(0))
    assert mdp.P.shape == (7, 3, 7)
    assert ((mdp.P > 0).sum(-1) == 2).all()
    assert ((mdp.R >= 0) & (mdp.R <= 1)).all()
    same = random_mdp(7, 3, 2, np.random.default_rng(0))
    assert (same.P == mdp.P).all()
    assert (random_mdp(7, 3, 2, np.random.default_rng(1)).P != mdp.P).any()
    P = random_mdp(40, 40, 4, np.random.default_rng(0)).P
    largest = P.max(-1)  # of the flat simplex in four: mean (1 + 1/2 + 1/3 + 1/4) / 4
    assert largest.mean() == pytest.approx(25 / 48, abs=0.02)


def test_the_largest_random_number_still_finds_a_successor():
    """Ten times 0.1 sums to 1 - 1e-16 in floating point, which a generator may return."""

    class Largest:
        def random(self):
            return 1 - 2**-53

    mdp = FiniteMDP([[[0.1] * 10]] * 10, [[0.0]] * 10, [0.1] * 10)
    assert mdp.step(0, 0, Largest()) == (9, 0.0, False)


def test_a_state_that_pays_for_ever_is_no_end():
    mdp = FiniteMDP([[[1.0]]], [[1.0]], [1.0])
    assert mdp.step(0, 0, np.random.default_rng(0)) == (0, 1.0, False)


P, R, START = np.full((2, 1, 2), 0.5), np.zeros((2, 1)), np.array([1.0, 0.0])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: FiniteMDP(P[0], R, START), r"P must be \[S, A, S\], got \[1, 2\]"),
        (lambda: FiniteMDP(np.zeros((0, 1, 0)), R, START), r"P must be \[S, A, S\], got \[0, 1, 0\]"),
        (lambda: FiniteMDP(P, R[:1], START), r"R must be \[2, 1\]"),
        (lambda: FiniteMDP(P, R, START[:1]), r"start must be \[2\]"),
        (lambda: FiniteMDP(P * 0.9, R, START), "P must hold probabilities"),
        (lambda: FiniteMDP(P * np.nan, R, START), "P must hold probabilities"),
        (lambda: FiniteMDP(P + np.array([1, -1]), R, START), "P must hold probabilities"),
        (lambda: FiniteMDP(P, R + np.inf, START), "R must be finite"),
        (lambda: FiniteMDP(P, R, START * 2), "start must hold probabilities"),
        (lambda: from_gymnasium(gym.make("CartPole-v1")), "env must be a toy-text environment"),
        (lambda: from_gymnasium(gym.make("Blackjack-v1")), "env must be a toy-text environment"),
        (lambda: from_gymnasium(gym.make("Taxi-v4", fickle_passenger=True)), "env must be Markov"),
        (lambda: random_mdp(3, 2, 4, np.random.default_rng(0)), "branching must be at most states = 3"),
        (lambda: random_mdp(0, 2, 1, np.random.default_rng(0)), "states must be at least 1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(call, sentence):
    with pytest.raises(UsageError, match=sentence):
        call()
