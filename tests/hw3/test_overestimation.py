"""Values beside the returns of the same policy: by hand, and the file that a run leaves."""

import numpy as np
import pytest
import torch

from hw3_q_learning import overestimation
from hw3_q_learning.overestimation import discounted, measure
from tests.helpers import Counter, vector


class Fixed:
    """Q(s, a) = 10 s + a, s the number of steps taken."""

    def values(self, obs: torch.Tensor) -> torch.Tensor:
        return 10 * obs + torch.tensor([[0.0, 1.0]])

    def act(self, obs: np.ndarray) -> np.ndarray:
        return np.ones(len(obs), np.int64)


def test_returns_by_hand():
    """gamma = 1/2: 1 + 2/2 + 4/4 = 3 where nothing ends, 1 + 2/2 where the second step does."""
    reward = np.array([[1.0, 1], [2, 2], [4, 4]])
    ended = np.array([[False, False], [False, True], [True, True]])
    assert discounted(reward, ended, 0.5).tolist() == [[3, 2], [4, 2], [4, 4]]


def test_value_and_return_of_the_same_states():
    """Episodes of three rewards 1: values 1, 11, 21, returns 1.75, 1.5, 1. Later episodes do not count."""
    value, monte_carlo = measure(Fixed(), vector(Counter, 2), 0.5, seed=0)
    assert value == pytest.approx(11)
    assert monte_carlo == pytest.approx(4.25 / 3)


def test_a_seed_repeats_its_rows(monkeypatch):
    for name, small in (("EVERY", 100), ("STARTS", 60), ("EPISODES", 2), ("LIMIT", 50)):
        monkeypatch.setattr(overestimation, name, small)
    first, second = (overestimation.learn("double dqn", 3, 200) for _ in range(2))
    assert first == second
    assert [row.step for row in first] == [100, 200]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [("--steps=5", "steps must be at least 2000, got 5"), ("--seeds=-1", "seeds must not be negative")],
)
def test_bad_settings_are_one_sentence(option, sentence, capsys, tmp_path):
    with pytest.raises(SystemExit):
        overestimation.main([option, "--csv", str(tmp_path / "x.csv")])
    assert sentence in capsys.readouterr().err
