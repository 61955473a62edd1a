"""The latent space: each term of the objective against its definition, and a plan in a known one."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from common.replay import Batch
from common.types import EnvSpec, UsageError
from hw4_model_based.latent_dynamics import (
    LatentConfig,
    LatentModel,
    LatentModelConfig,
    LatentMPC,
    reconstruction_loss,
    relative_error,
    unroll,
)
from hw4_model_based.sequences import Sequences

TINY = LatentModelConfig(latent=3, hidden=(16,), dynamics_hidden=(16,), unroll=2, first_updates=60, updates=5)
SPEC = EnvSpec(num_envs=2, obs_dim=4, action_dim=1, discrete=False)


def sequences(generator, steps=3, size=5):
    obs = torch.rand(steps + 1, size, 4, generator=generator)
    action = torch.randn(steps, size, 1, generator=generator)
    return Sequences(obs, action, torch.randn(steps, size, generator=generator))


def data(generator, rows=200):
    """Two environments: what is seen turns by the action, the reward is the first pixel."""
    angle = torch.cumsum(torch.randn(rows + 1, 2, generator=generator) / 2, 0)
    seen = torch.stack([angle.cos(), angle.sin(), -angle.cos(), -angle.sin()], -1) / 2 + 0.5
    action = angle.diff(dim=0)[..., None]
    fields = (seen[:-1], action, seen[:-1, :, 0], seen[1:], torch.zeros(rows, 2, dtype=torch.bool))
    return Batch(*(x.flatten(0, 1) for x in fields))


def test_pixels_are_bernoulli(generator):
    logits, obs = torch.randn(2, 3, 7, generator=generator), torch.rand(2, 3, 7, generator=generator)
    expected = -(obs * logits.sigmoid().log() + (1 - obs) * (-logits).sigmoid().log()).sum(-1)
    torch.testing.assert_close(reconstruction_loss(logits, obs), expected)


def test_errors_are_counted_in_units_of_the_variance():
    target = torch.tensor([[0.0, 1.0], [2.0, 5.0]])  # variances 1 and 4
    assert relative_error(target + torch.tensor([1.0, 2.0]), target).item() == pytest.approx(1)
    assert relative_error(target.mean(0).expand(2, 2), target).item() == pytest.approx(1)
    assert relative_error(target, target) == 0


def test_nothing_is_won_by_a_small_latent_space(generator):
    """The gradient with respect to the scale of the space is zero."""
    prediction, target = torch.randn(2, 20, 3, generator=generator, dtype=torch.float64)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    relative_error(scale * prediction, scale * target).backward()
    assert abs(scale.grad.item()) < 1e-7


def test_states_are_unrolled_one_after_the_other(generator):
    s, actions = torch.randn(5, 2, generator=generator), torch.randn(3, 5, 2, generator=generator)
    found = unroll(lambda s, a: 2 * s + a, s, actions)
    assert found.shape == (4, 5, 2)
    torch.testing.assert_close(found[3], 8 * s + 4 * actions[0] + 2 * actions[1] + actions[2])


def test_loss_is_its_definition(generator):
    """Term by term in loops over steps and sequences."""
    model = LatentModel(4, 1, TINY, generator)
    model.reward_mean.fill_(0.3)
    model.reward_std.fill_(2.0)
    x = sequences(generator)
    total, parts = model.loss(x)
    pixels, reward, errors, s = 0.0, 0.0, [], model.encoder(x.obs[0])
    for k in range(4):
        p = model.decoder(s).sigmoid()
        pixels -= (x.obs[k] * p.log() + (1 - x.obs[k]) * (1 - p).log()).sum() / 20
        if k == 3:
            break
        guess = 0.3 + 2 * model.reward_net(s)[:, 0]
        reward += (guess - x.reward[k]).square().sum() / 15 / 4
        s = s + model.change(torch.cat([s, x.action[k]], 1))
        target = model.encoder(x.obs[k + 1])
        spread = (target - target.mean(0)).square().sum()
        errors.append((s - target).square().sum() / spread)
    expected = torch.stack([pixels, sum(errors) / 3, reward])
    torch.testing.assert_close(parts, expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(total, expected @ torch.tensor([1.0, 300.0, 50.0]), rtol=1e-4, atol=1e-4)


def test_every_parameter_learns(generator):
    model = LatentModel(4, 1, TINY, generator)
    model.loss(sequences(generator))[0].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


class Known(nn.Module):
    """The latent state is twice what is seen, an action moves it by one, and it should come to one."""

    def encode(self, obs):
        return 2 * obs

    def step(self, s, action):
        return s + action

    def reward(self, s):
        return -(s - 1).square().sum(-1)


@pytest.mark.parametrize(("search", "horizon"), [("random", 1), ("cem", 1), ("cem", 2), ("mppi", 2)])
def test_plans_are_made_in_the_latent_space(search, horizon):
    """With a single step to plan, what it comes to has to count."""
    config = LatentConfig(
        search=search, horizon=horizon, samples=300, iterations=6, temperature=0.01, model=TINY
    )
    agent = LatentMPC(SPEC._replace(obs_dim=1), config, 0)
    agent.model = Known()
    agent.begin(np.ones(2, bool))
    obs = np.array([[0.25], [0.8]], np.float32)  # s = 0.5 and 1.6
    tolerance = 0.2 if search == "random" else 0.06
    np.testing.assert_allclose(agent.act(obs), [[0.5], [-0.6]], atol=tolerance)


def test_a_fit_learns_to_see_to_predict_and_to_judge(generator):
    """Seeds 0 to 5: .08 to .32 and .02 to .11, where 1 is to guess the mean."""
    batch, settings = data(generator), dataclasses.replace(TINY, lr=5e-3, first_updates=300)
    agent = LatentMPC(SPEC, LatentConfig(model=settings), 0)
    found = agent.update(batch)
    assert found["loss/dynamics"] < 0.5
    assert found["loss/reward"] < 0.25


def test_rewards_are_counted_in_units_of_the_data(generator):
    config = LatentConfig(model=dataclasses.replace(TINY, first_updates=1))
    batch, agent = data(generator), LatentMPC(SPEC, config, 0)
    reward = 5 + 20 * batch.reward
    agent.update(batch._replace(reward=reward))
    assert agent.model.reward_mean == reward.mean()
    assert agent.model.reward_std == reward.std()


def test_the_first_fit_is_the_longest_and_the_seed_decides(generator):
    batch = data(generator)
    one, two, other = (LatentMPC(SPEC, LatentConfig(model=TINY), seed) for seed in (0, 0, 1))
    assert one.update(batch) == two.update(batch) != other.update(batch)
    (state, *_) = one.optimizer.state.values()
    assert state["step"] == 60
    one.update(batch)
    assert state["step"] == 65


def test_a_reward_that_never_changes_is_no_division_by_zero(generator):
    batch = data(generator)
    agent = LatentMPC(SPEC, LatentConfig(model=TINY), 0)
    found = agent.update(batch._replace(reward=torch.ones_like(batch.reward)))
    assert all(np.isfinite(value) for value in found.values())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"latent": 0}, "latent must be at least 1, got 0"),
        ({"unroll": 0}, "unroll must be at least 1, got 0"),
        ({"hidden": (0,)}, "hidden must lie in"),
        ({"dynamics_hidden": (8, 0)}, "dynamics_hidden must lie in"),
        ({"hidden": ()}, "hidden must name at least one layer"),
        ({"dynamics_weight": float("nan")}, "dynamics_weight must be positive, got nan"),
    ],
)
def test_bad_settings_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        LatentModelConfig(**settings)


def test_discrete_actions_are_refused():
    with pytest.raises(UsageError, match="env_id must have continuous actions"):
        LatentMPC(SPEC._replace(discrete=True), LatentConfig(), 0)
