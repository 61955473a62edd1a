"""Values beside the returns of the same policy: by hand, and the file that a run leaves."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from common.envs import registry
from common.types import UsageError
from hw3_q_learning import overestimation
from hw3_q_learning.overestimation import Row, discounted, draw, make_envs, measure, read_csv, write_csv
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


def test_torques_are_spread_evenly():
    """Equal starts: the outermost torques turn the pendulum one way and the other, the middle one is none."""
    envs, plain = make_envs(3), registry.make_envs("Pendulum-v1", 3)
    envs.reset(seed=5)
    plain.reset(seed=5)
    obs, reward, *_ = envs.step(np.array([0, 12, 24]))
    expected, expected_reward, *_ = plain.step(np.array([[-1.0], [0.0], [1.0]], np.float32))
    np.testing.assert_array_equal(obs, expected)
    np.testing.assert_array_equal(reward, expected_reward)
    assert registry.spec(envs).action_dim == 25


def test_csv_comes_back_and_is_drawn(tmp_path):
    rows = [Row(name, k, t, t + k, -t) for name in "ab" for k in (0, 1) for t in (10, 20)]
    write_csv(tmp_path / "o.csv", rows)
    assert read_csv(tmp_path / "o.csv") == rows
    axes = Figure().subplots()
    draw(axes, rows)
    means = {line.get_label(): line.get_ydata() for line in axes.lines if line.get_linewidth() == 2}
    np.testing.assert_array_equal(means["a, its value"], [10.5, 20.5])
    np.testing.assert_array_equal(means["b, its return"], [-10, -20])
    (tmp_path / "o.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="path must be a CSV of algo,seed,step"):
        read_csv(tmp_path / "o.csv")


def test_dqn_promises_what_no_policy_can_earn_and_double_dqn_does_not():
    """The committed runs: in their second half DQN's values are 15 too high or more, double DQN's less than
    half of that, in each of five seeds."""
    rows = read_csv(Path(overestimation.__file__).parent / "results" / "values" / "overestimation.csv")
    late = [row for row in rows if row.step > 10_000]
    for seed in range(5):
        single, double = (
            np.mean([row.value - row.monte_carlo for row in late if (row.algo, row.seed) == (name, seed)])
            for name in overestimation.VARIANTS
        )
        assert single > 15
        assert double < single / 2


@pytest.mark.parametrize(("name", "double"), [("dqn", False), ("double dqn", True)])
def test_variants_are_what_they_are_called(name, double, monkeypatch):
    def seen(spec, config, *_):
        raise LookupError(config.double)

    monkeypatch.setattr(overestimation, "DQN", seen)
    with pytest.raises(LookupError, match=str(double)):
        overestimation.learn(name, 0, 200)


def test_a_seed_repeats_its_rows(monkeypatch):
    for name, small in (("EVERY", 100), ("STARTS", 60), ("EPISODES", 2), ("LIMIT", 50)):
        monkeypatch.setattr(overestimation, name, small)
    first, second = (overestimation.learn("double dqn", 3, 200) for _ in range(2))
    assert first == second
    assert [row.step for row in first] == [100, 200]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--steps=5", "steps must be at least 2000, got 5"),
        ("--seeds=-1", "seeds must not be negative"),
        ("--csv=.", "Is a directory"),
    ],
)
def test_bad_settings_are_one_sentence(option, sentence, capsys, tmp_path):
    with pytest.raises(SystemExit):
        overestimation.main(["--csv", str(tmp_path / "x.csv"), option])
    assert sentence in capsys.readouterr().err
