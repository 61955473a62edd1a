"""Who is fitted to what, when; in a loop whose learner only counts."""

import numpy as np
import pytest
import torch

from common.logger import RunLogger
from common.types import UsageError
from hw1_imitation.demonstrations import Demonstrations
from hw1_imitation.trainer import TrainConfig, train
from tests.helpers import Counter, rows, vector

CONFIG = TrainConfig(total_steps=6, round_steps=2, batch_size=50, eval_episodes=1)


def pairs(value: float, count: int = 3) -> Demonstrations:
    return Demonstrations(
        torch.full((count, 1), value), torch.zeros(count, dtype=torch.int64), torch.tensor([count])
    )


class Recorder:
    """Notes the observations of every batch."""

    def __init__(self):
        self.notes = self.seen = self.left = ()  # tuples, which a checkpoint passes over

    def act(self, obs):
        return np.zeros(len(obs), np.int64)

    def observe(self, obs):
        self.seen += (obs.unique().tolist()[0],)

    def loss(self, obs, action):
        return obs.mean()

    def update(self, obs, action, left):
        self.notes += (tuple(obs.unique().tolist()),)
        self.left += (left,)
        return {"loss/imitation": obs.mean()}


def go(tmp_path, learner=None, validation=None, ask=None, clone=None, config=CONFIG):
    learner = learner or Recorder()
    logger = RunLogger(tmp_path, config.total_steps)
    args = (pairs(0.0), validation, ask, clone, vector(Counter, 1), logger, config, 0)
    assert train(learner, *args) == "finished"
    logger.close("finished")
    return learner


def test_each_round_adds_what_the_expert_labels(tmp_path):
    """Batches of 50 of at most nine pairs hold every kind of them. The last round asks no more."""
    asked = []

    def ask(i):
        asked.append(i)
        return pairs(float(i))

    learner = go(tmp_path, ask=ask)
    assert asked == [1, 2]
    assert learner.notes == ((0.0,),) * 2 + ((0.0, 1.0),) * 2 + ((0.0, 1.0, 2.0),) * 2
    assert learner.seen == (0.0, 1.0, 2.0)
    evals = [row for row in rows(tmp_path) if row["split"] == "eval"]
    assert [row["data/labels"] for row in evals] == [3, 6, 9]
    assert [row["step"] for row in evals] == [2, 4, 6]


def test_without_an_expert_nothing_is_added(tmp_path):
    learner = go(tmp_path)
    assert learner.notes == ((0.0,),) * 6
    assert learner.left == (1.0, 0.5) * 3  # of the learning rate, in each round anew
    assert {row["data/labels"] for row in rows(tmp_path)} == {3}


def test_the_clone_stays_with_its_demonstrations_and_takes_as_many_steps(tmp_path):
    clone = Recorder()
    go(tmp_path, ask=lambda i: pairs(float(i)), clone=(clone, pairs(7.0)))
    assert clone.notes == ((7.0,),) * 6
    assert clone.seen == (7.0,)
    assert all(row["policy/clone_return"] == 3 for row in rows(tmp_path) if row["split"] == "eval")


def test_validation_is_measured_and_never_learnt(tmp_path):
    learner = go(tmp_path, validation=pairs(5.0))
    assert learner.notes == ((0.0,),) * 6
    assert {row["loss/validation"] for row in rows(tmp_path) if row["split"] == "train"} == {5.0}


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(tmp_path):
    learner = Recorder()
    learner.update = lambda obs, action, left: {"loss/imitation": torch.tensor(torch.nan)}
    with pytest.raises(FloatingPointError, match="not finite at step 2: loss/imitation"):
        go(tmp_path, learner)
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"total_steps": 0}, "total_steps must be at least 1, got 0"),
        ({"validation": 1.0}, r"validation must lie in \[0, 1\), got 1.0"),
        ({"eval_episodes": 10**6}, "eval_episodes must be at most 4096"),
    ],
)
def test_bad_settings_are_named(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        TrainConfig(**settings)
