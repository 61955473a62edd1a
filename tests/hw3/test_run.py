"""The command line of this homework: what a run leaves behind, and what it refuses in one sentence."""

import sys

import pytest

from common import cli
from hw3_q_learning import run as module
from tests.helpers import assert_complete, assert_refused, rows, run_directory

TINY = [
    "--train.total-steps", 40, "--train.learning-starts", 32, "--train.batch-size", 16,
    "--train.capacity", 64,
    "--train.eval-episodes", 1, "--train.collect-steps", 1, "--train.updates", 1, "--algo.hidden", 8,
]  # fmt: skip
FIRST = ["dqn-cartpole", "sac-pendulum"]


def main(monkeypatch, *args: object) -> int:
    """Run in this process; the exit status."""
    monkeypatch.setattr(sys, "argv", ["run", *map(str, args)])
    with pytest.raises(SystemExit) as end:
        cli.main(module.PRESETS, "dqn-cartpole", module.run)
    return end.value.code


@pytest.mark.parametrize("preset", FIRST)
def test_a_run_leaves_everything_behind(preset, tmp_path, monkeypatch, capsys):
    assert main(monkeypatch, preset, *TINY, "--out", tmp_path) == 0
    directory = run_directory(tmp_path)
    assert_complete(directory, capsys)
    namespaces = {key.split("/")[0] for row in rows(directory) for key in row if "/" in key}
    assert namespaces - {"rollout"} <= {"loss", "value", "policy", "grad"}


@pytest.mark.parametrize("preset", [name for name in module.PRESETS if name not in FIRST])
def test_every_preset_takes_its_first_steps(preset, tmp_path, monkeypatch):
    """Also with continuous or discrete actions of another environment than its own."""
    monkeypatch.setattr(module, "conclude", lambda *args: "finished")
    discrete = isinstance(module.PRESETS[preset].algo, module.DQNConfig)
    env_id = "Acrobot-v1" if discrete else "Pendulum-v1"
    assert main(monkeypatch, preset, "--env-id", env_id, *TINY, "--out", tmp_path) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("preset", module.PRESETS)
def test_every_preset_runs_on_a_gpu(preset, tmp_path, monkeypatch):
    assert main(monkeypatch, preset, "--device", "cuda", *TINY, "--out", tmp_path) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("preset", ["sac-pendulum", "ddpg-pendulum", "td3-pendulum"])
def test_a_captured_run_is_the_plain_run(preset, tmp_path, monkeypatch):
    """The same kernels on the same numbers: rows alike but for the clock."""
    for flag in ("--capture", "--no-capture"):
        assert main(monkeypatch, preset, "--device", "cuda", flag, *TINY, "--out", tmp_path / flag) == 0
    captured, plain = (rows(run_directory(tmp_path / flag)) for flag in ("--capture", "--no-capture"))
    for a, b in zip(captured, plain, strict=True):
        shown = {key for key in b if isinstance(b[key], float) and key not in ("wall_s", "speed/steps_per_s")}
        assert {key: a[key] for key in shown} == pytest.approx({key: b[key] for key in shown}, rel=1e-4)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["crossq-pendulum", "--capture"], "capture must be off for CrossQ"),
        (["crossq-pendulum", "--train.batch-size", "1"], "batch_size must be at least 2 for CrossQ"),
        (["sac-pendulum", "--capture"], "capture must run on device cuda, got cpu"),
        (["dqn-cartpole", "--env-id", "Pendulum-v1"], "env_id must have discrete actions for DQN"),
        (["sac-pendulum", "--env-id", "CartPole-v1"], "env_id must have continuous actions for SAC"),
        (["sac-pendulm"], "there is no preset 'sac-pendulm'; did you mean sac-pendulum?"),
        (["--train.capacity", "0"], "capacity must be at least 1, got 0"),
        (["--train.batch-size", "5000"], "batch_size must be at most learning_starts, 1000, got 5000"),
        (["--algo.gamma", "1.5"], "gamma must lie in [0, 1], got 1.5"),
        (["--train.updates", "0"], "updates must be at least 1, got 0"),
        (["cem-q-pendulum", "--algo.search", "grid"], "--algo.search"),
    ],
)
def test_bad_input_is_one_line_and_status_2(args, sentence, tmp_path, monkeypatch, capsys):
    assert main(monkeypatch, *args, "--out", tmp_path) == 2
    assert_refused(sentence, tmp_path, capsys)


@pytest.mark.parametrize("preset", FIRST)
def test_parameters_that_blow_up_are_never_saved(preset, tmp_path, monkeypatch, capsys):
    assert main(monkeypatch, preset, *TINY, "--algo.lr", "1e30", "--out", tmp_path) == 2
    assert "not finite" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.pt"))
