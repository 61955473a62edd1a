"""Runs of a homework's command line, as a user starts them, and environments that misbehave."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from common.types import EnvSpec, Rollout

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")


HW1 = "hw1_imitation.run"
HW2 = "hw2_policy_gradient.run"
HW3 = "hw3_q_learning.run"
# A fork of a process that has imported the packages starts four seconds sooner than a new one.
CONTEXT = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
CONTEXT.set_forkserver_preload(
    ["tests.helpers", HW1, HW2, HW3, "hw5_planning_control.run", "common.results", "torch._dynamo"]
)


class Process:
    """`python -m module args`, started in the repository's root, its output in files."""

    def __init__(self, *args: object, module: str = HW2):
        self.folder = Path(tempfile.mkdtemp(prefix="run_"))
        self.process = CONTEXT.Process(target=_main, args=(module, [*map(str, args)], self.folder))
        self.process.start()

    def wait(self, timeout: float = 200.0) -> subprocess.CompletedProcess:
        """subprocess.TimeoutExpired if it has not ended by then."""
        self.process.join(timeout)
        if (status := self.process.exitcode) is None:
            raise subprocess.TimeoutExpired("run", timeout)
        out, err = ((self.folder / name).read_text() for name in ("out", "err"))
        shutil.rmtree(self.folder)
        return subprocess.CompletedProcess("run", status, out, err)

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """As kill -9 does."""
        self.process.kill()
        self.process.join()
        shutil.rmtree(self.folder)


def _main(module: str, args: list[str], folder: Path) -> None:
    os.chdir(ROOT)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = [module, *args]
    warnings.filterwarnings("ignore", module="runpy")  # that the module is known already
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def run(*args: object, module: str = HW2) -> subprocess.CompletedProcess:
    """The command line to its end."""
    return Process(*args, module=module).wait()


def kill_after_checkpoint(*args: object, out: Path, module: str = HW2) -> Path:
    """Start a run, kill -9 it a moment after its first checkpoint; its directory."""
    process = Process(*args, "--out", out, module=module)
    while not any(out.rglob("*.pt")):
        assert process.process.is_alive(), f"ended before it could be killed: {process.wait()}"
        time.sleep(0.002)
    time.sleep(0.1)  # into the next rollouts, so that rows after the checkpoint exist
    process.kill()
    return run_directory(out)


def run_directory(out: Path) -> Path:
    (config,) = out.rglob("config.json")
    return config.parent


def rows(directory: Path) -> list[dict]:
    """The metrics without what a clock decides."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if k != "wall_s" and not k.startswith("speed/")}
        for line in lines
    ]


def returns(directory: Path) -> list[float]:
    """Mean return of every evaluation."""
    return [row["return_mean"] for row in rows(directory) if row["split"] == "eval"]


def assert_same(a: object, b: object) -> None:
    """To the last bit."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


def assert_refused(sentence: str, out: Path, capsys) -> None:
    """In one line, with nothing begun in the folder `out`."""
    told, error = capsys.readouterr()
    assert told == ""
    assert sentence in error
    assert len(error.splitlines()) == 1
    assert not list(out.iterdir())


def assert_complete(directory: Path, capsys) -> None:
    """The files of a finished run of one evaluation episode, and its last line."""
    names = {"config.json", "metrics.jsonl", "summary.json", "curve.png", "checkpoint"}
    assert {path.name for path in directory.iterdir()} >= names
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"final return -?[\d.]+ \+- [\d.]+ over 1 episodes, [\d.]+ s, .+", last)


class Counter(gym.Env):
    """Observation = steps taken in this episode; terminated after three. `bad_at` gives a NaN there."""

    observation_space = gym.spaces.Box(0, 99, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, nan_reward_at: int = -1, nan_obs_at: int = -1):
        self.nan_reward_at, self.nan_obs_at = nan_reward_at, nan_obs_at

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        reward = np.nan if self.t == self.nan_reward_at else 1.0
        obs = np.full(1, np.nan if self.t == self.nan_obs_at else self.t, np.float32)
        return obs, reward, self.t == 3, False, {}


def vector(env: type[gym.Env], num_envs: int = 2, **options) -> gym.vector.SyncVectorEnv:
    mode = gym.vector.AutoresetMode.SAME_STEP
    return gym.vector.SyncVectorEnv([lambda: env(**options)] * num_envs, autoreset_mode=mode)


def random_rollout(spec: EnvSpec, steps: int, seed: int = 0) -> Rollout:
    """T = `steps` of noise with an end here and there."""
    g = torch.Generator().manual_seed(seed)
    shape = (steps, spec.num_envs)
    if spec.discrete:
        action = torch.randint(spec.action_dim, shape, generator=g)
    else:
        action = torch.randn(*shape, spec.action_dim, generator=g)
    terminated = torch.rand(shape, generator=g) < 0.1
    truncated = (torch.rand(shape, generator=g) < 0.1) & ~terminated
    obs, next_obs = torch.randn(2, *shape, spec.obs_dim, generator=g)
    goes_on = ~(terminated | truncated)[:-1]
    obs[1:][goes_on] = next_obs[:-1][goes_on]
    return Rollout(obs, action, torch.randn(shape, generator=g), next_obs, terminated, truncated)


class Memory:
    """A policy that remembers how many steps ago each of its episodes began, and notes it."""

    def __init__(self):
        self.notes = []

    def begin(self, first):
        self.age = np.where(first, 0, getattr(self, "age", 0))

    def __call__(self, obs, step=0):
        self.notes.append(self.age.tolist())
        self.age = self.age + 1
        return np.zeros(len(obs), np.int64)
