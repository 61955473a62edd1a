"""The command line: what a run leaves behind, that it resumes to the last bit, and what it refuses."""

import dataclasses
import re
import sys

import pytest
import torch

from common import checkpoint, cli
from hw4_model_based import run as module
from hw4_model_based import trainer
from tests.helpers import assert_same, rows, run_directory

LOOP = [
    "--train.total-steps", 24, "--train.initial-steps", 8, "--train.num-envs", 2, "--train.trial-steps", 4,
]  # fmt: skip
MODEL = ["--algo.horizon", 3, "--algo.model.hidden", 8, "--algo.model.max-epochs", 2]
SEARCH = ["--algo.samples", 6, "--algo.elites", 2, "--algo.iterations", 1]
TINY = [*LOOP, *MODEL, *SEARCH]
PIXELS = ["--algo.model.unroll", 2, "--algo.model.first-updates", 2, "--algo.model.updates", 1]
TINY_PIXELS = [*LOOP, *SEARCH, "--algo.horizon", 3, *PIXELS]
POLICIES = {  # the presets that search a policy instead of a plan
    "backprop-pendulum": [*LOOP, *MODEL, "--algo.hidden", 8, "--algo.updates", 2, "--algo.batch-size", 4],
    "pilco-pendulum": [*LOOP, "--algo.horizon", 3, "--algo.basis", 4, "--algo.iterations", 2],
}


def main(monkeypatch, *args: object) -> int:
    """Run in this process; the exit status."""
    monkeypatch.setattr(sys, "argv", ["run", *map(str, args)])
    with pytest.raises(SystemExit) as end:
        cli.main(module.PRESETS, "mpc-obstacles", module.run)
    return end.value.code


def test_a_run_leaves_everything_behind(tmp_path, monkeypatch, capsys):
    assert main(monkeypatch, *TINY, "--out", tmp_path) == 0
    directory = run_directory(tmp_path)
    assert {path.name for path in directory.iterdir()} >= {
        "config.json", "metrics.jsonl", "summary.json", "curve.png", "checkpoint",
    }  # fmt: skip
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"final return -?[\d.]+ \+- [\d.]+ over 2 episodes, [\d.]+ s, .+", last)
    assert main(monkeypatch, "--resume", directory) == 2
    assert "is finished" in capsys.readouterr().err


PLANNED = [name for name, preset in module.PRESETS.items() if isinstance(preset, module.RunConfig)]


@pytest.mark.parametrize("preset", PLANNED[1:])
def test_every_preset_takes_its_first_steps(preset, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "conclude", lambda *args: "finished")
    of_pixels = type(module.PRESETS[preset].algo) in module.PIXEL_AGENTS
    tiny = TINY_PIXELS if of_pixels else POLICIES.get(preset, TINY)
    assert main(monkeypatch, preset, *tiny, "--out", tmp_path) == 0
    assert (run_directory(tmp_path) / "frames.png").exists() == of_pixels


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "options",
    [
        ["mpc-obstacles", *TINY, "--algo.search", "mppi", "--algo.replan-every", 2],
        ["mpc-obstacles", *TINY, "--train.no-aggregate"],
        ["pets-pendulum", *TINY, "--algo.propagation", "ts1"],
        ["finetune-pendulum", *TINY, "--algo.trials", 1, "--learner.batch-size", 4],
        ["latent-pointmass", *TINY_PIXELS],
        ["e2c-pointmass", *TINY_PIXELS],
        ["rssm-pointmass", "--algo.replan-every", 2, *TINY_PIXELS],
        ["foresight-push", *TINY_PIXELS],
        *([preset, *settings] for preset, settings in POLICIES.items()),
    ],
    ids=["aggregated", "random", "particles", "fine-tuned", "latent", "e2c", "rssm", "foresight", *POLICIES],
)
def test_killed_and_resumed_run_equals_the_uninterrupted_one(options, tmp_path, monkeypatch):
    """Killed in the third of four trials, resumed from the checkpoint of the second: same metrics, same
    last checkpoint."""
    monkeypatch.setattr(module, "conclude", lambda *args: "finished")
    words = [str(word) for word in [*options, "--train.total-steps", 40]]
    whole = dataclasses.replace(cli.parse(module.PRESETS, "", words), out=tmp_path / "whole")
    module.run(whole)
    first_returns, trials = trainer.first_returns, []

    def kill(trial):
        trials.append(trial)
        if len(trials) == 3:
            raise Killed
        return first_returns(trial)

    monkeypatch.setattr(trainer, "first_returns", kill)
    with pytest.raises(Killed):
        module.run(dataclasses.replace(whole, out=tmp_path / "killed"))
    directory = run_directory(tmp_path / "killed")
    assert checkpoint.load_latest(directory / "checkpoint")["step"] == 24
    (directory / "summary.json").unlink()  # kill -9 would not have written it
    module.run(dataclasses.replace(whole, resume=directory))
    assert rows(directory) == rows(run_directory(tmp_path / "whole"))
    first, second = (
        torch.load(sorted((path / "checkpoint").glob("*.pt"))[-1], weights_only=True)
        for path in (directory, run_directory(tmp_path / "whole"))
    )
    assert torch.equal(first["replay"]["rows"], second["replay"]["rows"])
    assert_same(first["agent"], second["agent"])


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["mpc-obstacle"], "there is no preset 'mpc-obstacle'; did you mean mpc-obstacles?"),
        (["--env-id", "HalfCheetah-v5"], "env_id must have a known reward function, one of Pendulum-v1, "),
        (["--env-id", "Pendulum-v2"], "env_id must have a known reward function"),
        (["--algo.horizon", "0"], "horizon must be at least 1, got 0"),
        (["--algo.replan-every", "11"], "replan_every must lie in [1, horizon = 10], got 11"),
        (["--algo.search", "grid"], "--algo.search"),
        (["--algo.model.members", "2"], "elites must be at most members = 2, got 3"),
        (["pets-cartpole", "--algo.particles", "3"], "particles must be a multiple"),
        (["pilco-pendulum", "--env-id", "Pendulum-v1"], "env_id must have a goal for PILCO, one of course/"),
        (["backprop-pendulum", "--env-id", "Ant-v5"], "env_id must have a known reward function"),
        (
            ["backprop-pendulum", "--env-id", "InvertedPendulum-v5"],
            "env_id must have a reward with a gradient",
        ),
        (["--train.initial-steps", "0"], "initial_steps must be at least 2, got 0"),
        (["--train.trial-steps", "1000000000"], "must make less than 2^31 steps"),
        (["finetune-pendulum", "--train.no-aggregate"], "aggregate must be on"),
        (["finetune-pendulum", "--algo.trials", "39"], "trials must be below the number of all, 39, got 39"),
        (["mve-pendulum", "--learner.smoothing", "0.2"], "smoothing must be 0 for value expansion, got 0.2"),
        (
            ["mbpo-hopper", "--train.total-steps", "9"],
            "total_steps must be at least learning_starts, 1000, got 9",
        ),
        (
            ["latent-pointmass", "--env-id", "Pendulum-v1"],
            "env_id must show pixels, as course/PointMassPixels",
        ),
        (
            ["foresight-push", "--env-id", "Pendulum-v1"],
            "env_id must show 2052 numbers, as course/PushPixels",
        ),
        (["--env-id", "course/PushPixels-v0"], "env_id must have a known reward function"),
        (["--resume", "nowhere"], "nowhere is not the directory of a run of this homework"),
    ],
)
def test_bad_input_is_one_line_and_status_2(args, sentence, tmp_path, monkeypatch, capsys):
    assert main(monkeypatch, *args, "--out", tmp_path) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_model_that_blows_up_is_never_saved(tmp_path, monkeypatch, capsys):
    assert main(monkeypatch, *TINY, "--algo.model.lr", "1e38", "--out", tmp_path) == 2
    assert "not finite after 1 epochs: the loss of the model" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.pt"))


def test_a_clone_that_blows_up_is_never_played(tmp_path, monkeypatch, capsys):
    args = ["finetune-pendulum", *TINY, "--algo.trials", 1, "--algo.clone-lr", "1e30", "--out", tmp_path]
    assert main(monkeypatch, *args) == 2
    assert "the parameters of learner" in capsys.readouterr().err
