"""The loop of model-free agents with a model: its clock, homework 3 as its limit, command line and resume."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from common import checkpoint, cli
from common.logger import RunLogger
from common.replay import Replay
from common.rollout import Collector
from common.types import EnvSpec, UsageError
from hw3_q_learning import run as hw3
from hw4_model_based import dyna_trainer
from hw4_model_based import run as module
from hw4_model_based.dyna_trainer import DynaTrainConfig, train
from tests.helpers import CPU, assert_complete, assert_refused, assert_same, rows, run_directory, vector
from tests.hw4.environments import Walk

PRESETS = [name for name, preset in module.PRESETS.items() if isinstance(preset, module.DynaRunConfig)]
TINY = [
    "--train.total-steps", 72, "--train.learning-starts", 12, "--train.fit-every", 10,
    "--train.batch-size", 12, "--train.updates", 2, "--train.log-every", 12, "--train.eval-every", 24,
    "--train.eval-episodes", 1, "--train.save-every", 36, "--learner.hidden", 8, "--algo.model.hidden", 8,
    "--algo.model.max-epochs", 2,
]  # fmt: skip


class Walker:
    """Plays 0.25, which no random action is; counts its updates and notes what it learned from."""

    def __init__(self):
        self.updates, self.sizes = 0, ()

    def act(self, obs):
        return np.full((len(obs), 1), 0.25)

    def explore(self, obs, step):
        return self.act(obs)

    def update(self, batch):
        self.updates, self.sizes = self.updates + 1, (*self.sizes, len(batch.reward))
        return {"loss/q": torch.ones(3)}


class Doubling:
    """Doubles each batch, and notes the data of every fit."""

    def __init__(self):
        self.fits = ()

    def fit(self, data, learner):
        self.fits = (*self.fits, (len(data.reward), learner.updates))
        return {"model/epochs": 1.0}

    def augment(self, batch, learner):
        return type(batch)(*(torch.cat([x, x]) for x in batch[:5]))


def test_the_clock_of_fits_updates_and_evaluations(tmp_path, monkeypatch):
    """7 random steps; the first fit and update follow the 7th step, the next fits come every 10."""
    monkeypatch.setattr(dyna_trainer, "evaluate", lambda act, envs, seed: dict.fromkeys(SCORES, 0.0))
    config = DynaTrainConfig(
        total_steps=30, learning_starts=7, fit_every=10, updates=3, batch_size=4, log_every=6, eval_every=8
    )
    learner, imagination, logger = Walker(), Doubling(), RunLogger(tmp_path, 30)
    replay = Replay(30, EnvSpec(1, 1, 1, False), CPU)
    collector = Collector(vector(Walk, 1), CPU)
    assert train(learner, imagination, collector, replay, None, logger, config, seed=0) == "finished"
    logger.close("finished")
    assert imagination.fits == ((7, 0), (17, 30), (27, 60))
    assert learner.updates == 24 * 3 == config.total_updates
    assert set(learner.sizes) == {8}
    assert (replay.memory.action[:, 0] == 0.25).tolist() == [False] * 7 + [True] * 23
    steps = {name: [r["step"] for r in rows(tmp_path) if r["split"] == name] for name in ("train", "eval")}
    assert steps == {"train": [6, 12, 18, 24, 30], "eval": [8, 16, 24, 30]}


SCORES = ("return_mean", "return_std", "return_min", "return_max", "length_mean", "episodes")


def test_updates_are_counted_as_they_are_made():
    assert DynaTrainConfig(total_steps=10, learning_starts=10, updates=4).total_updates == 4


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(DynaTrainConfig)])
def test_nothing_is_no_setting(name):
    with pytest.raises(UsageError, match=f"{name} must be at least [12], got 0"):
        DynaTrainConfig(**{name: 0})


def main(monkeypatch, *args: object) -> int:
    """Run in this process; the exit status."""
    monkeypatch.setattr(sys, "argv", ["run", *map(str, args)])
    with pytest.raises(SystemExit) as end:
        cli.main(module.PRESETS, "mpc-obstacles", module.run)
    return end.value.code


def settings(out: Path, *words: object) -> module.DynaRunConfig:
    return dataclasses.replace(cli.parse(module.PRESETS, "", [str(word) for word in words]), out=out)


def test_real_batches_alone_are_homework_3_bit_for_bit(tmp_path, monkeypatch):
    """MBPO without imagined transitions is SAC in the loop of homework 3: the same evaluations, the same
    networks."""
    for run in (module, hw3):
        monkeypatch.setattr(run, "conclude", lambda *args: None)
    module.run(settings(tmp_path / "hw4", "mbpo-invertedpendulum", *TINY, "--algo.real-ratio", 1))
    algo = settings(tmp_path, "mbpo-invertedpendulum", *TINY).learner
    config = hw3.TrainConfig(
        total_steps=72, learning_starts=12, batch_size=12, updates=2, capacity=72, log_every=12,
        eval_every=24, eval_episodes=1, save_every=36,
    )  # fmt: skip
    hw3.run(
        hw3.RunConfig(
            preset="sac-pendulum", env_id="InvertedPendulum-v5", algo=algo, train=config, out=tmp_path / "hw3"
        )
    )
    first, second = run_directory(tmp_path / "hw4"), run_directory(tmp_path / "hw3")
    assert rows(first) == rows(second)
    saved = [checkpoint.load_latest(directory / "checkpoint") for directory in (first, second)]
    assert_same(*({name: state[name] for name in ("agent", "replay")} for state in saved))


class Killed(Exception):
    pass


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "mbpo-hopper"])
def test_killed_and_resumed_run_equals_the_uninterrupted_one(preset, tmp_path, monkeypatch):
    """Killed at step 48, resumed from the checkpoint of step 36: same metrics, same last checkpoint."""
    monkeypatch.setattr(module, "conclude", lambda *args: None)  # its plot would take most of the time
    whole = settings(tmp_path / "whole", preset, *TINY, "--env-id", "InvertedPendulum-v5")
    module.run(whole)
    evaluate, calls = dyna_trainer.evaluate, []

    def kill(*args):
        calls.append(args)
        if len(calls) == 2:
            raise Killed
        return evaluate(*args)

    monkeypatch.setattr(dyna_trainer, "evaluate", kill)
    with pytest.raises(Killed):
        module.run(dataclasses.replace(whole, out=tmp_path / "killed"))
    directory = run_directory(tmp_path / "killed")
    assert checkpoint.load_latest(directory / "checkpoint")["step"] == 36
    (directory / "summary.json").unlink()  # kill -9 would not have written it
    module.run(dataclasses.replace(whole, resume=directory))
    other = run_directory(tmp_path / "whole")
    assert rows(directory) == rows(other)
    first, second = (checkpoint.load_latest(path / "checkpoint") for path in (directory, other))
    names = ("agent", "imagination", "replay")
    assert_same({name: first[name] for name in names}, {name: second[name] for name in names})


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_takes_its_first_steps(preset, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "conclude", lambda *args: "finished")
    assert main(monkeypatch, preset, *TINY, "--train.total-steps", 24, "--out", tmp_path) == 0
    namespaces = {key.split("/")[0] for row in rows(run_directory(tmp_path)) for key in row if "/" in key}
    assert namespaces - {"rollout"} <= {"loss", "value", "policy", "model"}


def test_a_run_leaves_everything_behind(tmp_path, monkeypatch, capsys):
    assert main(monkeypatch, "mbpo-invertedpendulum", *TINY, "--out", tmp_path) == 0
    assert_complete(run_directory(tmp_path), capsys)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["mbpo-hoper"], "there is no preset 'mbpo-hoper'; did you mean mbpo-hopper?"),
        (["mbpo-hopper", "--env-id", "Ant-v5"], "env_id must have a known reward function, one of Pendulum"),
        (["mbpo-hopper", "--algo.real-ratio", "2"], "real_ratio must lie in [0, 1], got 2.0"),
        (["mbpo-hopper", "--learner.gamma", "2"], "gamma must lie in [0, 1], got 2.0"),
        (["mve-pendulum", "--algo.horizon", "-1"], "horizon must be at least 0, got -1"),
        (["steve-pendulum", "--learner.critics", "1"], "critics must be at least 2 for STEVE, got 1"),
        (["steve-pendulum", "--train.updates", "0"], "updates must be at least 1, got 0"),
    ],
)
def test_bad_input_is_one_line_and_status_2(args, sentence, tmp_path, monkeypatch, capsys):
    assert main(monkeypatch, *args, "--out", tmp_path) == 2
    assert_refused(sentence, tmp_path, capsys)


@pytest.mark.parametrize("preset", ["mbpo-invertedpendulum", "mve-pendulum"])
def test_a_learner_that_blows_up_is_never_saved(preset, tmp_path, monkeypatch, capsys):
    assert main(monkeypatch, preset, *TINY, "--learner.lr", "1e30", "--out", tmp_path) == 2
    assert "not finite" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.pt"))


def test_a_model_that_blows_up_is_never_saved(tmp_path, monkeypatch, capsys):
    args = ("mve-pendulum", *TINY, "--algo.model.lr", "1e38", "--out", tmp_path)
    assert main(monkeypatch, *args) == 2
    assert "not finite after 1 epochs: the loss of the model" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.pt"))
