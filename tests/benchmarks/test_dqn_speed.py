"""Steps of DQN per second on CartPole-v1 against Stable-Baselines3, both at its zoo's settings.

pip install -r tests/benchmarks/requirements.txt && python -m pytest -m bench -n 0 -s tests/benchmarks/test_dqn_speed.py
Whole runs without evaluations on the way: 128 updates of 64 transitions after every 256 steps. One thread, in
turn in one process, time of the processor. Both copy the target network once a round: the peer counts environment steps, and trains between rounds only.
"""  # noqa: E501

import time

import pytest
import torch

from common import device
from common.envs import registry
from common.logger import RunLogger
from common.replay import Replay
from common.rollout import Collector
from hw3_q_learning.dqn import DQN, DQNConfig
from hw3_q_learning.trainer import TrainConfig, train
from tests.benchmarks.test_ppo_speed import report
from tests.helpers import CPU

sb3 = pytest.importorskip("stable_baselines3", reason="a peer, see tests/benchmarks/requirements.txt")
pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]
STEPS, ROUNDS = 4_096, 5
ALGO = DQNConfig(
    lr=2.3e-3,
    lr_decay=False,
    double=False,
    target_period=128,
    tau=1.0,
    epsilon_final=0.04,
    epsilon_steps=8_000,
)
TRAIN = TrainConfig(
    total_steps=STEPS, collect_steps=256, updates=128, learning_starts=1_000, batch_size=64, capacity=100_000,
    eval_every=STEPS, eval_episodes=1, save_every=10 * STEPS,
)  # fmt: skip
ZOO = {
    "learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1_000,
    "gamma": 0.99, "target_update_interval": 10, "train_freq": 256, "gradient_steps": 128,
    "exploration_fraction": 0.16, "exploration_final_eps": 0.04, "policy_kwargs": {"net_arch": [256, 256]},
}  # fmt: skip


def ours(folder, seed: int) -> float:
    device.setup("cpu", threads=1)
    envs, evals = (registry.make_envs("CartPole-v1", 1) for _ in range(2))
    spec = registry.spec(envs)
    agent, replay = DQN(spec, ALGO, TRAIN.total_updates, CPU, seed), Replay(TRAIN.capacity, spec, CPU)
    folder.mkdir()
    logger = RunLogger(folder, STEPS)
    start = time.process_time()
    train(agent, Collector(envs, CPU), replay, evals, logger, TRAIN, seed)
    seconds = time.process_time() - start
    logger.close("finished")
    return STEPS / seconds


def theirs(seed: int) -> float:
    torch.set_flush_denormal(False)  # as it is without us
    model = sb3.DQN("MlpPolicy", "CartPole-v1", device="cpu", seed=seed, **ZOO)
    start = time.process_time()
    model.learn(STEPS)
    return STEPS / (time.process_time() - start)


def test_steps_per_second(tmp_path):
    pairs = [(ours(tmp_path / str(k), k), theirs(k)) for k in range(ROUNDS)]
    a, b = report("CartPole-v1 steps per second of DQN", *zip(*pairs, strict=True))
    assert a > 2 * b
