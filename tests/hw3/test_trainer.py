"""The off-policy loop with a stand-in agent: who runs how often, what is stored, what a time limit means."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from common.envs.registry import make_envs, spec
from common.logger import RunLogger, read_rows
from common.prioritized_replay import PrioritizedReplay
from common.replay import Replay
from common.rollout import Collector
from common.schedules import Linear
from common.types import UsageError
from hw3_q_learning.dqn import DQN, DQNConfig
from hw3_q_learning.run import PRESETS
from hw3_q_learning.trainer import TrainConfig, train
from tests.helpers import CPU, Counter, vector


@dataclass(frozen=True)
class Notes:  # a setting to the checkpoint
    calls: list


class Stand:
    """Notes in which order it is called, and what it is given."""

    def __init__(self, loss: float = 0.0, error: float = 1.0):
        self.notes, self.loss, self.error = Notes([]), loss, error

    def act(self, obs):
        return np.zeros(len(obs), np.int64)

    def explore(self, obs, step):
        self.notes.calls.append(("explore", step))
        return self.act(obs)

    def update(self, batch):
        self.notes.calls.append(("update", batch))
        error = torch.full(batch.reward.shape, self.error)
        return {"loss/q": torch.tensor(self.loss), "value/td_error": error}

    @property
    def order(self) -> str:
        return "".join(name[0] for name, _ in self.notes.calls)


CONFIG = TrainConfig(
    total_steps=24, learning_starts=8, batch_size=4, capacity=100, log_every=8, eval_every=12,
    eval_episodes=1, save_every=16,
)  # fmt: skip


def go(folder, agent, config, envs=None, replay=None):
    envs = envs or vector(Counter, config.num_envs)
    if replay is None:  # an empty one counts as false
        replay = Replay(config.capacity, spec(envs), CPU, config.n_step, 0.9)
    logger = RunLogger(folder, config.total_steps)
    try:
        return train(agent, Collector(envs, CPU), replay, vector(Counter, 1), logger, config, seed=0)
    finally:
        logger.close("x")


def test_one_update_per_step_after_the_warmup(tmp_path):
    """Eight steps of random actions; the update of the eighth is the first."""
    agent = Stand()
    assert go(tmp_path, agent, CONFIG) == "finished"
    assert agent.order == "u" + 16 * "eu"
    assert [step for name, step in agent.notes.calls if name == "explore"] == list(range(8, 24))
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if row["split"] == "train"] == [8, 16, 24]
    assert [row["step"] for row in rows if row["split"] == "eval"] == [12, 24]
    assert [path.name[:12] for path in sorted((tmp_path / "checkpoint").iterdir())] == [
        "000000000016", "000000000024",
    ]  # fmt: skip


@pytest.mark.parametrize(("collect_steps", "updates"), [(4, 1), (1, 4), (6, 3)])
def test_rates_of_collecting_and_updating_are_settings(collect_steps, updates, tmp_path):
    agent = Stand()
    config = replace(CONFIG, collect_steps=collect_steps, updates=updates)
    go(tmp_path, agent, config)
    late = agent.order.lstrip("u")
    assert late == (len(late) // (collect_steps + updates)) * (collect_steps * "e" + updates * "u")
    assert agent.order.count("u") == config.total_updates


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("collect_steps", [1, 4, 7])
@pytest.mark.parametrize("learning_starts", [4, 9, 24])
def test_number_of_updates_is_known_beforehand(num_envs, collect_steps, learning_starts, tmp_path):
    """Learning rates run down over it."""
    agent = Stand()
    config = replace(
        CONFIG, num_envs=num_envs, collect_steps=collect_steps, learning_starts=learning_starts, updates=2
    )
    go(tmp_path, agent, config)
    assert agent.order.count("u") == config.total_updates


def rates(preset: str) -> tuple[float, float]:
    """Gradient steps per environment step, target updates per gradient step."""
    config = PRESETS[preset]
    return config.train.updates / config.train.round_size, config.algo.tau / config.algo.target_period


def test_the_three_processes_are_three_settings_of_one_loop():
    """Online: all at one speed, no memory. DQN: targets slow. Fitted Q: 3 inside 2 inside 1."""
    online, deep, fitted = (PRESETS[f"{name}-cartpole"] for name in ("online-q", "dqn", "fitted-q"))
    assert {type(preset.algo) for preset in (online, deep, fitted)} == {DQNConfig}
    assert online.train.capacity == online.train.batch_size == online.train.collect_steps == 1
    assert rates("online-q-cartpole") == (1, 1)
    assert deep.train.capacity >= 10_000
    assert rates("dqn-cartpole")[1] < 0.01
    assert fitted.train.updates > fitted.algo.target_period > 1
    assert fitted.train.collect_steps >= 1000


def test_online_learning_sees_each_transition_once_and_at_once(tmp_path):
    agent = Stand()
    config = replace(CONFIG, learning_starts=1, batch_size=1, capacity=1, save_every=100)
    go(tmp_path, agent, config)
    seen = [batch.obs[0, 0].item() for name, batch in agent.notes.calls if name == "update"]
    assert seen == 8 * [0.0, 1.0, 2.0]


def test_random_actions_of_the_warmup_are_uniform(tmp_path):
    envs = vector(Counter, 1)
    replay = Replay(300, spec(envs), CPU)
    config = replace(CONFIG, total_steps=300, learning_starts=300, eval_every=300, save_every=300)
    go(tmp_path, Stand(), config, envs, replay)
    assert replay.memory.action[:300].float().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / 300**0.5)


def test_errors_come_back_as_priorities(tmp_path):
    """All that were drawn have error 3; what was not keeps the highest so far."""
    envs = vector(Counter, 1)
    replay = PrioritizedReplay(100, spec(envs), CPU, 1.0, Linear(0.4, 1.0, 24))
    go(tmp_path, Stand(error=3.0), CONFIG, envs, replay)
    priorities = replay.tree.leaves[: len(replay)]
    assert set(np.round(priorities, 6)) <= {1.0, 3.01}
    assert replay.highest == pytest.approx(3.01)


def test_metrics_are_means_and_carry_their_namespaces(tmp_path):
    go(tmp_path, Stand(loss=2.0, error=3.0), CONFIG)
    row = read_rows(tmp_path / "metrics.jsonl")[-2]
    assert (row["loss/q"], row["value/td_error"], row["rollout/return_mean"]) == (2, 3, 3)
    assert row["speed/steps_per_s"] > 0


def test_nan_loss_stops_before_anything_is_saved(tmp_path):
    with pytest.raises(FloatingPointError, match="not finite at step 8: loss/q"):
        go(tmp_path, Stand(loss=np.nan), CONFIG)
    assert not (tmp_path / "checkpoint").exists()


def test_nan_observation_stops(tmp_path):
    with pytest.raises(FloatingPointError, match="observation that is not finite"):
        go(tmp_path, Stand(), CONFIG, vector(Counter, 1, nan_obs_at=2))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"total_steps": 0}, "total_steps must be at least 1, got 0"),
        ({"capacity": 0}, "capacity must be at least 1, got 0"),
        ({"batch_size": 9}, "batch_size must be at most learning_starts, 8, got 9"),
        ({"capacity": 3}, "batch_size must be at most capacity, 3, got 4"),
        ({"total_steps": 7}, "total_steps must be at least learning_starts, 8, got 7"),
        ({"collect_steps": 10**6}, "total_steps must be at least round_size, 1000000, got"),
        ({"n_step": 0}, "n_step must be at least 1, got 0"),
        ({"n_step": 5, "num_envs": 2}, "learning_starts must be at least n_step num_envs = 10, got 8"),
        ({"priority": -1.0}, r"priority must lie in \[0, 2\]"),
        ({"priority_weight": 2.0}, r"priority_weight must lie in \[0, 1\]"),
        ({"num_envs": 2**16}, r"num_envs must lie in \[1, 65535\]"),
    ],
)
def test_bad_settings_are_named(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        replace(CONFIG, **options)


@pytest.mark.parametrize("n_step", [1, 3])
def test_time_limit_is_not_termination(n_step, tmp_path):
    """Reward 1 for ever, limit 8: V = 1 / (1 - gamma) = 5, with transitions of several steps as well.
    A limit taken for an end would give at most (1 - gamma^8) / (1 - gamma) = 4.2 and 3.2 on average."""
    envs = make_envs("course/ConstantReward-v0", 1)
    config = replace(
        CONFIG, total_steps=400, num_envs=1, collect_steps=4, updates=4, n_step=n_step, eval_every=400,
        save_every=400, log_every=400, capacity=400,
    )  # fmt: skip
    algo = DQNConfig(gamma=0.8, lr=0.03, lr_decay=False, hidden=(), tau=0.3)
    agent = DQN(spec(envs), algo, 400, CPU, seed=0)
    replay = Replay(400, spec(envs), CPU, n_step, 0.8)
    logger = RunLogger(tmp_path, 400)
    train(agent, Collector(envs, CPU), replay, make_envs("course/ConstantReward-v0", 1), logger, config, 0)
    logger.close("x")
    assert agent.values(torch.ones(1, 1)).detach().numpy() == pytest.approx(5, rel=0.03)
