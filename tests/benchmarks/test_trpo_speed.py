"""TRPO against sb3-contrib's, measured as test_ppo_speed.py measures PPO.

Both do the same work per rollout: 15 products with the Fisher matrix over all of its states, a line search,
10 passes of the critic in batches of 128.
"""

import pytest

from tests.benchmarks.test_ppo_speed import OURS, measure, report

pytest.importorskip("sb3_contrib", reason="a peer, see tests/benchmarks/requirements.txt")
pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

PEER = """
import json, sys, time
import gymnasium as gym, torch
from sb3_contrib import TRPO
from stable_baselines3.common.env_util import make_vec_env

torch.set_num_threads(1)
env_id, num_envs, options, total, seed = json.loads(sys.argv[1])
model = TRPO("MlpPolicy", make_vec_env(env_id, num_envs), device="cpu", seed=seed, **options)
start = time.perf_counter()
model.learn(total)
seconds = time.perf_counter() - start
print(json.dumps({"rate": model.num_timesteps / seconds}))
"""
SAME = {"cg_iterations": 15, "value_epochs": 10, "batch_size": 128}


def rates(preset: str, train: dict, env_id: str, num_envs: int, n_steps: int) -> tuple[float, float]:
    """Median steps per second of five runs each, in turn."""
    options, total = {"n_steps": n_steps, "cg_max_steps": 15}, train["total_steps"]
    pairs = [
        (measure(OURS, preset, SAME, train, False, k), measure(PEER, env_id, num_envs, options, total, k))
        for k in range(5)
    ]
    ours, peer = ([run["rate"] for run in runs] for runs in zip(*pairs, strict=True))
    print(f"\npeak memory of ours {max(run['MB'] for run, _ in pairs):.0f} MB")
    return report(f"{env_id} steps per second", ours, peer)


def test_cartpole_steps_per_second_at_equal_settings():
    """8 environments x 128 steps."""
    train = {"num_envs": 8, "rollout_steps": 128, "total_steps": 20_480}
    ours, peer = rates("trpo-cartpole", train, "CartPole-v1", 8, 128)
    assert ours > 2 * peer


def test_halfcheetah_steps_per_second():
    """2,048 steps per rollout; ours collects them from 16 environments at once, the peer from its one."""
    train = {"num_envs": 16, "rollout_steps": 128, "total_steps": 20_480}
    ours, peer = rates("trpo-halfcheetah", train, "HalfCheetah-v5", 1, 2048)
    assert ours > 2 * peer
