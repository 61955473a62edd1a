"""SAC: the density of squashed actions, targets and losses by hand, who moves in which step."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from common import checkpoint
from common.distributions import squashed_gaussian
from common.types import UsageError
from hw3_q_learning.ddpg import DDPG, DDPGConfig
from hw3_q_learning.sac import SAC, SACConfig, Temperature, soft_value
from tests.helpers import CPU
from tests.hw3.batches import CONTINUOUS, DISCRETE, noise, self_loop

SMALL = SACConfig(hidden=(16,), lr=1e-3)


def agent(seed: int = 0, **options) -> SAC:
    return SAC(CONTINUOUS, dataclasses.replace(SMALL, **options), 1000, CPU, seed)


def snapshot(*nets: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for net in nets for p in net.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (1.5, -1.0), (-0.5, 0.7)])
def test_density_of_a_squashed_action_integrates_to_one(mean, log_std):
    """And its mean is the mean of tanh(u) under the Gaussian, both by the midpoint rule in float64."""
    n = 400_000
    action = (torch.arange(n, dtype=torch.float64) + 0.5) * (2 / n) - 1
    mean, log_std = (torch.tensor(x, dtype=torch.float64) for x in (mean, log_std))
    epsilon = (action.atanh() - mean) / log_std.exp()
    again, log_prob = squashed_gaussian(mean.expand(n, 1), log_std.expand(n, 1), epsilon[:, None])
    torch.testing.assert_close(again.squeeze(1), action)
    density = log_prob.exp()
    assert (density.sum() * 2 / n).item() == pytest.approx(1, abs=1e-4)
    z = (torch.arange(n, dtype=torch.float64) + 0.5) * (16 / n) - 8
    gaussian = (-z.square() / 2).exp() / math.sqrt(2 * math.pi) * 16 / n
    expected = ((mean + log_std.exp() * z).tanh() * gaussian).sum()
    assert ((density * action).sum() * 2 / n).item() == pytest.approx(expected.item(), abs=1e-4)


def test_density_stays_finite_where_tanh_is_one():
    """At u = 40 tanh(u) = 1 in float32; log(1 - tanh^2) is 2 log 2 - 80."""
    action, log_prob = squashed_gaussian(*(torch.full((1, 1), x) for x in (40.0, 0.0, 0.0)))
    assert action.item() == 1
    assert log_prob.item() == pytest.approx(80 - 2 * math.log(2) - 0.5 * math.log(2 * math.pi), rel=1e-6)


def test_density_of_several_dimensions_is_the_product(generator):
    mean, log_std, epsilon = torch.randn(3, 5, 2, generator=generator)
    _, joint = squashed_gaussian(mean, log_std, epsilon)
    each = [squashed_gaussian(*(x[:, k : k + 1] for x in (mean, log_std, epsilon)))[1] for k in (0, 1)]
    torch.testing.assert_close(joint, each[0] + each[1])


def test_soft_value_by_hand():
    """The least of (3, 5) and (4, 2) less 0.5 times log pi = (-2, 1)."""
    v = soft_value(torch.tensor([[3.0, 5.0], [4.0, 2.0]]), torch.tensor([-2.0, 1.0]), 0.5)
    assert v.tolist() == [4, 1.5]


def test_target_holds_no_entropy_where_the_episode_ended():
    made, batch = agent(), noise(CONTINUOUS)
    y = made.target(batch._replace(terminated=torch.ones(32, dtype=torch.bool)))
    torch.testing.assert_close(y, batch.reward)
    assert not made.target(batch).requires_grad


def test_without_temperature_the_target_is_ddpgs():
    """alpha -> 0 and sigma -> 0: y = r + gamma Q'(s', mu(s'))."""
    made = agent(alpha=1e-30, learn_alpha=False, critics=1)
    last = made.actor[-1]
    last.weight.data[2:], last.bias.data[2:] = 0.0, -1e9  # log sigma, cut at -10
    other = DDPG(CONTINUOUS, DDPGConfig(hidden=(16,)), 1000, CPU, seed=1)
    other.critic_target.load_state_dict(made.critic_target.state_dict())
    other.actor_target[0].load_state_dict(made.actor[0].state_dict())
    other.actor_target[2].weight.data.copy_(last.weight[:2])
    other.actor_target[2].bias.data.copy_(last.bias[:2])
    batch = noise(CONTINUOUS)
    torch.testing.assert_close(made.target(batch), other.target(batch), atol=1e-3, rtol=0)


def test_value_of_the_state_that_never_ends():
    """alpha = 0: 1 / (1 - gamma) = 5 whatever the action; with alpha the entropies are added, gamma alpha H
    each, H = 2 log 2 of the uniform policy being the highest: between them."""
    options = {"lr": 0.01, "tau": 0.1, "learn_alpha": False}
    plain, soft = agent(gamma=0.8, alpha=1e-9, **options), agent(gamma=0.8, alpha=0.5, **options)
    batch = self_loop(CONTINUOUS)
    for _ in range(250):
        plain.update(batch)
        soft.update(batch)
    q = [made.q(made.critic, batch.obs, batch.action).mean().item() for made in (plain, soft)]
    assert q[0] == pytest.approx(5, rel=0.03)
    highest = 5 + 0.8 / 0.2 * 0.5 * 2 * math.log(2)
    assert q[1] == pytest.approx(highest, rel=0.1)


def test_each_step_moves_only_its_own_networks():
    made, batch = agent(), noise(CONTINUOUS)
    actor, critic = snapshot(made.actor, made.temperature), snapshot(made.critic)
    made.regress(made.q(made.critic, batch.obs, batch.action), made.target(batch), 1.0)
    assert same(actor, snapshot(made.actor, made.temperature))
    assert not same(critic, snapshot(made.critic))
    critic = snapshot(made.critic)
    made.actor_step(batch.obs)
    assert same(critic, snapshot(made.critic))
    assert not same(actor[:-1], snapshot(made.actor))
    assert all(p.grad is None for p in made.critic_target.parameters())


def test_actor_gradient_is_that_of_its_loss(generator):
    """d/dtheta of mean(alpha log pi - min Q) by finite differences, along one direction."""
    made, obs = agent(learn_alpha=False, alpha=0.3), torch.randn(64, 3, generator=generator)
    for net in (made.actor, made.critic, made.temperature):
        net.double()
    obs = obs.double()
    fixed = torch.randn(64, 2, generator=generator, dtype=torch.float64)
    made._noise = lambda like: fixed
    made.actor_optimizer = torch.optim.SGD(made.actor_parameters, lr=0.0)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in made.actor_parameters]

    def loss(step: float) -> float:
        for p, d in zip(made.actor_parameters, direction, strict=True):
            p.data.add_(d, alpha=step)
        value = made.actor_step(obs)["loss/policy"].item()
        for p, d in zip(made.actor_parameters, direction, strict=True):
            p.data.sub_(d, alpha=step)
        return value

    difference = (loss(1e-6) - loss(-1e-6)) / 2e-6
    loss(0.0)
    slope = sum((p.grad * d).sum() for p, d in zip(made.actor_parameters, direction, strict=True))
    assert slope.item() == pytest.approx(difference, rel=1e-4)


@pytest.mark.parametrize(("target", "sign"), [(-100.0, -1), (100.0, 1)])
def test_temperature_drives_the_entropy_to_its_target(target, sign):
    """Too random a policy lowers alpha, too certain a one raises it."""
    made = agent(target_entropy=target)
    made.actor_step(noise(CONTINUOUS).obs)
    assert math.copysign(1, made.temperature.log_alpha.item()) == sign


def test_a_fixed_temperature_stays():
    made = agent(alpha=0.2, learn_alpha=False)
    made.update(noise(CONTINUOUS))
    assert made.temperature().item() == pytest.approx(0.2)


def test_targets_follow_by_tau():
    made = agent(tau=0.25)
    before = snapshot(made.critic_target)
    made.update(noise(CONTINUOUS))
    mixed = [0.75 * a + 0.25 * b for a, b in zip(before, snapshot(made.critic), strict=True)]
    for a, b in zip(mixed, snapshot(made.critic_target), strict=True):
        torch.testing.assert_close(a, b)


def test_evaluated_actions_are_modes_and_explored_ones_differ():
    made, obs = agent(), np.zeros((4, 3), np.float32)
    assert (made.act(obs) == made.act(obs)).all()
    explored = made.explore(obs, 0)
    assert explored.shape == (4, 2)
    assert len(np.unique(explored)) == 8
    assert (abs(explored) <= 1).all()


def test_a_saved_agent_goes_on_as_it_was(tmp_path):
    """Temperature, both optimisers and the generator included."""
    made, other = agent(seed=0), agent(seed=1)
    for k in range(3):
        made.update(noise(CONTINUOUS, seed=k))
    checkpoint.save(tmp_path, 0, agent=checkpoint.state_of(made))
    checkpoint.restore(other, checkpoint.load_latest(tmp_path)["agent"])
    for k in range(3):
        for each in (made, other):
            each.update(noise(CONTINUOUS, seed=10 + k))
    nets = [snapshot(each.actor, each.critic, each.critic_target, each.temperature) for each in (made, other)]
    assert same(*nets)


def test_bad_settings_are_named():
    for options, sentence in (
        ({"gamma": 2.0}, "gamma must lie in"),
        ({"critics": 0}, "critics must be at least 1"),
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"target_entropy": math.nan}, "target_entropy must be finite"),
    ):
        with pytest.raises(UsageError, match=sentence):
            SACConfig(**options)
    with pytest.raises(UsageError, match="env_id must have continuous actions for SAC"):
        SAC(DISCRETE, SMALL, 1, CPU, seed=0)
    assert Temperature(0.5, True)().item() == pytest.approx(0.5)
