"""The loop: whose steps become data, what a trial's return is, and how steps are counted."""

import numpy as np
import pytest
import torch

from common.logger import RunLogger
from common.replay import Replay
from common.rollout import Collector
from common.types import EnvSpec, Rollout, UsageError
from hw4_model_based.trainer import TrainConfig, first_returns, train
from tests.helpers import CPU, rows, vector
from tests.hw4.environments import Walk

SPEC = EnvSpec(num_envs=2, obs_dim=1, action_dim=1, discrete=False)


class Steady:
    """Always plays 0.25, which no random action is, and notes the data of every fit."""

    def __init__(self):
        self.fits = ()

    @property
    def act(self):
        return lambda obs: np.full((len(obs), 1), 0.25)

    @property
    def explore(self):
        return lambda obs, step: np.full((len(obs), 1), 0.25)

    def update(self, batch):
        self.fits = (*self.fits, batch)
        return {"loss/held_out": 0.0}


class Somewhere(Walk):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.normal(size=1).astype(np.float32)
        return self.x, {}


def played(tmp_path, monkeypatch, env=Walk, **settings):
    """An agent after its training, and the rows of its log."""
    monkeypatch.setattr("common.checkpoint.state_of", lambda agent: {})
    config = TrainConfig(total_steps=30, initial_steps=7, num_envs=2, trial_steps=5, **settings)
    agent, logger = Steady(), RunLogger(tmp_path, config.end)
    replay = Replay(config.end, SPEC, CPU)
    assert train(agent, Collector(vector(env), CPU), replay, logger, config, seed=0) == "finished"
    logger.close("finished")
    return agent, replay, rows(tmp_path)


def test_trials_become_data_and_are_fitted_next(tmp_path, monkeypatch):
    """8 random steps (whole ones of both environments), then trials of 10: fits see 8, 18 and 28 steps."""
    agent, replay, _ = played(tmp_path, monkeypatch)
    assert [len(fit.obs) for fit in agent.fits] == [8, 18, 28]
    planned = replay.memory.action[:38, 0] == 0.25
    assert planned.tolist() == [False] * 8 + [True] * 30


def test_without_aggregation_as_much_data_is_random_and_the_trials_are_forgotten(tmp_path, monkeypatch):
    agent, replay, log = played(tmp_path, monkeypatch, aggregate=False)
    assert [len(fit.obs) for fit in agent.fits] == [8, 18, 28]
    actions = replay.memory.action[:38, 0]
    assert (actions != 0.25).all()
    assert len(actions.unique()) == 38
    assert all(row["return_mean"] > 0 for row in log if row["split"] == "eval")  # of the plan, though


def test_every_trial_begins_elsewhere(tmp_path, monkeypatch):
    """Trials of 10 steps behind 8 random ones, two environments each."""
    _, replay, _ = played(tmp_path, monkeypatch, env=Somewhere)
    assert len(replay.memory.obs[[0, 1, 8, 9, 18, 19, 28, 29]].unique()) == 8


def test_a_trial_is_logged_at_the_steps_that_the_data_hold_after_it(tmp_path, monkeypatch):
    _, _, log = played(tmp_path, monkeypatch)
    assert [(row["split"], row["step"]) for row in log] == [
        (split, step) for step in (18, 28, 38) for split in ("train", "eval")
    ]


def test_the_return_of_a_trial_is_that_of_its_first_episodes():
    """Three environments: ended, cut, and still going at the end of the trial."""
    reward = torch.arange(1.0, 5.0)[:, None].expand(4, 3)  # 1, 2, 3, 4
    terminated, truncated = torch.zeros(2, 4, 3, dtype=torch.bool)
    terminated[1, 0], truncated[0, 1] = True, True
    scores = first_returns(Rollout(None, None, reward, None, terminated, truncated))
    assert scores["return_mean"] == pytest.approx((3 + 1 + 10) / 3)
    assert (scores["return_min"], scores["return_max"]) == (1, 10)
    assert scores["length_mean"] == pytest.approx((2 + 1 + 4) / 3)
    assert scores["episodes"] == 3


def test_steps_are_rounded_up_to_whole_trials():
    assert TrainConfig(total_steps=1_000, initial_steps=200, trial_steps=200).end == 1_000
    assert TrainConfig(total_steps=1_001, initial_steps=200, trial_steps=200).end == 1_200
    assert TrainConfig(total_steps=1, initial_steps=200, trial_steps=200).end == 400
    assert TrainConfig(total_steps=10, initial_steps=3, num_envs=2, trial_steps=3).end == 10


@pytest.mark.parametrize("name", ["total_steps", "num_envs", "trial_steps"])
def test_nothing_is_no_budget(name):
    with pytest.raises(UsageError, match=f"{name} must be at least 1, got 0"):
        TrainConfig(**{name: 0})
