"""The command line of this homework: what a run leaves behind, and what it refuses."""

import json
import math
import re
import sys

import gymnasium as gym
import pytest

from common import cli
from common.results import load_runs
from hw2_policy_gradient import run as module
from tests.helpers import Counter, assert_refused, rows, run, run_directory

TINY = ["--train.total-steps", 2048, "--train.eval-episodes", 2, "--train.rollout-steps", 32]


def main(monkeypatch, *args: object) -> int:
    """Run in this process; the exit status."""
    monkeypatch.setattr(sys, "argv", ["run", *map(str, args)])
    with pytest.raises(SystemExit) as end:
        cli.main(module.PRESETS, "ppo-cartpole", module.run)
    return end.value.code


def test_a_run_leaves_everything_behind(tmp_path):
    result = run("ppo-cartpole", *TINY, "--video", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    directory = run_directory(tmp_path)
    assert directory.parent == tmp_path / "hw2_policy_gradient" / "ppo-cartpole" / "CartPole-v1"
    assert {path.name for path in directory.iterdir()} >= {
        "config.json", "metrics.jsonl", "summary.json", "curve.png", "checkpoint", "video",
    }  # fmt: skip
    assert list(directory.glob("events.out.tfevents.*"))
    assert (directory / "video" / "ppo-cartpole.mp4").stat().st_size > 1000
    last = result.stdout.splitlines()[-1]
    pattern = r"final return (-?[\d.]+) \+- [\d.]+ over 2 episodes, [\d.]+ s, (.+)"
    mean, where = re.fullmatch(pattern, last).groups()
    assert where == str(directory)
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert f"{summary['return_mean']:.1f}" == mean
    assert summary["device"] == "cpu"
    assert summary["command"].startswith("python -m hw2_policy_gradient.run ppo-cartpole --train.total-steps")
    assert load_runs(directory).step.tolist() == [2048]


def test_metrics_carry_their_namespaces(tmp_path, monkeypatch):
    assert main(monkeypatch, "ppo-cartpole", *TINY, "--out", tmp_path) == 0
    train, evaluation = rows(run_directory(tmp_path))[0], rows(run_directory(tmp_path))[-1]
    assert {key.split("/")[0] for key in train} == {
        "split",
        "step",
        "loss",
        "policy",
        "value",
        "grad",
        "rollout",
    }
    assert evaluation.keys() == {
        "split", "step", "return_mean", "return_std", "return_min", "return_max", "length_mean", "episodes",
    }  # fmt: skip


@pytest.mark.parametrize("preset", module.PRESETS)
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_every_preset_works_on_other_environments(preset, env_id, tmp_path, monkeypatch):
    options = [*TINY[:4], "--train.num-envs", 4]
    if hasattr(module.PRESETS[preset].train, "rollout_steps"):
        options += ["--train.rollout-steps", 64]
    if hasattr(module.PRESETS[preset].algo, "gradient_steps"):
        options += ["--algo.gradient-steps", 1]  # per rollout, of 64: seconds
    assert main(monkeypatch, preset, "--env-id", env_id, *options, "--out", tmp_path) == 0


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("preset", module.PRESETS)
def test_every_preset_runs_on_a_gpu(preset, device, tmp_path, monkeypatch):
    options = TINY if hasattr(module.PRESETS[preset].train, "rollout_steps") else TINY[:4]
    assert main(monkeypatch, preset, "--device", device, *options, "--out", tmp_path) == 0


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--env-id", "CartPol-v1"], "there is no environment 'CartPol-v1' here; did you mean CartPole-v1?"),
        (["ppo-cartpol"], "there is no preset 'ppo-cartpol'; did you mean ppo-cartpole?"),
        (["--algo.lrr", "1"], "--algo.lrr"),
        (["--algo.gamma", "1.5"], "gamma must lie in [0, 1], got 1.5"),
        (["--algo.batch-size", "1"], "batch_size must be at least 2, got 1"),
        (["a3c-cartpole", "--algo.workers", "0"], "workers must be at least 1, got 0"),
        (["a3c-cartpole", "--algo.workers", "2000"], "workers must lie in [1, 1024], got 2000"),
        (["a2c-cartpole", "--algo.value-weight", "-1"], "value_weight must be at least 0, got -1"),
        (["es-cartpole", "--train.num-envs", "5"], "num_envs must divide the population of 16, got 5"),
        (["es-cartpole", "--algo.population", "7"], "population must be even, got 7"),
        (["es-cartpole", "--train.workers", "0"], "workers must be at least 1, got 0"),
        (["cma-es-cartpole", "--algo.hidden", "64", "64"], "hidden must leave at most 2000 parameters"),
        (["off-policy-actor-critic-cartpole", "--algo.critics", "0"], "critics must be at least 1, got 0"),
        (["--train.num-envs", "0"], "num_envs must be at least 1, got 0"),
        (["--train.num-envs", "1000000000000"], "num_envs must be below 2^31, got 1000000000000"),
        (["--train.num-envs", "100000"], "num_envs must lie in [1, 65535], got 100000"),
        (["--algo.batch-size", "1" + "0" * 30], "batch_size must be below 2^31"),
        (["--algo.hidden", "1000000000000"], "hidden must lie in [1, 4096], got (1000000000000,)"),
        (["--algo.log-std", "1e300"], "log_std must lie in [-20, 10], got 1e+300"),
        (["--device", "meta"], "device 'meta' is not available here"),
        (["--env-id", "CarRacing-v3"], "env_id must have one vector of numbers as observation"),
        (["--env-id", "FrozenLake-v1"], "env_id must have one vector of numbers as observation"),
        (["--resume", "nowhere"], "nowhere is not the directory of a run of this homework"),
        (["--device", "tpu9"], "device 'tpu9' is not available here"),
    ],
)
def test_bad_input_is_one_line_and_status_2(args, sentence, tmp_path, monkeypatch, capsys):
    assert main(monkeypatch, *args, "--out", tmp_path) == 2
    assert_refused(sentence, tmp_path, capsys)


def test_unwritable_output_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    assert main(monkeypatch, *TINY, "--out", tmp_path / "file") == 2
    assert "error: out: cannot write" in capsys.readouterr().err


def test_nan_reward_of_an_environment(tmp_path, monkeypatch, capsys):
    gym.register("test/Broken-v0", entry_point=lambda: Counter(nan_reward_at=2))
    try:
        assert main(monkeypatch, *TINY, "--env-id", "test/Broken-v0", "--out", tmp_path) == 2
    finally:
        del gym.registry["test/Broken-v0"]
    assert "error: the environment returned a reward that is not finite" in capsys.readouterr().err
    summary = json.loads((run_directory(tmp_path) / "summary.json").read_text())
    assert summary["status"] == "failed"


def test_nan_loss(tmp_path, monkeypatch, capsys):
    update = module.PPO.update
    monkeypatch.setattr(module.PPO, "update", lambda self, r: update(self, r) | {"loss/policy": math.nan})
    assert main(monkeypatch, *TINY, "--out", tmp_path) == 2
    assert "error: not finite at step 1024: loss/policy" in capsys.readouterr().err


def test_a_learning_rate_that_blows_up_is_one_sentence(tmp_path, monkeypatch, capsys):
    options = ["--algo.lr", "1e30", "--algo.max-grad-norm", "inf", "--out", tmp_path]
    assert main(monkeypatch, "ppo-cartpole", *TINY, *options) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("preset", "rate"),
    [
        ("reinforce-cartpole", "lr"), ("actor-critic-cartpole", "lr"), ("ppo-cartpole", "lr"),
        ("ppo-penalty-cartpole", "lr"), ("npg-cartpole", "value-lr"), ("trpo-cartpole", "value-lr"),
        ("a2c-cartpole", "lr"), ("a3c-cartpole", "lr"),
    ],
)  # fmt: skip
def test_parameters_that_blow_up_are_never_saved(preset, rate, tmp_path, monkeypatch, capsys):
    """Also where the loss was finite and only the step was not."""
    options = ["--train.total-steps", 64, "--train.num-envs", 2, "--train.rollout-steps", 32]
    assert main(monkeypatch, preset, f"--algo.{rate}", "1e300", *options, "--out", tmp_path) == 2
    assert "not finite" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.pt"))


def test_full_disk_while_training(tmp_path, monkeypatch, capsys):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("common.checkpoint.save", full)
    assert main(monkeypatch, *TINY, "--out", tmp_path) == 2
    assert "error: cannot write the run: [Errno 28] No space left on device" in capsys.readouterr().err


def test_help_names_presets_and_explains_settings(capsys, monkeypatch):
    assert main(monkeypatch, "--help") == 0
    out = capsys.readouterr().out
    assert all(preset in out for preset in module.PRESETS)
    assert "environment steps, rounded up to whole rollouts" in out
