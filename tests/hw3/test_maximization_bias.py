"""Closed forms of the bias, and what it does to Q-learning and not to double Q-learning."""

import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from common.types import UsageError
from hw3_q_learning.maximization_bias import BAR, OneArmedBandits, expected_maximum
from hw3_q_learning.tabular import double_q_learning, q_learning


def test_expected_maximum_of_few_normals():
    """Known in closed form: 0, 1 / sqrt(pi), 3 / (2 sqrt(pi)); of ten 1.538753."""
    known = {1: 0, 2: 1 / math.sqrt(math.pi), 3: 1.5 / math.sqrt(math.pi), 10: 1.538752730835}
    for actions, value in known.items():
        assert expected_maximum(actions) == pytest.approx(value, abs=1e-10)
    assert expected_maximum(10, 0.5) == pytest.approx(expected_maximum(10) / 2)


def test_one_set_of_estimates_is_biased_and_two_are_not():
    """100,000 draws of ten estimates of zero, within five standard errors."""
    X, Y = np.random.default_rng(0).standard_normal((2, 100_000, 10))
    assert X.max(1).mean() == pytest.approx(expected_maximum(10), abs=5 * X.max(1).std() / 316)
    assert Y[np.arange(100_000), X.argmax(1)].mean() == pytest.approx(0, abs=5 / 316)


def left(learn, runs: int = 8, episodes: int = 200) -> float:
    """Share of all episodes that went left."""
    envs = [OneArmedBandits() for _ in range(runs)]
    for seed, env in enumerate(envs):
        learn(env, episodes, 0.1, 1.0, 0.1, seed)
    return float(np.mean([env.left for env in envs]))


def test_q_learning_goes_left_for_long_and_double_q_learning_does_not():
    """5.6 % would be exploration alone. Five times eight runs: 57 to 83 % against 16 to 23 %."""
    assert left(q_learning) > 0.45
    assert left(double_q_learning) < 0.35


def test_environment_is_what_gymnasium_expects():
    env = OneArmedBandits()
    check_env(env, skip_render_check=True)
    env.reset(seed=0)
    assert env.step(1) == (BAR, 0.0, False, False, {})
    assert env.step(4)[2]
    assert isinstance(env, gym.Env)


def test_bad_input_is_one_sentence():
    with pytest.raises(UsageError, match="machines must be at least 2"):
        OneArmedBandits(1)
    with pytest.raises(UsageError, match="actions must be at least 1"):
        expected_maximum(0)
    with pytest.raises(UsageError, match="std must be finite"):
        expected_maximum(2, math.nan)
