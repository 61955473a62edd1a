"""Gradient steps of SAC per second against Stable-Baselines3's, and against what the core can multiply.

python -m pytest -m bench -n 0 -s tests/benchmarks/test_sac_speed.py, with its requirements.txt installed.
HalfCheetah's sizes, batch 256, two hidden layers of 256, draws from the replay included; one thread, in turn
in one process, so that what slows one slows the other; seconds are those of the processor.
"""

import statistics
import time

import pytest
import torch

from common.replay import Batch, Replay
from common.types import EnvSpec
from hw3_q_learning.sac import SAC, SACConfig
from tests.benchmarks.test_ppo_speed import report
from tests.helpers import CPU

sb3 = pytest.importorskip("stable_baselines3", reason="a peer, see tests/benchmarks/requirements.txt")
pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]
SPEC = EnvSpec(num_envs=1, obs_dim=17, action_dim=6, discrete=False)
BATCH, STORED, UPDATES, ROUNDS = 256, 10_000, 50, 5


def products() -> int:
    """Floating-point operations of the matrix products in one update: 2 for each weight that meets a sample.

    A pass back costs what the pass forward does once for the weights and once for the inputs; the inputs of
    the whole network need none, but where the actor climbs the critics, which need none for the weights.
    """
    obs, action, h = SPEC.obs_dim, SPEC.action_dim, 256
    actor, actor_inside = obs * h + h * h + h * 2 * action, h * h + h * 2 * action
    critics, critics_inside = 2 * ((obs + action) * h + h * h + h), 2 * (h * h + h)
    target = actor + critics
    critic_step = critics + critics + critics_inside
    actor_step = actor + critics + critics + actor + actor_inside
    return 2 * BATCH * (target + critic_step + actor_step)


def rate(call, times: int) -> float:
    """Calls per second of the processor."""
    start = time.process_time()
    for _ in range(times):
        call()
    return times / (time.process_time() - start)


def test_updates_per_second():
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    obs, next_obs = torch.randn(2, STORED, 17, generator=g)
    action, reward = 2 * torch.rand(STORED, 6, generator=g) - 1, torch.randn(STORED, generator=g)
    replay, agent = Replay(STORED, SPEC, CPU), SAC(SPEC, SACConfig(), 1, CPU, 0)
    replay.add(Batch(obs, action, reward, next_obs, reward > 2))
    peer = sb3.SAC("MlpPolicy", "HalfCheetah-v5", buffer_size=STORED, device="cpu", seed=0)
    peer.set_logger(sb3.common.logger.configure(format_strings=[]))
    for row in zip(obs, next_obs, action, reward, reward > 2, strict=True):
        peer.replay_buffer.add(*(x.numpy()[None] for x in row), [{}])
    matrix = torch.randn(BATCH, BATCH)
    rates = {
        "ours": lambda: rate(lambda: agent.update(replay.sample(BATCH, g)), UPDATES),
        "Stable-Baselines3": lambda: UPDATES * rate(lambda: peer.train(UPDATES, BATCH), 1),
        "products of 256 x 256": lambda: rate(lambda: matrix @ matrix, 20 * UPDATES),
    }
    found = {name: [] for name in rates}
    for _ in range(ROUNDS):
        for name, measured in rates.items():
            found[name].append(measured())
    ours, theirs = report("SAC updates per second", found["ours"], found["Stable-Baselines3"])
    core = 2 * BATCH**3 * statistics.median(found["products of 256 x 256"])
    print(f"{core / 1e9:.0f} GFlop/s of the core, of which ours uses {ours * products() / core:.0%}")
    assert ours > 1.3 * theirs
