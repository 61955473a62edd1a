"""The lessons as run.py starts them, with tiny budgets."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.envs import registry
from common.envs.car_forest import FOREST
from common.types import UsageError
from hw5_planning_control.driving import DriveConfig
from hw5_planning_control.run import PRESETS
from hw5_planning_control.teaching import Guidance, TeachConfig
from tests.helpers import rows, run, run_directory

MODULE = "hw5_planning_control.run"
TINY_CAR = ["--algo.rounds", 2, "--algo.learning-steps", 3, "--train.episodes", 4, "--train.horizon", 2]
TINY_CAR += ["--train.plan-steps", 1, "--train.eval-episodes", 10]
TINY_REMAP = ["--algo.teacher.rounds", 2, "--algo.teacher.policy-steps", 3]
TINY_REMAP += ["--algo.teacher.first-plan-steps", 2, "--algo.pupil.rounds", 2]
TINY_REMAP += ["--algo.pupil.learning-steps", 3, "--train.starts", 3, "--train.eval-episodes", 4]


def split(directory, name):
    return [row for row in rows(directory) if row["split"] == name]


def test_crashes_of_the_car_add_up_and_the_pupil_is_played_alone(tmp_path):
    """A pupil that learnt next to nothing crashes; how often it does is what the returns say."""
    result = run("plato-car", "--algo.plays", "dagger", *TINY_CAR, "--out", tmp_path, module=MODULE)
    assert result.returncode == 0, result.stderr
    assert re.match(r"final return [\d.]+ \+- [\d.]+ over 10 episodes", result.stdout.splitlines()[-1])
    taught, played = (split(run_directory(tmp_path), name) for name in ("train", "eval"))
    assert [row["step"] for row in taught] == [row["step"] for row in played] == [1, 2]
    so_far = np.cumsum([row["policy/crashes_now"] for row in taught]).tolist()
    assert [row["policy/crashes"] for row in taught] == so_far
    assert [row["policy/crashes"] for row in played] == so_far
    assert taught[-1]["policy/alive"] < 1
    assert played[-1]["return_mean"] < 32
    assert played[-1]["return_mean"] == played[-1]["length_mean"]
    assert taught[-1]["policy/cost"] > 0


def test_pixels_are_taught_after_states_and_scored_beside_them(tmp_path):
    result = run("remap-pendulum", *TINY_REMAP, "--out", tmp_path, module=MODULE)
    assert result.returncode == 0, result.stderr
    assert re.match(r"final cost [\d.]+ \+- [\d.]+ over 4 episodes", result.stdout.splitlines()[-1])
    teacher, pupil = (split(run_directory(tmp_path), name) for name in ("train", "eval"))
    assert [row["step"] for row in teacher] == [1, 2]
    assert [row["step"] for row in pupil] == [3, 4]
    assert pupil[0]["return_mean"] != pupil[1]["return_mean"]
    (score,) = {row["teacher/return_mean"] for row in pupil}
    assert score < 0
    assert score not in [row["return_mean"] for row in pupil]


def test_the_exam_begins_where_nobody_was_taught():
    """None of eight starts is one of the eight taught."""
    config = PRESETS["gps-pendulum"]
    settings = replace(config.algo, first_plan_steps=1), TeachConfig(starts=8, eval_episodes=8, spread=0.3)
    lesson, seen = Guidance(replace(config, algo=settings[0], train=settings[1])), []

    def policy(x, t):
        seen.append(x)
        return torch.zeros(len(x), 1, dtype=torch.float64)

    lesson.exam(policy)
    taught = lesson.search.problem.x0
    assert torch.cdist(seen[0], taught).min() > 1e-6


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["plato-car", "--env-id", "Pendulum-v1"], "must be one of course/CarForest-v0, got Pendulum-v1"),
        (["plato-car", "--train.horizon", "0"], "horizon must be at least 1, got 0"),
        (["remap-pendulum", "--env-id", "course/Quadrotor-v0"], "must be one of course/PendulumSwingUp-v0"),
        (["remap-pendulum", "--algo.pupil.beta", "2"], "beta must lie in [0, 1]"),
        (["remap-pendulum", "--algo.pupil.plays", "plato"], "pupil.plays must be dagger or teacher"),
    ],
)
def test_bad_input_is_one_line_and_status_2(args, sentence, tmp_path):
    result = run(*args, "--out", tmp_path, module=MODULE)
    assert (result.returncode, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (DriveConfig, {"episodes": 0}), (DriveConfig, {"eval_episodes": 0}), (DriveConfig, {"hidden": (0,)}),
        (DriveConfig, {"plan_steps": 0}), (TeachConfig, {"spread": float("nan")}),
        (TeachConfig, {"starts": 0}),
    ],
)  # fmt: skip
def test_bad_settings_are_named(kind, change):
    with pytest.raises(UsageError, match=next(iter(change))):
        kind(**change)


def test_steering_of_the_pupil_is_the_steering_of_the_environment():
    """What the registry makes of an action in [-1, 1]."""
    env = registry.make_env("course/CarForest-v0")
    env.reset(seed=0)
    x = env.unwrapped.x
    env.step(np.array([0.5], np.float32))
    u = torch.tensor([0.5 * FOREST.u_high], dtype=torch.float64)
    torch.testing.assert_close(env.unwrapped.x, FOREST.step(x, u), rtol=1e-6, atol=1e-6)
