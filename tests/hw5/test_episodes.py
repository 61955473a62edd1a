"""Episodes on a line, values that are known, Gaussians beside those of torch."""

import math

import torch
from torch.distributions import Normal, kl_divergence

from hw5_planning_control.episodes import (
    Arena,
    Baseline,
    Gaussian,
    advantages,
    collect,
    play,
    reward_to_go,
)
from tests.hw5.problems import gaussian, generator, normal


def torch_normal(pi: Gaussian) -> Normal:
    return Normal(pi.mean, pi.log_std.exp().expand_as(pi.mean))


def test_gaussians_are_those_of_torch():
    pi, other, action = gaussian(0), gaussian(2), normal(2, 5, 3, seed=4)
    torch.testing.assert_close(pi.kl(other), kl_divergence(torch_normal(pi), torch_normal(other)).sum(-1))
    constant = 1.5 * math.log(2 * math.pi)
    expected = torch_normal(pi).log_prob(action).sum(-1) + constant
    torch.testing.assert_close(pi.log_prob(action), expected)


def test_advantages_by_hand():
    """lambda = 1: what was earned less V. lambda = 0: r + V' - V. Both less their mean, deviation one."""
    reward = torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[100.0, 0.0], [200.0, 0.0]]])  # [k=2, T=2, M=2]
    value = torch.tensor([[[0.5, 1.0], [1.0, 0.0]], [[50.0, 100.0], [100.0, 0.0]]])
    for lam, expected in ((1.0, [[2.5, -1.0], [1.0, 0.0]]), (0.0, [[1.5, -1.0], [1.0, 0.0]])):
        expected = torch.tensor(expected)
        expected = (expected - expected.mean()) / expected.std()
        torch.testing.assert_close(advantages(reward, value, lam), torch.stack([expected, expected]))


def test_baseline_of_a_quadratic_value_is_exact():
    """V = (1 - o + t)^2, another one for the second policy."""
    obs = normal(2, 6, 20, 1)
    t = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
    value = (1 - obs[..., 0] + t).square() * torch.tensor([1.0, 3.0])[:, None, None]
    reward = value - torch.nn.functional.pad(value[:, 1:], (0, 0, 0, 1))
    torch.testing.assert_close(reward_to_go(reward), value)
    baseline = Baseline()
    baseline.fit(obs, reward)
    torch.testing.assert_close(baseline(obs).double(), value, rtol=0, atol=1e-3)


def line(steps: int = 3) -> Arena:
    """x' = x + a, reward -x^2 - t; where the policies learn sits at their starts."""
    return Arena(
        lambda count, random: torch.linspace(-1, 1, count)[:, None],
        lambda x, a, t: (x + a, -x[..., 0].square() - t),
        lambda x, t: torch.cat([x, torch.full_like(x, float(t))], -1),
        steps,
    )


def test_each_policy_plays_from_its_own_starts():
    """The first moves by 1, the second stays."""

    def two(obs: torch.Tensor) -> Gaussian:
        mean = torch.tensor([1.0, 0.0])[:, None, None].expand(2, obs.shape[1], 1)
        return Gaussian(mean, torch.full((2, 1, 1), -15.0))

    x = torch.tensor([[[0.0], [2.0]], [[1.0], [-1.0]]])
    samples = collect(line(), two, x, generator())
    torch.testing.assert_close(samples.obs[0, :, 0, 0], torch.tensor([0.0, 1.0, 2.0]), rtol=0, atol=1e-4)
    torch.testing.assert_close(samples.obs[1, :, 1, 0], torch.full((3,), -1.0), rtol=0, atol=1e-4)
    torch.testing.assert_close(samples.reward[0, :, 0], torch.tensor([0.0, -2.0, -6.0]), rtol=0, atol=1e-3)
    assert samples.obs[0, :, 0, 1].tolist() == [0, 1, 2]


def test_one_policy_is_played_without_its_noise():
    """By 1/2 in every step, from 0 and from -1."""
    half = lambda obs: Gaussian(torch.full((1, 2, 1), 0.5), torch.zeros(1, 1, 1))  # noqa: E731
    total = play(line(), half, torch.tensor([[0.0], [-1.0]]))
    assert total.tolist() == [-(0.25 + 1) - 3, -(1 + 0.25) - 3]
