"""2N steps = N, killed, resumed, N: bit for bit, for every agent, the replay memory included."""

import dataclasses

import pytest
import torch

from common import checkpoint
from hw3_q_learning import run as module
from hw3_q_learning import trainer
from hw3_q_learning.run import AGENTS, PRESETS, RunConfig, run
from hw3_q_learning.trainer import TrainConfig
from tests import helpers
from tests.helpers import HW3, assert_same, rows, run_directory

TRAIN = TrainConfig(
    total_steps=72, learning_starts=12, batch_size=12, capacity=30, log_every=12, eval_every=24,
    eval_episodes=1, save_every=36,
)  # fmt: skip
SPECIAL = dataclasses.replace(TRAIN, n_step=3, priority=0.6, num_envs=2, collect_steps=2)
CONFIGS = [pytest.param(config, TRAIN, id=config.__name__) for config in AGENTS] + [
    pytest.param(config, SPECIAL, id=f"{config.__name__}-n-step-prioritised") for config in [*AGENTS][:2]
]


def settings(algo: type, train: TrainConfig, out) -> RunConfig:
    """With networks and an environment that cost little."""
    discrete = issubclass(algo, type(PRESETS["dqn-cartpole"].algo))
    small = {"hidden": (8,)} | ({"critic_hidden": (8,)} if hasattr(algo, "critic_hidden") else {})
    small |= {"zeta": 1.5} if discrete and train is SPECIAL else {}  # an action may be held at the checkpoint
    return RunConfig(
        preset="dqn-cartpole",
        env_id="CartPole-v1" if discrete else "InvertedPendulum-v5",
        algo=algo(**small),
        train=train,
        out=out,
        seed=7,
    )


class Killed(Exception):
    pass


@pytest.mark.parametrize(("algo", "train"), CONFIGS)
def test_killed_and_resumed_run_equals_the_uninterrupted_one(algo, train, tmp_path, monkeypatch):
    """Killed at step 48, resumed from the checkpoint of step 36: same metrics, same last checkpoint."""
    monkeypatch.setattr(module, "conclude", lambda *args: None)  # its plot would take most of the time
    whole = settings(algo, train, tmp_path / "whole")
    run(whole)
    evaluate = trainer.evaluate

    def kill(*args):
        if (killed := tmp_path / "killed").exists() and len(rows(run_directory(killed))) >= 5:
            raise Killed
        return evaluate(*args)

    monkeypatch.setattr(trainer, "evaluate", kill)
    with pytest.raises(Killed):
        run(dataclasses.replace(whole, out=tmp_path / "killed"))
    monkeypatch.setattr(trainer, "evaluate", evaluate)
    directory = run_directory(tmp_path / "killed")
    assert checkpoint.load_latest(directory / "checkpoint")["step"] == 36
    (directory / "summary.json").unlink()  # kill -9 would not have written it
    run(dataclasses.replace(whole, resume=directory))
    assert rows(directory) == rows(run_directory(tmp_path / "whole"))
    names = [
        sorted((path / "checkpoint").glob("*.pt"))[-1]
        for path in (directory, run_directory(tmp_path / "whole"))
    ]
    first, second = (torch.load(name, weights_only=True) for name in names)
    assert_same({k: first[k] for k in ("agent", "replay")}, {k: second[k] for k in ("agent", "replay")})


def test_a_run_killed_by_the_system_goes_on_from_its_directory(tmp_path):
    """kill -9, then nothing but --resume. The killed run repeats the whole one up to there."""
    args = [
        "sac-pendulum", "--algo.hidden", 8, "--train.total-steps", 400, "--train.learning-starts", 64,
        "--train.batch-size", 16, "--train.eval-every", 200, "--train.eval-episodes", 1,
        "--train.save-every", 100, "--train.log-every", 25,
    ]  # fmt: skip
    whole = helpers.run(*args, "--out", tmp_path / "whole", module=HW3)
    assert whole.returncode == 0, whole.stderr
    expected = rows(run_directory(tmp_path / "whole"))
    directory = helpers.kill_after_checkpoint(*args, out=tmp_path / "killed", module=HW3)
    before = rows(directory)
    assert len(before) < len(expected)
    assert before == expected[: len(before)]
    resumed = helpers.run("--resume", directory, module=HW3)
    assert resumed.returncode == 0, resumed.stderr
    assert rows(directory) == expected
