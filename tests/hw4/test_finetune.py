"""Fine-tuning: whose turn it is, what is imitated, and what the policy gradient is given."""

import dataclasses

import numpy as np
import pytest
import torch

from common import checkpoint
from common.envs.model_tasks import ModelTask, never
from common.replay import Batch
from common.types import EnvSpec, UsageError
from hw2_policy_gradient.ppo import PPO, PPOConfig
from hw4_model_based.dynamics import DynamicsConfig
from hw4_model_based.finetune import Finetune, FinetuneConfig, clone, rollout_of

SPEC = EnvSpec(num_envs=2, obs_dim=3, action_dim=1, discrete=False)
TASK = ModelTask(lambda s, a, n: n[..., 0], never)
TINY = FinetuneConfig(
    horizon=2, samples=4, elites=2, iterations=1, clone_epochs=20,
    model=DynamicsConfig(members=2, elites=2, hidden=(4,), max_epochs=1),
)  # fmt: skip


def learner():
    return PPO(SPEC, PPOConfig(hidden=(16,), epochs=1, batch_size=4), 5, torch.device("cpu"), 0)


def steps(size, generator):
    """`size` transitions of a stream [T 2], the oldest first."""
    obs = torch.randn(size // 2 + 1, 2, 3, generator=generator)
    action, reward = 2 * torch.rand(size, 1, generator=generator) - 1, torch.randn(size, generator=generator)
    return Batch(obs[:-1].flatten(0, 1), action, reward, obs[1:].flatten(0, 1), torch.zeros(size).bool())


def test_planner_first_then_the_learner(generator):
    """Two trials are planned; whoever acts is asked anew after each update."""
    agent, data = Finetune(SPEC, TASK, TINY, learner(), 0), steps(40, generator)
    turns = []
    for size in (8, 16, 24, 32, 40):
        found = agent.update(Batch(*(x[:size] for x in data[:5])))
        acts = (agent.explore is agent, agent.act is agent)
        turns.append((*acts, "loss/clone" in found, "loss/policy" in found))
    planned, cloned, tuned = (True, True, False, False), (False, False, True, False), (False,) * 3 + (True,)
    assert turns == [planned, planned, cloned, tuned, tuned]


def test_without_trials_it_is_the_policy_gradient_from_scratch(generator):
    """The first update learns nothing from random actions; afterwards PPO's own numbers, bit for bit."""
    agent, alone = Finetune(SPEC, TASK, dataclasses.replace(TINY, trials=0), learner(), 0), learner()
    data = steps(16, generator)
    assert agent.update(Batch(*(x[:8] for x in data[:5]))) == {}
    trial = Batch(*(x[8:] for x in data[:5]))
    assert agent.update(data) == alone.update(rollout_of(trial, 2))
    obs = np.ones((2, 3), np.float32)
    assert np.array_equal(agent.act(obs), alone.act(obs))


def test_what_was_planned_is_imitated_and_random_actions_are_not(generator, monkeypatch):
    seen = []
    monkeypatch.setattr("hw4_model_based.finetune.clone", lambda policy, *args: seen.append(args) or 0.0)
    agent, data = Finetune(SPEC, TASK, TINY, learner(), 0), steps(24, generator)
    for size in (8, 16, 24):
        agent.update(Batch(*(x[:size] for x in data[:5])))
    ((obs, action, *_),) = seen
    assert torch.equal(obs, data.obs[8:])
    assert torch.equal(action, data.action[8:])


def test_a_policy_that_normalises_is_cloned_by_the_scale_of_the_data(generator):
    """Observations of 50 +- 10: as they are, a network of 16 units does not find a = (x - 50) / 10."""
    config = PPOConfig(hidden=(16,), normalize_obs=True)
    policy = PPO(SPEC, config, 5, torch.device("cpu"), 0).policy
    obs = 50 + 10 * torch.randn(200, 3, generator=generator)
    action = (obs[:, :1] - 50) / 10
    error = clone(policy, obs, action, dataclasses.replace(TINY, clone_epochs=60), generator)
    torch.testing.assert_close(policy.normalize.mean.float(), obs.mean(0))
    assert error < 0.05
    with torch.no_grad():
        found = policy(policy.normalize(obs)).mean
    assert (found - action).square().mean() < 0.05


def test_cloning_finds_the_planners_action_and_leaves_the_deviation(generator):
    obs = torch.randn(400, 3, generator=generator)
    action = (0.5 * obs[:, :1]).tanh()
    agent = learner()
    before = agent.policy.log_std.clone()
    error = clone(agent.policy, obs, action, dataclasses.replace(TINY, clone_lr=1e-2), generator)
    assert error < 0.01 * action.var()
    assert torch.equal(agent.policy.log_std, before)
    assert np.abs(agent.act(obs.numpy()) - action.numpy()).mean() < 0.05


def test_a_trial_becomes_the_rollout_that_was_collected(generator):
    """Environment 1 terminates at its second step, environment 0 is cut at its third, both at the end."""
    obs, action = torch.randn(5, 2, 3, generator=generator), torch.randn(5, 2, 1, generator=generator)
    next_obs, terminated = torch.cat([obs[1:], obs[:1]]), torch.zeros(5, 2).bool()
    next_obs[2, 0] += 1  # true successors, where the next row opens another episode
    next_obs[1, 1] += 1
    terminated[1, 1] = True
    reward = torch.arange(10.0).view(5, 2)
    columns = (obs, action, reward, next_obs, terminated)
    found = rollout_of(Batch(*(x.flatten(0, 1) for x in columns)), 2)
    for x, y in zip(found, columns, strict=False):
        assert torch.equal(x, y)
    assert found.truncated.nonzero().tolist() == [[2, 0], [4, 0], [4, 1]]


def test_the_learner_is_saved_with_the_agent(generator):
    agent, data = Finetune(SPEC, TASK, TINY, learner(), 0), steps(32, generator)
    for size in (8, 16, 24):
        agent.update(Batch(*(x[:size] for x in data[:5])))
    other = Finetune(SPEC, TASK, TINY, learner(), 0)
    checkpoint.restore(other, checkpoint.state_of(agent))
    assert agent.update(data) == other.update(data)
    obs = np.ones((2, 3), np.float32)
    assert np.array_equal(agent.explore(obs, 0), other.explore(obs, 0))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"trials": -1}, "trials must be at least 0, got -1"),
        ({"clone_epochs": 0}, "clone_epochs must be at least 1"),
        ({"clone_lr": float("nan")}, "clone_lr must be positive"),
    ],
)
def test_bad_settings_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        FinetuneConfig(**settings)
