"""The command line of this homework: what it finds, what it leaves behind, and what it refuses."""

import re

import pytest

from tests.helpers import rows, run, run_directory

MODULE = "hw5_planning_control.run"


def test_the_quick_default_swings_the_pole_up(tmp_path):
    """The cost falls from 2,700 to the minimum of 55.80, and the plan costs that when it is played."""
    result = run("--out", tmp_path, module=MODULE)
    assert result.returncode == 0, result.stderr
    found = re.fullmatch(
        r"final cost ([\d.]+) \+- 0 over 1 episodes, .* s, (.+)", result.stdout.splitlines()[-1]
    )
    assert float(found[1]) == pytest.approx(55.80, abs=0.01)
    costs = [-row["return_mean"] for row in rows(run_directory(tmp_path)) if row["split"] == "eval"]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == pytest.approx(float(found[1]), rel=1e-4)
    for picture in ("curve.png", "video/ilqr-cartpole.mp4", "video/ilqr-cartpole.png"):
        assert (run_directory(tmp_path) / picture).exists()
    again = run("--resume", run_directory(tmp_path), module=MODULE)
    assert again.returncode == 2
    assert "is finished" in again.stderr


@pytest.mark.parametrize(
    ("preset", "settings"),
    [
        ("lqr-doubleintegrator", []),
        ("mppi-pendulum", ["--algo.samples", 10, "--train.horizon", 5]),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one(preset, settings, tmp_path):
    options = [*settings, "--train.num-envs", 2]
    assert (
        run(
            preset, *options, "--train.total-steps", 800, "--out", tmp_path / "whole", module=MODULE
        ).returncode
        == 0
    )
    half = run(preset, *options, "--train.total-steps", 1, "--out", tmp_path / "half", module=MODULE)
    assert half.returncode == 0, half.stderr
    directory = run_directory(tmp_path / "half")
    begun, whole = rows(directory), rows(run_directory(tmp_path / "whole"))
    assert len(begun) < len(whole)
    resumed = run("--resume", directory, "--train.total-steps", 800, module=MODULE)
    assert resumed.returncode == 0, resumed.stderr
    assert rows(directory) == whole


TINY_GPS = ["--algo.rounds", 2, "--algo.policy-steps", 5, "--algo.first-plan-steps", 3, "--train.starts", 3]


def test_a_taught_policy_is_played_from_other_starts(tmp_path):
    result = run("gps-pendulum", *TINY_GPS, "--train.eval-episodes", 4, "--out", tmp_path, module=MODULE)
    assert result.returncode == 0, result.stderr
    assert re.match(r"final cost [\d.]+ \+- [\d.]+ over 4 episodes", result.stdout.splitlines()[-1])
    found = rows(run_directory(tmp_path))
    assert [row["step"] for row in found] == [1, 1, 2, 2]
    taught, played = found[-2:]
    assert taught["policy/residual"] == played["policy/residual"] > 0
    assert played["return_mean"] != -taught["policy/cost"]
    assert played["return_std"] > 0


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["ilqr-cartpol"], "there is no preset 'ilqr-cartpol'; did you mean ilqr-cartpole?"),
        (["--env-id", "CartPole-v1"], "env_id"),
        (["--algo.iterations", "-1"], "iterations must be at least 0, got -1"),
        (["--algo.armijo", "0.9"], "armijo must lie in (0, 0.5), got 0.9"),
        (
            ["gps-pendulum", "--env-id", "Pendulum-v1"],
            "env_id must be one of course/DoubleInt",
        ),
        (["gps-pendulum", "--train.spread", "-1"], "spread must be finite and at least 0, got -1"),
        (["gps-pendulum", "--algo.rho", "0"], "rho must be positive"),
        (["mppi-pendulum", "--train.noise", "0.1"], "noise must be 0 in Pendulum-v1"),
        (
            ["cem-pendulum", "--train.replan-every", "99"],
            "replan_every must lie in [1, horizon = 40], got 99",
        ),
        (["imitate-mcts-breakout", "--env-id", "FrozenLake-v1"], "env_id must be one of Pendulum-v1"),
        (["cem-pendulum", "--algo.alpha", "1"], "alpha must lie in [0, 1), got 1"),
        (
            ["lqr-doubleintegrator", "--env-id", "Pendulum-v1", "--train.noise", "0"],
            "env_id must have a goal, at which LQR linearises",
        ),
        (
            ["lqr-doubleintegrator", "--env-id", "HalfCheetah-v5", "--train.noise", "0"],
            "env_id must have a goal, at which LQR linearises",
        ),
        (["divide-lob", "--algo.axis", "1"], "axis must lie in [0, 1)"),
        (["--resume", "nowhere"], "nowhere is not the directory of a run of this homework"),
    ],
)
def test_bad_input_is_one_line_and_status_2(args, sentence, tmp_path):
    result = run(*args, "--out", tmp_path, module=MODULE)
    assert (result.returncode, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
