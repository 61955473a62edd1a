"""DDPG and TD3: the actor's gradient as a chain rule, the target's noise, who moves when."""

import dataclasses

import numpy as np
import pytest
import torch

from common.types import UsageError
from hw3_q_learning.ddpg import DDPG, DDPGConfig, TD3Config, smoothed
from tests.helpers import CPU
from tests.hw3.batches import CONTINUOUS, DISCRETE, noise, self_loop
from tests.hw3.test_sac import same, snapshot

SMALL = DDPGConfig(hidden=(16,))
TD3 = TD3Config(hidden=(16,))


def agent(config: DDPGConfig = SMALL, **options) -> DDPG:
    return DDPG(CONTINUOUS, dataclasses.replace(config, **options), 1000, CPU, seed=0)


@pytest.mark.parametrize("config", [SMALL, TD3])
def test_actor_gradient_is_the_chain_rule_by_hand(config):
    """-mean_s sum_k dmu_k/dtheta(s) dQ_1/da_k(s, mu(s)), state by state and output by output."""
    made, obs = agent(config), noise(CONTINUOUS, 6).obs
    by_hand = [torch.zeros_like(p) for p in made.actor_parameters]
    for s in obs[:, None]:
        action = made.actor(s).detach().requires_grad_()
        (dq_da,) = torch.autograd.grad(made.q(made.critic, s, action)[0].sum(), action)
        for k in range(2):
            dmu_k = torch.autograd.grad(made.actor(s)[0, k], made.actor_parameters)
            for total, part in zip(by_hand, dmu_k, strict=True):
                total -= part * dq_da[0, k] / 6
    made.actor_step(obs)
    for p, wanted in zip(made.actor_parameters, by_hand, strict=True):
        torch.testing.assert_close(p.grad, wanted, atol=1e-7, rtol=1e-4)


def test_smoothing_by_hand():
    """Noise is cut at 0.5, the action at 1."""
    action = smoothed(torch.tensor([[0.0, 0.0, 0.9]]), torch.tensor([[0.2, -3.0, 0.4]]), 0.5)
    torch.testing.assert_close(action, torch.tensor([[0.2, -0.5, 1.0]]))


def test_target_by_hand():
    """One critic, no noise: r + gamma Q'(s', mu'(s')); two: the less of both."""
    for config in (SMALL, dataclasses.replace(TD3, smoothing=0.0)):
        made, batch = agent(config), noise(CONTINUOUS)
        with torch.no_grad():
            q = made.q(made.critic_target, batch.next_obs, made.actor_target(batch.next_obs))
        least = q.min(0).values
        expected = batch.reward + 0.99 * least * ~batch.terminated
        torch.testing.assert_close(made.target(batch), expected)
        assert len(q) == config.critics


def test_a_normalised_critic_is_bounded_wherever_it_is_asked():
    """Units of variance 1 have length sqrt(H), ReLU shortens them: |Q| <= |w| sqrt(H) + |b|. Plain critics
    grow with the distance."""
    batch, excess = noise(CONTINUOUS), {}
    for layer_norm in (True, False):
        made = agent(TD3, layer_norm=layer_norm)
        weight, bias = made.critic.layers[-1].weight, made.critic.layers[-1].bias  # [E, H, 1], [E, 1, 1]
        bound = weight.norm(dim=1) * weight.shape[1] ** 0.5 + bias.abs().squeeze(1)  # [E, 1]
        q = made.q(made.critic, batch.obs, 1e6 * batch.action)
        excess[layer_norm] = (q.abs() - bound).max().item()
    assert excess[True] <= 1e-5 < 1e3 < excess[False]


def test_target_noise_is_td3s_only():
    batch = noise(CONTINUOUS)
    plain, smooth = agent(SMALL), agent(TD3)
    assert torch.equal(plain.target(batch), plain.target(batch))
    assert not torch.equal(smooth.target(batch), smooth.target(batch))


@pytest.mark.parametrize("config", [SMALL, TD3])
def test_value_of_the_state_that_never_ends(config):
    made, batch = agent(config, gamma=0.8, lr=0.01, tau=0.4), self_loop(CONTINUOUS)
    for _ in range(200):
        made.update(batch)
    q = made.q(made.critic, batch.obs, batch.action).detach()
    assert q.mean().item() == pytest.approx(5, rel=0.03)


def test_actor_and_targets_move_every_second_step_in_td3():
    made = agent(TD3)
    for k in range(4):
        moving = snapshot(made.actor, made.actor_target, made.critic_target)
        critic = snapshot(made.critic)
        made.update(noise(CONTINUOUS, seed=k))
        after = snapshot(made.actor, made.actor_target, made.critic_target)
        assert same(moving, after) is (k % 2 == 0)
        assert not same(critic, snapshot(made.critic))


def test_targets_follow_by_tau():
    made = agent(tau=0.25)
    before = snapshot(made.actor_target, made.critic_target)
    made.update(noise(CONTINUOUS))
    online = snapshot(made.actor, made.critic)
    for old, new, now in zip(before, online, snapshot(made.actor_target, made.critic_target), strict=True):
        torch.testing.assert_close(now, 0.75 * old + 0.25 * new)


def test_the_critic_is_not_moved_by_the_actors_step():
    made = agent(TD3)
    before = snapshot(made.critic)
    made.actor_step(noise(CONTINUOUS).obs)
    assert same(before, snapshot(made.critic))
    assert all(p.grad is None for p in made.critic_parameters)


def test_exploration_adds_noise_within_the_limits():
    made, obs = agent(noise=0.3), np.zeros((4000, 3), np.float32)
    difference = made.explore(obs, 0) - made.act(obs)
    assert difference.std() == pytest.approx(0.3, rel=0.05)
    assert abs(agent(noise=50.0).explore(obs, 0)).max() == 1


def test_bad_input_is_named():
    with pytest.raises(UsageError, match="noise must be at least 0"):
        DDPGConfig(noise=-1.0)
    with pytest.raises(UsageError, match="actor_period must be at least 1"):
        TD3Config(actor_period=0)
    with pytest.raises(UsageError, match="continuous actions for DDPG and TD3"):
        DDPG(DISCRETE, SMALL, 1, CPU, seed=0)
