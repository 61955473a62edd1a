"""2N steps = N, killed, resumed, N: bit for bit, the aggregated data and the clone included."""

import dataclasses

import pytest
import torch

from hw1_imitation import run as module
from hw1_imitation import trainer
from hw1_imitation.autoregressive import AutoregressiveConfig
from hw1_imitation.behavior_cloning import BCConfig
from hw1_imitation.cvae import CVAEConfig
from hw1_imitation.dagger import DaggerConfig
from hw1_imitation.flow_matching import FlowConfig
from hw1_imitation.goal_conditioned import GoalConfig
from hw1_imitation.mixture_density import MixtureConfig
from hw1_imitation.recurrent import HistoryConfig, RecurrentConfig
from hw1_imitation.run import RunConfig, run
from hw1_imitation.trainer import TrainConfig
from tests import helpers
from tests.helpers import HW1, assert_same, rows, run_directory

TRAIN = TrainConfig(total_steps=40, round_steps=10, batch_size=8, eval_episodes=1)
DRAWN = "dagger of an expert that draws"
CASES = {
    "cloning": (BCConfig(hidden=(8,)), dataclasses.replace(TRAIN, demonstrations=600, validation=0.5)),
    "gaussian": (BCConfig(hidden=(8,), loss="gaussian"), TRAIN),
    "dagger": (
        DaggerConfig(hidden=(8,), labels=30, beta=0.5), dataclasses.replace(TRAIN, compare=True),
    ),
    DRAWN: (DaggerConfig(hidden=(8,), labels=30, beta=0.5), TRAIN),
    "mixture": (MixtureConfig(hidden=(8,)), TRAIN),
    "cvae": (CVAEConfig(hidden=(8,)), TRAIN),
    "autoregressive": (AutoregressiveConfig(hidden=(8,)), TRAIN),
    "flow": (FlowConfig(hidden=(8,)), TRAIN),
    "goals": (GoalConfig(hidden=(8,), steps=40), TRAIN),
    "history": (HistoryConfig(hidden=(8,)), TRAIN),
    "recurrent": (RecurrentConfig(units=8), TRAIN),
}  # fmt: skip


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", CASES)
def test_killed_and_resumed_run_equals_the_uninterrupted_one(name, tmp_path, monkeypatch):
    """Killed in the third round, resumed from the second: same metrics, same last checkpoint."""
    monkeypatch.setattr(module, "conclude", lambda *args: None)
    algo, train = CASES[name]
    elsewhere = {"cloning": "CartPole-v1", "goals": "course/PointMaze-v0", DRAWN: "course/TwoWay-v0"}
    env_id = elsewhere.get(name, "InvertedPendulum-v5")
    preset = "dagger-invertedpendulum" if isinstance(algo, DaggerConfig) else "bc-invertedpendulum"
    whole = RunConfig(preset=preset, env_id=env_id, algo=algo, train=train, out=tmp_path / "whole", seed=7)
    run(whole)
    evaluate = trainer.evaluate

    def kill(*args):
        if (killed := tmp_path / "killed").exists() and len(rows(run_directory(killed))) == 5:
            raise Killed
        return evaluate(*args)

    monkeypatch.setattr(trainer, "evaluate", kill)
    with pytest.raises(Killed):
        run(dataclasses.replace(whole, out=tmp_path / "killed"))
    monkeypatch.setattr(trainer, "evaluate", evaluate)
    directory = run_directory(tmp_path / "killed")
    (directory / "summary.json").unlink()  # kill -9 would not have written it
    run(dataclasses.replace(whole, resume=directory))
    assert rows(directory) == rows(run_directory(tmp_path / "whole"))
    first, second = (
        torch.load(sorted((path / "checkpoint").glob("*.pt"))[-1], weights_only=True)
        for path in (directory, run_directory(tmp_path / "whole"))
    )
    assert len(first["data"]["obs"]) == (30 + 3 * 30 if name == "dagger" else len(second["data"]["obs"]))
    assert_same({**first, "wall_s": 0}, {**second, "wall_s": 0})


def test_a_run_killed_by_the_system_goes_on_from_its_directory(tmp_path):
    """kill -9, then nothing but --resume. The killed run repeats the whole one up to there."""
    args = [
        "dagger-invertedpendulum", "--algo.hidden", 8, "--algo.labels", 20, "--train.total-steps", 600,
        "--train.round-steps", 100, "--train.batch-size", 8, "--train.eval-episodes", 1,
    ]  # fmt: skip
    whole = helpers.run(*args, "--out", tmp_path / "whole", module=HW1)
    assert whole.returncode == 0, whole.stderr
    expected = rows(run_directory(tmp_path / "whole"))
    directory = helpers.kill_after_checkpoint(*args, out=tmp_path / "killed", module=HW1)
    before = rows(directory)
    assert before == expected[: len(before)]
    resumed = helpers.run("--resume", directory, module=HW1)
    assert resumed.returncode == 0, resumed.stderr
    assert rows(directory) == expected
