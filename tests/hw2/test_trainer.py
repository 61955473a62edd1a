"""The loop with a stand-in agent, and the infinite horizon: who takes a time limit for an end learns a
wrong value."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from common.envs.registry import make_envs, spec
from common.logger import RunLogger, read_rows
from common.rollout import Collector
from common.types import UsageError
from hw2_policy_gradient.actor_critic import ActorCritic, ActorCriticConfig
from hw2_policy_gradient.ppo import PPO, PPOConfig
from hw2_policy_gradient.reinforce import Reinforce, ReinforceConfig
from hw2_policy_gradient.trainer import TrainConfig, train
from tests.helpers import CPU, Counter, vector


@dataclass(frozen=True)
class Notes:  # a setting to the checkpoint
    rollouts: list


class Stand:
    """Notes what it is given."""

    def __init__(self, loss: float = 0.0):
        self.updates, self.loss = 0, loss
        self.notes = Notes([])

    def act(self, obs):
        return np.zeros(len(obs), np.int64)

    def explore(self, obs, step):
        return self.act(obs)

    def update(self, rollout):
        self.updates += 1
        self.notes.rollouts.append(rollout)
        return {"loss/policy": self.loss, "value/updates": self.updates}


def go(folder, agent, config, envs=None, step=0):
    collector = Collector(envs or vector(Counter), CPU)
    logger = RunLogger(folder, config.total_steps, step)
    try:
        return train(agent, collector, vector(Counter, 2), logger, config, seed=0, step=step)
    finally:
        logger.close("x")


CONFIG = TrainConfig(
    total_steps=100, num_envs=2, rollout_steps=4, eval_every=20, eval_episodes=2, save_every=32
)


def test_rounds_up_to_whole_rollouts_and_ends_with_an_evaluation(tmp_path):
    agent = Stand()
    assert go(tmp_path, agent, CONFIG) == "finished"
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if row["split"] == "eval"] == [24, 40, 64, 80, 104]
    assert agent.updates == CONFIG.updates == 13


def test_a_row_of_metrics_is_the_mean_of_short_rollouts(tmp_path):
    """Of LOG_EVERY = 256 steps, or fewer before an evaluation or a checkpoint."""
    go(tmp_path, Stand(), replace(CONFIG, total_steps=640, eval_every=600, save_every=640))
    rows = [row for row in read_rows(tmp_path / "metrics.jsonl") if row["split"] == "train"]
    assert [row["step"] for row in rows] == [256, 512, 600, 640]
    assert [row["value/updates"] for row in rows] == [16.5, 48.5, 70, 78]
    assert [row["rollout/return_mean"] for row in rows] == [3] * 4


def test_a_long_rollout_has_a_row_of_its_own(tmp_path):
    go(tmp_path, Stand(), replace(CONFIG, total_steps=3000, rollout_steps=150, save_every=10**6))
    rows = [row for row in read_rows(tmp_path / "metrics.jsonl") if row["split"] == "train"]
    assert [row["step"] for row in rows] == [300 * (k + 1) for k in range(10)]


def test_episodes_start_anew_after_a_checkpoint_only(tmp_path):
    agent = Stand()
    go(tmp_path, agent, CONFIG)
    cut = [k for k, rollout in enumerate(agent.notes.rollouts) if (rollout.next_obs[-1] < 3).all()
           and rollout.truncated[-1].all()]  # fmt: skip
    anew = [k for k, rollout in enumerate(agent.notes.rollouts) if not rollout.obs[0].any()]
    assert [8 * (k + 1) for k in cut] == [32, 64, 96, 104]
    assert {0, 4, 8, 12} <= set(anew)
    assert [path.name[:12] for path in sorted((tmp_path / "checkpoint").iterdir())] == [
        "000000000096", "000000000104",
    ]  # fmt: skip


def test_nan_loss_stops_before_anything_is_saved(tmp_path):
    with pytest.raises(FloatingPointError, match="not finite at step 24: loss/policy"):
        go(tmp_path, Stand(loss=np.nan), CONFIG)
    assert not (tmp_path / "checkpoint").exists()


def test_nan_reward_stops(tmp_path):
    with pytest.raises(FloatingPointError, match="reward that is not finite"):
        go(tmp_path, Stand(), CONFIG, vector(Counter, nan_reward_at=2))


@pytest.mark.parametrize("name", vars(TrainConfig()))
def test_settings_below_one_are_named(name):
    with pytest.raises(UsageError, match=f"{name} must be at least 1, got 0"):
        TrainConfig(**{name: 0})


AGENTS = {
    "reinforce": (Reinforce, ReinforceConfig(gamma=0.9)),
    "actor-critic": (ActorCritic, ActorCriticConfig(gamma=0.9)),
    "ppo": (PPO, PPOConfig(gamma=0.9, lr=3e-3, lr_decay=False)),
}


def learned_value(name: str, limit_is_an_end: bool) -> float:
    """V of the one state of ConstantReward after 60 updates."""
    envs = make_envs("course/ConstantReward-v0", 4)
    kind, config = AGENTS[name]
    agent = kind(spec(envs), config, 60, CPU, seed=0)
    collector = Collector(envs, CPU)
    collector.reset(seed=0, step=0)
    for _ in range(60):
        rollout, _ = collector.collect(agent.explore, 32)
        if limit_is_an_end:
            rollout = rollout._replace(
                terminated=rollout.ended, truncated=torch.zeros_like(rollout.truncated)
            )
        agent.update(rollout)
    with torch.no_grad():
        return agent.value(torch.ones(1, 1)).item()


@pytest.mark.parametrize("name", AGENTS)
def test_time_limit_is_not_termination(name):
    """Reward 1 for ever, limit 8: V = 1 / (1 - gamma) = 10. Measured: 9.6 to 10.0 in five seeds."""
    assert learned_value(name, limit_is_an_end=False) == pytest.approx(10, rel=0.08)


@pytest.mark.parametrize("name", AGENTS)
def test_a_time_limit_taken_for_an_end_would_be_noticed(name):
    """Then V is at most (1 - gamma^8) / (1 - gamma) = 5.7: the test above does fail without the handling."""
    assert learned_value(name, limit_is_an_end=True) < 5.7
