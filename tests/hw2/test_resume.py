"""2N steps = N, kill -9, resume, N: bit for bit."""

import random
import signal
import subprocess
import time

import pytest

from common import cli, session
from hw2_policy_gradient import run as module
from hw2_policy_gradient.run import PRESETS
from tests.helpers import Process, kill_after_checkpoint, rows, run, run_directory

PENDULUM = ["--env-id", "InvertedPendulum-v5", "--train.rollout-steps", 64]
NORMALISED = [*PENDULUM, "--algo.normalize-obs"]
RUNS = {
    "ppo-discrete": ["ppo-cartpole"],
    "ppo-continuous": ["ppo-halfcheetah", *PENDULUM, "--algo.epochs", 2],
    "reinforce-discrete": ["reinforce-cartpole"],
    "reinforce-continuous": ["reinforce-cartpole", *PENDULUM],
    "npg-discrete": ["npg-cartpole"],
    "trpo-continuous": ["trpo-hopper", *PENDULUM],
    "recurrent-ppo-discrete": ["recurrent-ppo-cartpole"],
    "ppo-penalty-continuous": ["ppo-penalty-cartpole", *NORMALISED, "--algo.normalize-reward"],
    "actor-critic-discrete": ["actor-critic-cartpole"],
    "actor-critic-continuous": ["actor-critic-invertedpendulum", *NORMALISED],
}
BRIEF = ["--train.save-every", 2048, "--train.eval-every", 2048, "--train.eval-episodes", 2]


@pytest.mark.parametrize("name", RUNS)
def test_killed_and_resumed_run_equals_the_uninterrupted_one(name, tmp_path):
    """The killed run is also the second run of the same command: up to there both must agree as well."""
    args = [*RUNS[name], *BRIEF, "--train.total-steps", 6144, "--seed", 7]
    whole = run(*args, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    expected = rows(run_directory(tmp_path / "whole"))
    directory = kill_after_checkpoint(*args, out=tmp_path / "killed")
    before = rows(directory)
    assert len(before) < len(expected)
    assert before == expected[: len(before)]  # determinism
    resumed = run("--resume", directory)
    assert resumed.returncode == 0, resumed.stderr
    assert rows(directory) == expected


# Without a rate that falls over the whole run, N steps are the first half of 2N.
PENDULUMS = ["--env-id", "InvertedPendulum-v5", "--algo.normalize-obs"]
SEARCH = ["--algo.population", 4, "--train.num-envs", 2, "--train.eval-every", 256]
REPLAY = ["--algo.no-lr-decay", "--algo.learning-starts", 256, "--algo.gradient-steps", 2]
REPLAY += ["--train.eval-every", 128, "--train.save-every", 512]
HALVES = {
    "es-discrete": ["es-cartpole", *SEARCH],
    "es-continuous": ["es-cartpole", *PENDULUMS, *SEARCH],
    "cma-es-discrete": ["cma-es-cartpole", *SEARCH],
    "off-policy-actor-critic-discrete": ["off-policy-actor-critic-cartpole", *REPLAY],
    "off-policy-actor-critic-continuous": ["off-policy-actor-critic-cartpole", *PENDULUMS, *REPLAY],
}


@pytest.mark.parametrize("name", HALVES)
def test_two_halves_equal_the_whole(name, tmp_path, monkeypatch):
    """In this process: quick. That a kill -9 is no different is for the runs above to show."""
    monkeypatch.setattr(session, "plot_run", lambda *args: None)

    def steps(total: int, *args: object) -> None:
        args = [*map(str, args), "--train.total-steps", str(total), "--train.eval-episodes", "2"]
        module.run(cli.parse(PRESETS, "ppo-cartpole", args))

    steps(1024, *HALVES[name], "--out", tmp_path / "whole")
    steps(512, *HALVES[name], "--out", tmp_path / "half")
    directory = run_directory(tmp_path / "half")
    *half, last = rows(directory)
    steps(1024, "--resume", directory)
    whole = rows(run_directory(tmp_path / "whole"))
    assert half == whole[: len(half)]
    assert [row for row in rows(directory) if row != last or row in whole] == whole


def test_normalisers_of_the_continuous_runs_are_on():
    algo = PRESETS["ppo-halfcheetah"].algo
    assert algo.normalize_obs
    assert algo.normalize_reward


@pytest.mark.parametrize("times", [6, pytest.param(20, marks=pytest.mark.learning)])
def test_killed_at_random_moments(times, tmp_path):
    """One run, killed over and over: in start-up, in a rollout, in the writing of a checkpoint."""
    args = ["ppo-cartpole", "--train.total-steps", 50_000, "--train.save-every", 1024, "--algo.epochs", 1]
    args += ["--train.eval-every", 20_000, "--train.eval-episodes", 2]
    assert run(*args, "--out", tmp_path / "whole").returncode == 0
    started = time.perf_counter()
    assert run(*args, "--train.total-steps", 1024, "--out", tmp_path / "first").returncode == 0
    start_up, rng, out = time.perf_counter() - started, random.Random(0), tmp_path / "killed"
    resume = []
    for _ in range(times):
        process = Process(*(resume or [*args, "--out", out]))
        try:
            result = process.wait(start_up * rng.uniform(0.2, 1.2))
            assert result.returncode == 0 or "is finished" in result.stderr, result.stderr
        except subprocess.TimeoutExpired:
            process.kill()
        if list(out.rglob("config.json")):
            resume = ["--resume", run_directory(out)]
    last = run(*resume)
    assert last.returncode == 0 or "is finished" in last.stderr, last.stderr
    assert "damaged" not in last.stderr
    assert rows(run_directory(out)) == rows(run_directory(tmp_path / "whole"))


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    process = Process("ppo-cartpole", "--train.total-steps", 10**7, "--out", tmp_path)
    while not list(tmp_path.rglob("metrics.jsonl")) or not rows(run_directory(tmp_path)):
        time.sleep(0.05)
    process.signal(signal.SIGINT)
    result, directory = process.wait(60), run_directory(tmp_path)
    assert f"--resume {directory}" in result.stdout, result.stderr
    assert result.returncode == 130
    assert len(list(tmp_path.rglob("*.pt"))) == 1
    step = rows(directory)[-1]["step"]
    assert run("--resume", directory, "--train.total-steps", step + 2048).returncode == 0
    assert rows(directory)[-1]["step"] == step + 2048


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    process = Process("ppo-cartpole", "--algo.epochs", 10**9, "--out", tmp_path)  # the first would take years
    while not list(tmp_path.rglob("metrics.jsonl")):
        time.sleep(0.02)
    time.sleep(0.5)
    process.signal(signal.SIGINT)
    time.sleep(0.1)
    process.signal(signal.SIGINT)
    result = process.wait(60)
    assert result.returncode == 130
    assert "--resume RUN_DIR goes on from the last checkpoint, or starts over without one" in result.stderr


def test_a_run_that_is_going_on_is_not_resumed(tmp_path):
    process = Process(
        "ppo-cartpole", "--train.total-steps", 10**7, "--train.save-every", 1024, "--out", tmp_path
    )
    while not list(tmp_path.rglob("*.pt")):
        time.sleep(0.02)
    directory = run_directory(tmp_path)
    before = (directory / "config.json").read_bytes()
    second = run("--resume", directory, "--video")
    process.kill()
    assert (directory / "config.json").read_bytes() == before
    assert (second.returncode, second.stdout) == (2, "")
    assert second.stderr == f"error: {directory} is in use by another process\n"
    step = rows(directory)[-1]["step"]
    assert (
        run("--resume", directory, "--train.total-steps", step + 1024).returncode == 0
    )  # kill -9 unlocked it


def test_killed_before_the_first_checkpoint_starts_over(tmp_path):
    args = ["ppo-cartpole", "--train.total-steps", 20_480]
    process = Process(*args, "--out", tmp_path)
    while not list(tmp_path.rglob("metrics.jsonl")) or len(rows(run_directory(tmp_path))) < 3:
        time.sleep(0.01)
    process.kill()
    assert not list(tmp_path.rglob("*.pt"))
    assert run("--resume", run_directory(tmp_path)).returncode == 0
    steps = [row["step"] for row in rows(run_directory(tmp_path)) if row["split"] == "train"]
    assert steps == [1024 * (k + 1) for k in range(20)]


def test_resume_of_a_finished_or_damaged_run_is_refused(tmp_path):
    assert run("ppo-cartpole", "--train.total-steps", 1024, "--out", tmp_path).returncode == 0
    directory = run_directory(tmp_path)
    before = (directory / "metrics.jsonl").read_bytes(), (directory / "summary.json").read_bytes()
    again = run("--resume", directory)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == f"error: {directory} is finished; raise --train.total-steps to go on\n"
    (directory / "summary.json").rename(directory / "kept")  # killed just before the summary
    late = run("--resume", directory)
    assert late.returncode == 0, late.stderr
    assert late.stdout.splitlines()[-1].startswith("final return")
    assert (directory / "metrics.jsonl").read_bytes() == before[0]
    (directory / "kept").replace(directory / "summary.json")
    for path in directory.rglob("*.pt"):
        path.write_bytes(b"x")
    damaged = run("--resume", directory)
    assert damaged.returncode == 2
    assert "every checkpoint" in damaged.stderr
    assert "Traceback" not in damaged.stderr
    assert before == ((directory / "metrics.jsonl").read_bytes(), (directory / "summary.json").read_bytes())
