import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from common.envs.registry import make_envs
from common.rollout import Collector
from tests.helpers import CPU, Counter, Memory, vector


def zeros(obs, step):
    return np.zeros(len(obs), np.int64)


def test_next_obs_is_the_true_successor_where_an_episode_ends():
    collector = Collector(vector(Counter), CPU)
    collector.reset(seed=0, step=0)
    rollout, metrics = collector.collect(zeros, 5)
    assert not rollout.truncated.any()
    rollout = rollout.cut()
    assert rollout.obs[:, 0, 0].tolist() == [0, 1, 2, 0, 1]
    assert rollout.next_obs[:, 0, 0].tolist() == [1, 2, 3, 1, 2]
    assert rollout.terminated[:, 0].tolist() == [False, False, True, False, False]
    assert rollout.truncated[:, 0].tolist() == [False, False, False, False, True]
    assert metrics == {"rollout/return_mean": 3.0}


def test_a_cut_row_that_terminated_is_no_truncation():
    collector = Collector(vector(Counter), CPU)
    collector.reset(seed=0, step=0)
    rollout, _ = collector.collect(zeros, 3)
    assert rollout.terminated[-1].all()
    assert not rollout.cut().truncated.any()


def test_episodes_run_on_from_one_rollout_to_the_next():
    collector = Collector(vector(Counter), CPU)
    collector.reset(seed=0, step=100)
    first, _ = collector.collect(zeros, 2)
    second, metrics = collector.collect(zeros, 2)
    assert not first.ended.any()
    assert second.obs[:, 0, 0].tolist() == [2, 0]
    assert metrics == {"rollout/return_mean": 3.0}
    assert collector.step == 108


def test_a_time_limit_is_a_truncation_with_its_successor():
    collector = Collector(make_envs("course/ConstantReward-v0", 3), CPU)
    collector.reset(seed=0, step=0)
    rollout, _ = collector.collect(zeros, 17)
    assert not rollout.terminated.any()
    assert rollout.truncated[:, 0].nonzero().flatten().tolist() == [7, 15]


def test_shapes_and_types_of_continuous_actions_unclipped():
    collector = Collector(make_envs("HalfCheetah-v5", 2), CPU)
    collector.reset(seed=0, step=0)
    rollout, _ = collector.collect(lambda obs, step: np.full((2, 6), 1.5, np.float32), 3)
    assert rollout.obs.shape == rollout.next_obs.shape == (3, 2, 17)
    assert rollout.obs.dtype == rollout.reward.dtype == torch.float32
    assert (rollout.action == 1.5).all()  # the environment got 1, the learner keeps what the policy drew
    assert rollout.ended.dtype == torch.bool
    assert torch.equal(rollout.obs[1:], rollout.next_obs[:-1])


def test_same_seed_same_rollout():
    rollouts = []
    for _ in range(2):
        collector = Collector(make_envs("LunarLander-v3", 2), CPU)
        collector.reset(seed=5, step=0)
        rollouts.append(collector.collect(zeros, 200)[0])
    assert all(torch.equal(a, b) for a, b in zip(*rollouts, strict=True))
    assert not torch.equal(rollouts[0].obs[0, 0], rollouts[0].obs[0, 1])


def test_next_step_autoreset_is_refused():
    envs = SyncVectorEnv([Counter], autoreset_mode=AutoresetMode.NEXT_STEP)
    with pytest.raises(ValueError, match="SAME_STEP"):
        Collector(envs, CPU)


@pytest.mark.parametrize("bad", ["reward", "obs"])
def test_nan_from_the_environment_stops_the_rollout(bad):
    collector = Collector(vector(Counter, **{f"nan_{bad}_at": 2}), CPU)
    collector.reset(seed=0, step=0)
    with pytest.raises(FloatingPointError, match="not finite"):
        collector.collect(zeros, 3)


def test_nan_in_the_last_observation_of_an_episode_stops_the_rollout():
    collector = Collector(vector(Counter, nan_obs_at=3), CPU)
    collector.reset(seed=0, step=0)
    with pytest.raises(FloatingPointError, match="observation that is not finite"):
        collector.collect(zeros, 3)


def test_terminal_value_is_that_of_the_environment_itself():
    """Against a plain loop over one environment, the way the tutorials write it."""
    collector = Collector(make_envs("Acrobot-v1", 1), CPU)
    collector.reset(seed=3, step=0)
    rollout, _ = collector.collect(zeros, 600)
    env = gym.make("Acrobot-v1")
    obs, _ = env.reset(seed=3)
    for t in range(600):
        np.testing.assert_array_equal(rollout.obs[t, 0], obs)
        obs, reward, terminated, truncated, _ = env.step(0)
        np.testing.assert_array_equal(rollout.next_obs[t, 0], obs)
        assert (reward, terminated, truncated) == (
            rollout.reward[t, 0],
            rollout.terminated[t, 0],
            rollout.truncated[t, 0],
        )
        if terminated or truncated:
            obs, _ = env.reset()


def test_a_policy_that_remembers_is_told_where_episodes_begin():
    """Counter shows the age of its episode: what is remembered must agree with it, also after a reset."""
    collector, memory, seen = Collector(vector(Counter), CPU), Memory(), []
    for length in (2, 5):
        collector.reset(seed=0, step=0)
        for _ in range(2):
            seen.append(collector.collect(memory, length)[0].obs[..., 0])
    assert torch.cat(seen).tolist() == memory.notes
    assert [age for age, _ in memory.notes] == [0, 1, 2, 0, *[0, 1, 2] * 3, 0]
