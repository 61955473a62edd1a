"""PPO against Stable-Baselines3 in the same run, one thread each, processes of their own, in turn.

pip install -r tests/benchmarks/requirements.txt && python -m pytest -m bench -n 0 -s tests/benchmarks
The numbers go to standard output; the assertions are the promises of the README.
"""

import json
import statistics
import subprocess
import sys

import pytest

from tests.helpers import ROOT

pytest.importorskip("stable_baselines3", reason="a peer, see tests/benchmarks/requirements.txt")
pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

OURS = """
import dataclasses, json, resource, sys, time
import torch
from common.evaluation import evaluate
from common.envs import registry
from common.rollout import Collector
from common.seeding import child_seed
from hw2_policy_gradient.run import AGENTS, PRESETS

torch.set_num_threads(1)
preset, algo, train, stop, seed = json.loads(sys.argv[1])
c = PRESETS[preset]
c = dataclasses.replace(
    c, algo=dataclasses.replace(c.algo, **algo), train=dataclasses.replace(c.train, **train)
)
envs, evals = (registry.make_envs(c.env_id, n) for n in (c.train.num_envs, 20))
agent = AGENTS[type(c.algo)](registry.spec(envs), c.algo, c.train.updates, torch.device("cpu"), seed)
collector = Collector(envs, torch.device("cpu"))
collector.reset(child_seed(seed, "env", 0), 0)
start, reached = time.perf_counter(), None
while collector.step < c.train.total_steps and reached is None:
    before = collector.step
    rollout, _ = collector.collect(agent.explore, c.train.rollout_steps)
    agent.update(rollout)
    if stop and collector.step // 5000 > before // 5000:
        if evaluate(agent.act, evals, child_seed(seed, "eval", collector.step))["return_mean"] >= 475:
            reached = time.perf_counter() - start
seconds = time.perf_counter() - start
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"reached": reached, "rate": collector.step / seconds, "seconds": seconds, "MB": memory}))
"""

PEER = """
import json, sys, time
import gymnasium as gym, torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

torch.set_num_threads(1)
env_id, num_envs, options, total, stop, seed = json.loads(sys.argv[1])
for name in ("learning_rate", "clip_range"):  # [x] stands for x falling linearly to zero
    if isinstance(options.get(name), list):
        options[name] = lambda progress, x=options[name][0]: progress * x
evals = make_vec_env(env_id, 20)


class UntilSolved(BaseCallback):
    reached, last = None, 0

    def _on_step(self):
        return self.reached is None

    def _on_rollout_start(self):
        if stop and self.num_timesteps // 5000 > self.last // 5000:
            self.last = self.num_timesteps
            if evaluate_policy(self.model, evals, 20)[0] >= 475:
                self.reached = time.perf_counter() - start


model = PPO("MlpPolicy", make_vec_env(env_id, num_envs), device="cpu", seed=seed, **options)
callback, start = UntilSolved(), time.perf_counter()
model.learn(total, callback=callback)
seconds = time.perf_counter() - start
print(json.dumps({"reached": callback.reached, "rate": model.num_timesteps / seconds, "seconds": seconds}))
"""


def measure(code: str, *arguments: object) -> dict[str, float]:
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def in_turn(ours: tuple, peer: tuple, times: int) -> tuple[list[dict], list[dict]]:
    """ours, peer, ours, peer ...: what slows the machine slows both. Seed k in round k."""
    pairs = [(measure(OURS, *ours, k), measure(PEER, *peer, k)) for k in range(times)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def report(name: str, ours: list[float], peer: list[float]) -> tuple[float, float]:
    a, b = statistics.median(ours), statistics.median(peer)
    each = [[round(x, 1) for x in values] for values in (ours, peer)]
    print(f"\n{name}: ours {a:,.1f} {each[0]}, Stable-Baselines3 {b:,.1f} {each[1]}")
    return a, b


def test_cartpole_is_solved_four_times_sooner():
    """Wall-clock until an evaluation of 475 over 20 episodes, looked for every 5,000 steps."""
    zoo = {
        "n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98, "gae_lambda": 0.8, "ent_coef": 0.0,
        "learning_rate": [1e-3], "clip_range": [0.2],
    }  # fmt: skip
    ours, peer = in_turn(("ppo-cartpole", {}, {}, True), ("CartPole-v1", 8, zoo, 100_000, True), times=5)
    seconds = [[run["reached"] or 2 * run["seconds"] for run in runs] for runs in (ours, peer)]
    a, b = report("seconds to 475 on CartPole-v1", *seconds)
    assert b > 4 * a
    assert max(run["MB"] for run in ours) < 500


def test_steps_per_second_at_equal_settings():
    """8 environments x 32 steps, batch 256, 20 epochs."""
    algo = {"epochs": 20, "gamma": 0.98, "lam": 0.8, "recompute_advantage": False, "batch_size": 256}
    train = {"num_envs": 8, "rollout_steps": 32, "total_steps": 20_480}
    options = {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98, "gae_lambda": 0.8}
    ours, peer = in_turn(
        ("ppo-cartpole", algo, train, False), ("CartPole-v1", 8, options, 20_480, False), times=5
    )
    a, b = report("CartPole-v1 steps per second", *([run["rate"] for run in runs] for runs in (ours, peer)))
    assert a > 1.5 * b


def test_halfcheetah_steps_per_second():
    """2,048 steps per rollout, batch 64, 10 epochs; ours collects them from 8 environments at once."""
    train = {"total_steps": 10_240}
    options = {"n_steps": 2048, "batch_size": 64, "n_epochs": 10}
    ours, peer = in_turn(
        ("ppo-halfcheetah", {}, train, False), ("HalfCheetah-v5", 1, options, 10_240, False), times=5
    )
    a, b = report(
        "HalfCheetah-v5 steps per second", *([run["rate"] for run in runs] for runs in (ours, peer))
    )
    memory = max(run["MB"] for run in ours)
    print(f"peak memory of ours {memory:.0f} MB")
    assert a > 2 * b
    assert memory < 500
