"""A lesson that is interrupted, then killed, ends as one that was neither: bit for bit, for every lesson."""

import dataclasses
import json
import signal
from pathlib import Path

import pytest

from common import checkpoint, cli
from common.logger import RunLogger
from common.types import UsageError
from hw5_planning_control import run as module
from hw5_planning_control.lesson_trainer import teach
from tests import helpers
from tests.helpers import assert_same, rows, run_directory

GPS = ["--algo.rounds", 4, "--algo.policy-steps", 2, "--algo.first-plan-steps", 1, "--algo.plan-steps", 1]
GPS += ["--algo.samples", 1, "--algo.hidden", 4, "--train.starts", 2, "--train.eval-episodes", 2]
CAR = ["--algo.rounds", 4, "--algo.learning-steps", 2, "--train.episodes", 2, "--train.horizon", 2]
CAR += ["--train.plan-steps", 1, "--train.eval-episodes", 2]
REMAP = ["--algo.teacher.rounds", 2, "--algo.teacher.policy-steps", 2, "--algo.teacher.first-plan-steps", 1]
REMAP += ["--algo.teacher.hidden", 4, "--algo.teacher.samples", 1, "--algo.teacher.plan-steps", 1]
REMAP += ["--algo.pupil.rounds", 2, "--algo.pupil.learning-steps", 2, "--algo.pupil.batch-size", 8]
REMAP += ["--train.starts", 2, "--train.eval-episodes", 2]
IMITATE = ["--algo.student.hidden", 4, "--algo.student.epochs", 1, "--algo.rounds", 4]
IMITATE += ["--train.num-envs", 2, "--train.eval-episodes", 1]
CEM = ["--algo.planner.iterations", 1, "--algo.planner.samples", 4, "--algo.planner.elites", 2]
MCTS = ["--algo.planner.simulations", 3, "--algo.planner.horizon", 3]
# Noughts and crosses: a game ends within a round, and who begins the next is drawn.
GAME = ["--env-id", "course/TicTacToe-v0", "--algo.steps", 7]
LAKES = ["--algo.lakes", 2, "--algo.teachers", 1, "--algo.student.epochs", 4]
DIVIDE = ["--algo.rounds", 4, "--algo.distil-every", 2, "--algo.episodes", 8, "--algo.distil-steps", 2]
LESSONS = {
    "guided": ["gps-pendulum", *GPS],
    "pixels": ["remap-pendulum", *REMAP],
    "driven": ["plato-car", *CAR, "--algo.plays", "dagger", "--algo.beta", 0.7],
    "control": ["imitate-mpc-pendulum", *IMITATE, *CEM, "--algo.steps", 3, "--train.horizon", 2],
    "search": ["imitate-mcts-breakout", *IMITATE, *MCTS, *GAME],
    "lakes": ["distill-frozenlake", *LAKES],
    "divided": ["divide-lob", *DIVIDE],
}


class Killed(Exception):
    pass


def resume(config: module.RunConfig, directory: Path) -> str:
    return module.run(dataclasses.replace(config, resume=directory))


@pytest.mark.parametrize("name", LESSONS)
def test_interrupted_killed_and_resumed_it_equals_the_uninterrupted_one(name, tmp_path, monkeypatch):
    """Ctrl-C in round 2 of 4, and after a resume a crash in the fourth, before its checkpoint."""
    monkeypatch.setattr(module, "plot_run", lambda *args, **options: None)  # would take most of the time
    words = [*map(str, LESSONS[name]), "--seed", "7"]
    config = dataclasses.replace(cli.parse(module.PRESETS, "", words), out=tmp_path / "whole")
    make, _ = module.LESSONS[type(config.algo)]
    assert module.run(config) == "finished"
    whole, round_of, played = run_directory(tmp_path / "whole"), make.round, []

    def disturb(at: int, how) -> None:
        def round(self, k):
            played.append(k)
            yield from round_of(self, k)
            if k == at:
                how()

        monkeypatch.setattr(make, "round", round)

    def crash():
        raise Killed

    disturb(2, lambda: signal.raise_signal(signal.SIGINT))
    assert module.run(dataclasses.replace(config, out=tmp_path / "parts")) == "interrupted"
    directory = run_directory(tmp_path / "parts")
    assert json.loads((directory / "summary.json").read_text())["status"] == "interrupted"
    assert max((row["step"] for row in rows(directory)), default=2) <= 2
    disturb(4, crash)
    with pytest.raises(Killed):
        resume(config, directory)
    assert played == [1, 2, 3, 4]  # none twice
    assert len(rows(directory)) >= len(rows(whole))  # the last ones will come again
    monkeypatch.setattr(make, "round", round_of)
    assert resume(config, directory) == "finished"
    assert rows(directory) == rows(whole)
    first, second = (checkpoint.load_latest(path / "checkpoint") for path in (directory, whole))
    assert first["step"] == second["step"] == 4
    assert_same(first["parts"], second["parts"])
    with pytest.raises(UsageError, match="is finished"):
        resume(config, directory)


class Count:
    """A lesson of nothing but its rounds."""

    def __init__(self):
        self.parts = {"self": self.Part()}

    class Part:
        rounds = 0

    def round(self, k):
        self.parts["self"].rounds = k
        yield "train", {"x": float(k)}
        if k == 2:
            signal.raise_signal(signal.SIGTERM)


def test_quick_rounds_share_a_checkpoint_and_a_signal_has_its_own(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(checkpoint, "save", lambda folder, step, **content: saved.append((step, content)))
    logger = RunLogger(tmp_path, 5)
    assert teach(Count(), logger, 5) == "interrupted"
    assert teach(Count(), logger, 5, 2) == "finished"
    assert [(step, content["parts"]) for step, content in saved] == [
        (2, {"self": {"rounds": 2}}), (5, {"self": {"rounds": 5}}),
    ]  # fmt: skip


def test_an_optimiser_that_is_interrupted_starts_over(tmp_path, monkeypatch, capsys):
    """It has no checkpoint, so no sentence may say so."""
    monkeypatch.setattr("sys.argv", ["run", "lagrangian-cardiscs", "--out", str(tmp_path)])
    _, places = module.SOLVERS[module.ObstacleConfig]

    def interrupt(config, logger):
        raise KeyboardInterrupt

    def solve(config, logger):
        logger.write("train", 1, {"x": 1.0})
        return {"return_mean": 1.0, "return_std": 0.0, "episodes": 1}, None

    monkeypatch.setitem(module.SOLVERS, module.ObstacleConfig, (interrupt, places))
    with pytest.raises(SystemExit) as end:
        cli.main(module.PRESETS, "", module.run)
    assert end.value.code == cli.INTERRUPTED
    assert "or starts over without one" in capsys.readouterr().err
    directory = run_directory(tmp_path)
    assert json.loads((directory / "summary.json").read_text())["status"] == "interrupted"
    monkeypatch.setattr(module, "plot_run", lambda *args, **options: None)
    monkeypatch.setitem(module.SOLVERS, module.ObstacleConfig, (solve, places))
    assert resume(cli.stored(module.PRESETS, directory), directory) == "finished"


def test_a_lesson_killed_by_the_system_goes_on_from_its_directory(tmp_path):
    """kill -9, then nothing but --resume."""
    args = [*LESSONS["divided"], "--algo.distil-every", 50, "--algo.rounds", 250]
    directory = helpers.kill_after_checkpoint(*args, out=tmp_path, module="hw5_planning_control.run")
    begun = rows(directory)
    assert len(begun) < 250
    result = helpers.run("--resume", directory, module="hw5_planning_control.run")
    assert result.returncode == 0, result.stderr
    steps = [row["step"] for row in rows(directory) if row["split"] == "train"]
    assert steps == [*range(1, 251)]
    assert rows(directory)[: len(begun)] == begun
