"""The command line of this homework: what a run leaves behind, and what it refuses in one sentence."""

import sys

import pytest

from common import cli
from hw1_imitation import run as module
from hw1_imitation.demonstrations import collect, save
from hw1_imitation.experts import expert
from hw1_imitation.sealed import Origin
from tests.helpers import Counter, assert_complete, assert_refused, rows, run_directory, vector

TINY = [
    "--train.total-steps", 20, "--train.round-steps", 10, "--train.batch-size", 8, "--train.eval-episodes", 1,
    "--train.demonstrations", 30, "--algo.hidden", 8,
]  # fmt: skip
DEFAULT = "dagger-inverteddoublependulum"


def main(monkeypatch, *args: object) -> int:
    """Run in this process; the exit status."""
    monkeypatch.setattr(sys, "argv", ["run", *map(str, args)])
    with pytest.raises(SystemExit) as end:
        cli.main(module.PRESETS, DEFAULT, module.run)
    return end.value.code


@pytest.mark.parametrize("preset", module.PRESETS)
def test_a_run_leaves_everything_behind(preset, tmp_path, monkeypatch, capsys):
    flags = ["--algo.steps", 40] if "gcsl" in preset else []
    assert main(monkeypatch, preset, *TINY, *flags, "--out", tmp_path) == 0
    directory = run_directory(tmp_path)
    assert_complete(directory, capsys)
    evals = [row for row in rows(directory) if row["split"] == "eval"]
    if "gcsl" in preset:  # four goals for every step but the last of each of ten trajectories
        assert [row["data/labels"] for row in evals] == [120, 240]
        return
    first = 90 if "cameras" in preset else 30
    asked = module.PRESETS[preset].algo.labels if "dagger" in preset else 0
    assert [row["data/labels"] for row in evals] == [first, first + asked]
    assert ("policy/clone_return" in evals[0]) == (preset == DEFAULT)


def test_a_run_begins_with_the_demonstrations_of_a_file(tmp_path, monkeypatch):
    act, path = expert("CartPole-v1"), tmp_path / "demos.npz"
    data = collect(act, module.registry.make_envs("CartPole-v1", 4), 5, seed=0)
    save(path, data, Origin("CartPole-v1", "LQR", 0, 500.0))
    flags = ["--train.data", path, "--train.validation", 0.5]
    assert main(monkeypatch, "bc-cartpole", *TINY, *flags, "--out", tmp_path / "runs") == 0
    found = [row for row in rows(run_directory(tmp_path)) if row["split"] == "train"]
    assert [row["data/labels"] for row in found] == [10, 10]
    assert all("loss/validation" in row for row in found)


def test_a_file_of_another_environment_is_refused(tmp_path, monkeypatch, capsys):
    data = collect(lambda obs: obs * 0, vector(Counter, 1), 5, seed=0)
    save(tmp_path / "demos.npz", data, Origin("Counter-v0", "", 0, 3.0))
    assert main(monkeypatch, "bc-cartpole", "--train.data", tmp_path / "demos.npz", "--out", tmp_path) == 2
    assert "data must be of CartPole-v1, got" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["gcsl-pointmaze", "--env-id", "CartPole-v1"], "env_id must show a goal, as course/PointMaze-v0"),
        (["gcsl-pointmaze", "--train.data", "x.npz"], "expert, data, noise and cameras must be left out"),
        (["mixture-twoway", "--env-id", "CartPole-v1"], "env_id must have continuous actions for a mixture"),
        (["--train.cameras", "0.4"], "cameras must be 0 where there is no camera"),
        (["bc-cartpole", "--train.noise", "0.1"], "noise must be 0 where actions are discrete"),
        (["cameras-lanekeeping", "--train.noise", "0.5"], "noise must be 0 where there are cameras"),
        (["--train.data", "x.npz", "--train.noise", "0.5"], "noise and cameras must be 0 where data are of"),
        (["--train.validation", "0.5"], "validation must leave out a trajectory at least, got 0.5 of 1"),
        (["--train.noise", "nan"], "noise must lie in [0, 65536), got nan"),
        (["--env-id", "Swimmer-v5"], "env_id must have an expert, as InvertedDoublePendulum-v5"),
        (
            ["bc-cartpole", "--env-id", "CartPol-v1"],
            "there is no environment 'CartPol-v1' here; did you mean",
        ),
        (["bc-cartpol"], "there is no preset 'bc-cartpol'; did you mean bc-cartpole?"),
        (["--train.demonstrations", "0"], "demonstrations must be at least 1, got 0"),
        (["--algo.beta", "2"], "beta must lie in [0, 1], got 2.0"),
        (["bc-cartpole", "--algo.beta", "0.5"], "--algo.beta"),
        (["--algo.loss", "absolute"], "--algo.loss"),
        (["--train.data", "nowhere.npz"], "cannot read nowhere.npz: No such file or directory"),
        (["--train.data", "README.md"], "path must end in .npz, got README.md"),
    ],
)
def test_bad_input_is_one_line_and_status_2(args, sentence, tmp_path, monkeypatch, capsys):
    assert main(monkeypatch, *args, "--out", tmp_path) == 2
    assert_refused(sentence, tmp_path, capsys)


def test_parameters_that_blow_up_are_never_saved(tmp_path, monkeypatch, capsys):
    assert main(monkeypatch, "bc-cartpole", *TINY, "--algo.lr", "1e38", "--out", tmp_path) == 2
    assert "not finite" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.pt"))


def test_nobody_is_asked_again_for_what_the_checkpoint_holds(tmp_path, monkeypatch):
    """Ten steps are demonstrated; the resumed run asks for those of its own round only."""
    flags = [*TINY, "--train.demonstrations", "10", "--out", tmp_path]
    assert main(monkeypatch, "bc-cartpole", *flags) == 0
    monkeypatch.setattr(module, "first_demonstrations", None)
    more = ["--resume", run_directory(tmp_path), "--train.total-steps", "40"]
    assert main(monkeypatch, *more) == 0


@pytest.mark.parametrize(
    ("preset", "names"),
    [
        ("dagger-cartpole", ("DAgger", "labels of the expert")),
        ("bc-cartpole", ("cloning", "labels of the expert")),
        ("gcsl-pointmaze", ("GCSL", "relabelled pairs")),
    ],
)
def test_the_picture_names_who_learned_and_from_what(preset, names, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(module, "draw", lambda *args: told.append(args))
    module.curve(None, module.PRESETS[preset], tmp_path)
    assert told == [(tmp_path, f"{preset}, seed 0", *names, None)]
