import numpy as np
import pytest

from common.envs.registry import make_envs
from common.evaluation import evaluate
from tests.helpers import Counter, Memory, vector


def test_return_and_length_by_hand():
    scores = evaluate(lambda obs: np.zeros(len(obs), int), vector(Counter, 4), seed=0)
    assert scores == {
        "return_mean": 3.0, "return_std": 0.0, "return_min": 3.0, "return_max": 3.0, "length_mean": 3.0,
        "episodes": 4,
    }  # fmt: skip


def test_each_environment_counts_once_however_short_its_episode():
    """Environments 0 and 1 last 1 and 9 steps: the mean is 5, not what ten short episodes would give."""

    class Uneven(Counter):
        lengths = iter((1, 9) * 50)

        def reset(self, *, seed=None, options=None):
            self.length = self.length if hasattr(self, "length") else next(self.lengths)
            return super().reset()

        def step(self, action):
            obs, reward, *_ = super().step(action)
            return obs, reward, self.t >= self.length, False, {}

    assert evaluate(lambda obs: np.zeros(2, int), vector(Uneven), seed=0)["return_mean"] == 5.0


def test_same_seed_same_score():
    envs = make_envs("CartPole-v1", 5)
    scores = [evaluate(lambda obs: (obs[:, 2] > 0).astype(int), envs, seed) for seed in (1, 1, 2)]
    assert scores[0] == scores[1] != scores[2]


def test_nan_reward_stops_it():
    with pytest.raises(FloatingPointError, match="reward that is not finite"):
        evaluate(lambda obs: np.zeros(2, int), vector(Counter, nan_reward_at=2), seed=0)


def test_a_policy_that_remembers_starts_afresh_with_each_evaluation():
    class Uneven(Counter):
        def reset(self, *, seed=None, options=None):
            obs, info = super().reset()
            self.t = 0 if seed is None else 2 * (seed % 2)  # odd seeds: one step left
            return obs, info

    memory = Memory()
    for _ in range(2):
        evaluate(memory, vector(Uneven), seed=1)
    assert memory.notes == [[0, 0], [0, 1], [1, 2]] * 2
