import math

import numpy as np
import pytest
import torch

from common.envs.registry import make_envs, spec
from common.rollout import Collector
from common.types import EnvSpec, UsageError
from hw2_policy_gradient.recurrent import Actor, RecurrentPPO, RecurrentPPOConfig
from hw2_policy_gradient.returns import gae, standardize
from tests.helpers import CPU, random_rollout

SPEC = EnvSpec(num_envs=4, obs_dim=3, action_dim=2, discrete=True)
CONTINUOUS = EnvSpec(num_envs=4, obs_dim=3, action_dim=2, discrete=False)
ENV = "course/CartPoleNoVelocity-v0"


def agent(spec: EnvSpec = SPEC, **config) -> RecurrentPPO:
    plain = {"normalize_reward": False, "units": 8, "hidden": (8,)}
    return RecurrentPPO(spec, RecurrentPPOConfig(**plain | config), total_updates=10, device=CPU, seed=0)


def remembering(learner: RecurrentPPO, seed: int = 1) -> torch.Tensor:
    """Lets a rollout begin with something in the memory; h_0."""
    g = torch.Generator().manual_seed(seed)
    learner.explore.start = torch.randn(4, 8, generator=g)
    return learner.explore.start


def test_states_recomputed_in_training_are_those_of_acting():
    """Through borders of episodes and rollouts, updates, evaluations and a checkpoint's new episodes.

    A step of acting has other parameters before an update than after it: only h_0 is carried over."""
    envs = make_envs(ENV, 3)
    learner, collector = agent(spec(envs), lr=1e-2, epochs=2), Collector(envs, CPU)
    cell = learner.policy.memory.cell
    for k in range(6):
        if k % 3 == 0:
            collector.reset(seed=k, step=0)
        acting, recomputed = [], []
        hook = cell.register_forward_hook(lambda module, inputs, h, acting=acting: acting.append(h))
        rollout, _ = collector.collect(learner.explore, 20)
        hook.remove()
        learner.act.begin(np.ones(2, bool))  # an evaluation, which has a memory of its own
        learner.act(np.ones((2, 2), np.float32))
        hook = learner.policy.register_forward_hook(
            lambda module, inputs, h, recomputed=recomputed: recomputed.append(h.detach())
        )
        learner.update(rollout)
        hook.remove()
        assert rollout.ended[:-1].any()
        torch.testing.assert_close(recomputed[0], torch.stack(acting))
        assert not torch.allclose(recomputed[-1], recomputed[0])  # the parameters did move


def test_probabilities_recomputed_in_training_are_those_of_acting():
    """Before the first gradient step every ratio is 1: the surrogate is the mean of A, which is zero."""
    envs = make_envs(ENV, 3)
    learner, collector = agent(spec(envs), epochs=1, batch_envs=3, lr=1e-9), Collector(envs, CPU)
    collector.reset(seed=0, step=0)
    for _ in range(3):
        metrics = learner.update(collector.collect(learner.explore, 30)[0])
        assert metrics["loss/policy"] == pytest.approx(0, abs=1e-6)
        assert metrics["policy/kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("spec", [SPEC, CONTINUOUS], ids=["discrete", "continuous"])
def test_first_gradient_is_the_policy_gradient_through_time(spec):
    """sum_t grad log pi(a_t | o_1..o_t) A_t, every h computed alone by a loop over one environment."""
    options = {"max_grad_norm": math.inf, "value_weight": 0.0, "normalize_obs": False}
    learner, rollout = agent(spec, epochs=1, batch_envs=4, **options), random_rollout(spec, 12)
    start, seen = remembering(learner), []
    advantage = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    cell, log_prob = learner.policy.memory.cell, torch.zeros(12, 4)
    for n in range(4):
        h = start[n : n + 1]
        for t in range(12):
            h = cell(rollout.obs[t, n : n + 1], h)
            log_prob[t, n] = learner.policy.head(h).log_prob(rollout.action[t, n : n + 1])
            h = torch.zeros_like(h) if rollout.ended[t, n] else h
    parameters = [*learner.policy.parameters()]
    expected = torch.autograd.grad(-(log_prob * standardize(advantage)).mean(), parameters)
    learner.step = lambda *batch: seen.append(batch) or torch.zeros(3)
    learner.update(rollout)
    start, obs, first, action, log_prob_old, _, target = seen[0]
    order = [rollout.obs[0, :, 0].tolist().index(x) for x in obs[0, :, 0].tolist()]
    torch.testing.assert_close(log_prob_old, log_prob[:, order].detach())
    RecurrentPPO.step(learner, start, obs, first, action, log_prob_old, advantage[:, order], target)
    for p, g in zip(parameters, expected, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-6)


def test_value_of_a_successor_remembers_its_own_episode():
    """At a time limit V(o_1..o_{t+1}) goes on from h_t, whatever episode the next row shows."""
    learner, rollout = agent(), random_rollout(SPEC, 15)
    start = remembering(learner)
    first = torch.cat((torch.zeros(1, 4, dtype=torch.bool), rollout.ended[:-1]))
    with torch.no_grad():
        states = learner.policy(rollout.obs, start, first)
        value, next_value = learner.value(states).squeeze(-1), torch.zeros(15, 4)
        for t in range(15):
            h = learner.policy.memory.cell(rollout.next_obs[t], states[t])
            next_value[t] = learner.value(h).squeeze(-1)
    goes_on = ~rollout.ended[:-1]
    torch.testing.assert_close(next_value[:-1][goes_on], value[1:][goes_on])
    assert (next_value[:-1][~goes_on] - value[1:][~goes_on]).abs().min() > 1e-4
    ends = (rollout.terminated, rollout.ended)
    expected = gae(rollout.reward, value, next_value, *ends, 0.99, 0.95)
    with torch.no_grad():
        advantage, target = learner.advantage(rollout, states)
    torch.testing.assert_close(advantage, expected)
    torch.testing.assert_close(target, expected + value)


def test_every_epoch_sees_every_environment_once_with_its_own_start():
    learner, rollout = agent(epochs=3, batch_envs=3), random_rollout(SPEC, 6)
    start, seen = remembering(learner), []
    learner.step = lambda *batch: seen.append(batch) or torch.zeros(3)
    learner.update(rollout)
    assert [len(batch[0]) for batch in seen] == [3, 1] * 3
    orders = []
    for a, b in zip(seen[::2], seen[1::2], strict=True):
        starts, obs = torch.cat((a[0], b[0])), torch.cat((a[1], b[1]), 1)
        orders.append([start[:, 0].tolist().index(x) for x in starts[:, 0].tolist()])
        assert torch.equal(obs, rollout.obs[:, orders[-1]])
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_an_actor_forgets_the_environments_that_begin_and_no_other():
    learner = agent()
    actor, obs = Actor(learner.policy), np.ones((3, 3), np.float32)
    actor.begin(np.ones(3, bool))
    actor(obs)
    before = actor.memory
    actor.begin(np.array([False, True, False]))
    assert torch.equal(actor.memory[[0, 2]], before[[0, 2]])
    assert not actor.memory[1].any()
    actor.begin(np.ones(5, bool))  # as an evaluation with more environments does
    assert actor.memory.shape == (5, 8)
    assert actor(np.ones((5, 3), np.float32)).shape == (5,)


def test_observation_statistics_wait_until_the_update_is_over():
    learner, rollout = agent(), random_rollout(SPEC, 6)
    remembering(learner)
    seen = []
    learner.policy.memory.register_forward_hook(lambda module, inputs, h: seen.append(inputs[0]))
    learner.update(rollout)
    torch.testing.assert_close(seen[0], rollout.obs)  # mean 0, deviation 1 until now
    assert learner.policy.normalize.count == 24
    mean = learner.policy.normalize.mean.float()
    torch.testing.assert_close(mean, rollout.obs.mean((0, 1)))


def test_settings_decide_rates_and_scales():
    rollout = random_rollout(SPEC, 8)
    big = rollout._replace(reward=1000 * rollout.reward)
    losses, rates = [], []
    for scaled in (False, True):
        learner = agent(normalize_reward=scaled, lr=1e-3, lr_decay=scaled, clip_decay=scaled)
        for _ in range(2):
            remembering(learner)
            losses.append(learner.update(big)["loss/value"])
        rates.append((learner.optimizer.param_groups[0]["lr"], learner.clip(1)))
    assert losses[0] > 1e4 > 100 > losses[2]
    assert rates == [pytest.approx((1e-3, 0.2)), pytest.approx((0.9e-3, 0.18))]


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 1.01}, {"lam": -0.5}, {"lr": math.inf}, {"clip": 0.0}, {"epochs": 0}, {"batch_envs": 0},
        {"value_weight": -1.0}, {"entropy_weight": math.nan}, {"max_grad_norm": 0.0}, {"units": 0},
        {"hidden": (64, -1)}, {"log_std": math.inf},
    ],
)  # fmt: skip
def test_bad_settings_are_named(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        RecurrentPPOConfig(**change)
