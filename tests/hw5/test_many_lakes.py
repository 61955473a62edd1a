"""One student of many lakes: how it is graded, and that it learns where its teachers know enough."""

from dataclasses import replace

import numpy as np
import pytest

from common.cli import RunOptions
from common.types import UsageError
from hw5_planning_control.distillation import DistillationConfig
from hw5_planning_control.many_lakes import ExamConfig, ManyLakes, ManyLakesConfig
from hw5_planning_control.run import PRESETS
from tests.helpers import run
from tests.hw5.problems import taught


def lakes(hidden: int, **settings) -> RunOptions:
    student = DistillationConfig(epochs=100, lr=1e-2, hidden=(hidden,))
    algo = ManyLakesConfig(student, lakes=2, teachers=2, **settings)
    return replace(PRESETS["distill-frozenlake"], algo=algo, train=ExamConfig(evaluations=2))


def test_one_network_does_on_every_lake_what_its_teachers_do(tmp_path):
    """Teachers who tried everything 3,000 times are all but perfect: 0.74 is the optimum of the first lake
    within its 100 steps."""
    lesson = ManyLakes(lakes(64, tries=3000))
    _, evals = taught(lesson, 100, tmp_path)
    found = evals[-1]
    assert [row["step"] for row in evals] == [50, 100]
    assert found["episodes"] == 2
    assert found["policy/worst_share"] >= 0.9
    assert found["teacher/return_mean"] == pytest.approx(found["teacher/alone_mean"], abs=0.02)
    assert found["return_min"] == pytest.approx(0.74, abs=0.03) or found["return_max"] > 0.74
    assert lesson.act(np.array([0, 4, 14])).tolist()[0] == 0  # left, into the wall: it cannot slip


def test_an_ensemble_knows_a_lake_better_than_its_members(tmp_path):
    _, (*_, found) = taught(ManyLakes(lakes(4, tries=5)), 100, tmp_path)
    assert found["teacher/return_mean"] > found["teacher/alone_mean"]


def test_what_is_no_lake_is_refused():
    with pytest.raises(UsageError, match="env_id must be a frozen lake"):
        ManyLakes(replace(PRESETS["distill-frozenlake"], env_id="CliffWalking-v1"))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ManyLakesConfig(value_unit=0.0), "value_unit must be positive"),
        (lambda: ExamConfig(evaluations=0), "evaluations must be at least 1"),
    ],
)
def test_bad_settings_are_named(make, sentence):
    with pytest.raises(UsageError, match=sentence):
        make()


def test_the_command_line_runs_a_lesson(tmp_path):
    settings = ["--algo.lakes", 2, "--algo.teachers", 1, "--algo.student.epochs", 2]
    result = run("distill-frozenlake", *settings, "--out", tmp_path, module="hw5_planning_control.run")
    assert result.returncode == 0, result.stderr
    assert "over 2 episodes" in result.stdout.splitlines()[-1]
