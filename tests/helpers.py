"""Runs of a homework's command line, as a user starts them, and environments that misbehave."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from common.types import EnvSpec, Rollout

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")


def command(*args: object, module: str = "hw2_policy_gradient.run") -> list[str]:
    return [sys.executable, "-m", module, *map(str, args)]


def run(*args: object, module: str = "hw2_policy_gradient.run", **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*args, module=module), cwd=ROOT, capture_output=True, text=True, timeout=200, **options
    )


def kill_after_checkpoint(*args: object, out: Path) -> Path:
    """Start a run, kill -9 it a moment after its first checkpoint; its directory."""
    process = subprocess.Popen(command(*args, "--out", out), cwd=ROOT, stderr=subprocess.DEVNULL)
    while not any(out.rglob("*.pt")):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    time.sleep(0.1)  # into the next rollouts, so that rows after the checkpoint exist
    process.kill()
    process.wait()
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
