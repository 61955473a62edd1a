"""Pupils of planners: what their lessons write, and what is asked of the planners."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.envs.control_tasks import TASKS
from common.envs.registry import make_envs
from common.types import UsageError
from hw5_planning_control import pupils
from hw5_planning_control.planner_imitation import StudentConfig
from hw5_planning_control.pupils import ImitateConfig, Imitation, PupilConfig, microseconds, planner_of
from hw5_planning_control.run import PRESETS
from hw5_planning_control.shooting import CEMConfig, cem_planner
from hw5_planning_control.tree_policy import MCTSConfig
from tests.hw5.problems import taught

CEM = CEMConfig(iterations=1, samples=20, elites=4)
PENDULUM = replace(
    PRESETS["imitate-mpc-pendulum"],
    algo=ImitateConfig(CEM, StudentConfig(hidden=8, epochs=2), rounds=2, steps=3),
    train=PupilConfig(num_envs=2, horizon=4, eval_episodes=2),
)


def test_a_pupil_of_mpc_is_graded_and_timed_beside_its_planner(tmp_path):
    lesson = Imitation(PENDULUM)
    train, evals = taught(lesson, 2, tmp_path)
    assert [row["step"] for row in evals] == [1, 2]
    assert [row["plan/labels"] for row in train[:-1]] == [6, 12]
    assert train[-1]["plan/return_mean"] < 0
    assert train[-1]["speed/planner_us"] > train[-1]["speed/network_us"] > 0
    assert lesson.act(np.zeros((3, 3))).shape == (3, 1)


def test_a_pupil_of_tree_search_learns_its_actions(tmp_path):
    search = ImitateConfig(MCTSConfig(4, 1.0, 4), StudentConfig(hidden=8, epochs=2), rounds=1, steps=2)
    config = replace(
        PRESETS["imitate-mcts-breakout"], algo=search, train=PupilConfig(num_envs=2, eval_episodes=1)
    )
    lesson = Imitation(config)
    train, _ = taught(lesson, 1, tmp_path)
    assert train[0]["plan/labels"] == 4
    assert lesson.act(make_envs(config.env_id, 5).reset(seed=0)[0]).dtype == np.int64


def test_the_planner_forgets_what_it_planned_before():
    """It plays the first control of a plan from rest, also after it was asked elsewhere."""
    obs, task = np.array([[1.0, 0.0, 0.5], [-1.0, 0.0, 2.0]]), TASKS["Pendulum-v1"]
    act, _ = planner_of(PENDULUM)
    seed = pupils.child_seed(PENDULUM.seed, "plan")
    plan = cem_planner(task, CEM, torch.Generator().manual_seed(seed))
    rest = torch.zeros(2, 4, 1, dtype=torch.float64)
    for seen in (obs, -obs):
        expected = task.action(plan(task.state(seen), rest).u[:, 0])
        np.testing.assert_array_equal(act(seen), expected)


def test_the_time_of_an_action_is_the_median_of_one_observation_each(monkeypatch):
    """Of 1, 100 and 2 seconds."""
    ticks, asked = iter([0.0, 1.0, 1.0, 101.0, 101.0, 103.0]), []
    monkeypatch.setattr(pupils.time, "perf_counter", lambda: next(ticks))
    assert microseconds(lambda obs: asked.append(obs.shape), np.zeros((3, 4))) == 2e6
    assert asked == [(1, 4)] * 3


@pytest.mark.parametrize(
    ("preset", "env_id", "sentence"),
    [
        ("imitate-mpc-pendulum", "CartPole-v1", "env_id must have known dynamics"),
        ("imitate-mcts-breakout", "Pendulum-v1", "env must be a toy-text environment"),
    ],
)
def test_an_environment_of_another_kind_is_refused(preset, env_id, sentence):
    with pytest.raises(UsageError, match=sentence):
        Imitation(replace(PRESETS[preset], env_id=env_id))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ImitateConfig(CEM, rounds=0), "rounds must be at least 1"),
        (lambda: PupilConfig(eval_episodes=0), "eval_episodes must be at least 1"),
    ],
)
def test_bad_settings_are_named(make, sentence):
    with pytest.raises(UsageError, match=sentence):
        make()
