"""Divide and conquer: every step against what it must be, then all of them on a task of one step."""

import math

import pytest
import torch

from common.types import UsageError
from hw5_planning_control.divide_and_conquer import (
    DivideAndConquer,
    DivideConfig,
    Policies,
    distil,
    divide,
    for_all,
    local_loss,
)
from hw5_planning_control.episodes import Arena, Gaussian, collect
from tests.hw5.problems import gaussian, generator, normal


def policies(k: int, obs_dim: int = 2, action_dim: int = 1, **settings) -> Policies:
    return Policies(k, obs_dim, action_dim, DivideConfig(**settings), generator())


def test_slope_of_the_tie_is_the_distance_in_units_of_the_center():
    """d KL / d mu_i = (mu_i - mu) / sigma^2, and no slope where both are equal."""
    pi, center = gaussian(0), gaussian(2, k=1)
    mean = pi.mean.clone().requires_grad_()
    (slope,) = torch.autograd.grad(Gaussian(mean, pi.log_std).kl(center).sum(), mean)
    torch.testing.assert_close(slope, (mean - center.mean).detach() * (-2 * center.log_std).exp())
    equal = Gaussian(mean, pi.log_std.clone().requires_grad_())
    for slope in torch.autograd.grad(equal.kl(pi).sum(), equal):
        torch.testing.assert_close(slope, torch.zeros_like(slope))


def test_without_advantage_the_tie_is_left():
    """alpha KL(pi_i || pi), not the other way round; the mean over the samples, the sum over i."""
    pi, center, action = gaussian(0), gaussian(2, k=1), normal(2, 5, 3, seed=4)
    loss = local_loss(pi, gaussian(6), center, action, torch.zeros(2, 5).double(), DivideConfig(alpha=0.3))
    torch.testing.assert_close(loss, 0.3 * pi.kl(center).mean(1).sum())


def test_one_region_without_a_tie_is_the_policy_gradient():
    """At the policy that drew the actions: the gradient of -E A log pi, by all parameters."""
    policy, obs = policies(1), normal(1, 50, 2).float()
    action, advantage = normal(1, 50, 1, seed=1).float(), normal(1, 50, seed=2).float()
    old = Gaussian(*(x.detach().clone() for x in policy(obs)))
    parameters = [*policy.parameters()]
    loss = local_loss(policy(obs), old, old, action, advantage, DivideConfig(regions=1, alpha=0.0))
    plain = -(policy(obs).log_prob(action) * advantage).mean()
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), torch.autograd.grad(plain, parameters))


def test_regions_do_not_disturb_each_other():
    """The loss of two is the sum of each alone; the second's parameters get nothing from the first's."""
    pi, old, center = (gaussian(seed) for seed in (0, 2, 4))
    action, advantage, config = normal(2, 5, 3, seed=6), normal(2, 5, seed=7), DivideConfig(alpha=0.5)

    def alone(i: int) -> torch.Tensor:
        parts = (Gaussian(p.mean[i : i + 1], p.log_std[i : i + 1]) for p in (pi, old, center))
        return local_loss(*parts, action[i : i + 1], advantage[i : i + 1], config)

    both = local_loss(pi, old, center, action, advantage, config)
    torch.testing.assert_close(both, alone(0) + alone(1))


@pytest.mark.parametrize(("advantage", "flat"), [(1.0, True), (-1.0, False)])
def test_a_ratio_beyond_the_clip_has_no_slope_where_it_gains(advantage, flat):
    """The action lies at the new mean and two deviations from the old one: rho = e^2."""
    mean = torch.full((1, 1, 1), 2.0, requires_grad=True)
    old, action = Gaussian(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)), torch.full((1, 1, 1), 2.5)
    config = DivideConfig(alpha=0.0)
    loss = local_loss(Gaussian(mean, old.log_std), old, old, action, torch.full((1, 1), advantage), config)
    (slope,) = torch.autograd.grad(loss, mean)
    assert (slope.item() == 0) == flat


def test_the_center_of_two_gaussians_is_their_mean_and_as_wide_as_both():
    """argmin_m,v sum_i KL(N(mu_i, s^2) || N(m, v)): m the mean of mu_i, v = s^2 + their variance."""
    local, obs = policies(2), torch.ones(2, 8, 2)
    with torch.no_grad():
        for layer in local.net.layers:
            layer.weight.zero_()
        local.net.layers[-1].bias.copy_(torch.tensor([-0.1, 0.5])[:, None, None])
    center = policies(1, distil_steps=200, distil_lr=3e-2)
    left = distil(center, local, obs, DivideConfig(distil_steps=200, distil_lr=3e-2), generator())
    pi = for_all(center, obs)
    torch.testing.assert_close(pi.mean, torch.full((2, 8, 1), 0.2), rtol=0, atol=2e-3)
    variance = 0.5**2 + 0.3**2
    assert pi.log_std.exp().square().item() == pytest.approx(variance, rel=0.01)
    assert left == pytest.approx(0.5 * math.log(variance / 0.5**2), rel=0.02)


def test_starts_are_divided_by_one_entry():
    x = torch.tensor([[0.0, 4.0], [1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
    assert divide(x, 2, 1)[..., 1].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert torch.equal(divide(x, 2, 0).flatten(0, 1), x)


def test_local_policies_become_the_center():
    local, center = policies(3), policies(1)
    center.scale.fill_(2.0)
    local.become(center)
    pi, obs = local(normal(1, 4, 2).float()), normal(1, 4, 2).float()
    torch.testing.assert_close(pi.mean, center(obs).mean.expand(3, -1, -1))
    with torch.no_grad():
        local.log_std[0] = 1.0  # their own memory, not the center's
    assert center.log_std.item() == pytest.approx(math.log(0.5))
    local.become(center, keep="log_std")
    assert local.log_std[0].item() == 1.0


@pytest.mark.parametrize("k", [1, 4])
def test_a_choice_that_depends_on_the_start_is_learned(k):
    """One step, reward -(a - sign x)^2: the best constant action has -1, random ones -1.25."""
    arena = Arena(
        lambda count, random: torch.rand(count, 1, generator=random) * 2 - 1,
        lambda x, a, t: (x, -(a - x.sign())[..., 0].square()),
        lambda x, t: x,
        1,
    )
    center = policies(1, obs_dim=1, std=0.5)
    config = DivideConfig(regions=k, rounds=20, alpha=0.0, lr=1e-2, distil_lr=1e-2)
    learner = DivideAndConquer(center, config, generator(2), generator(1))
    for _ in range(config.rounds):
        learner.round(arena)
    x = torch.linspace(-1, 1, 101)[:, None]
    with torch.no_grad():
        error = (center(x[None]).mean[0] - x.sign()).square().mean()
    assert error < 0.3


@pytest.mark.parametrize("reset", [False, True])
def test_local_policies_go_on_from_the_center_only_if_they_are_reset(reset, monkeypatch):
    """One batch sets the units, the second teaches, and the third is collected after steps 2 and 3."""
    obs, means = torch.zeros(1, 1, 1), []

    def record(arena, local, starts, g):
        means.append(local(obs).mean.flatten().tolist())
        return collect(arena, local, starts, g)

    monkeypatch.setattr("hw5_planning_control.divide_and_conquer.collect", record)
    arena = Arena(
        lambda count, random: torch.linspace(-1, 1, count)[:, None],
        lambda x, a, t: (x, -(a - x.sign())[..., 0].square()),
        lambda x, t: x,
        1,
    )
    config = DivideConfig(regions=2, rounds=3, distil_every=2, reset=reset)
    learner = DivideAndConquer(policies(1, obs_dim=1), config, generator(), generator(1))
    for _ in range(config.rounds):
        learner.round(arena)
    assert means[0][0] == means[0][1]
    assert (means[2][0] == means[2][1]) == reset


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"regions": 0}, "regions must be at least 1"),
        ({"episodes": 10}, "episodes must be at least 2 for each of 4 regions, got 10"),
        ({"episodes": 4}, "episodes must be at least 2 for each of 4 regions, got 4"),
        ({"alpha": -1.0}, "alpha must be at least 0"),
        ({"lam": 1.5}, "lam must lie in"),
        ({"clip": 0.0}, "clip must be positive"),
        ({"std": math.nan}, "std must be positive"),
    ],
)
def test_bad_settings_are_named(change, sentence):
    with pytest.raises(UsageError, match=sentence):
        DivideConfig(**change)


def test_an_axis_that_the_state_has_not_is_refused():
    with pytest.raises(UsageError, match="axis must lie in"):
        divide(torch.zeros(4, 2), 2, 2)
