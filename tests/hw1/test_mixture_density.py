"""Mixtures by hand, by their limit of one component, and by frequency."""

import math

import numpy as np
import pytest
import torch

from common.types import EnvSpec, UsageError
from hw1_imitation.behavior_cloning import gaussian_nll
from hw1_imitation.mixture_density import MixtureConfig, MixtureDensity, mixture_nll
from tests.helpers import CPU

SPEC = EnvSpec(1, 3, 2, False)


def test_one_component_is_the_gaussian():
    mean, action, log_std = torch.randn(7, 1, 2), torch.randn(7, 2), torch.tensor([0.3, -1.2])
    mixture = mixture_nll(torch.zeros(7, 1), mean, log_std.expand(7, 1, 2), action)
    torch.testing.assert_close(mixture, gaussian_nll(mean[:, 0], log_std, action))


def test_two_components_by_hand():
    """3/4 N(1; 1, 1) + 1/4 N(1; -1, 1) = (3/4 + 1/4 e^-2) / sqrt(2 pi)"""
    log_w = torch.tensor([[0.75, 0.25]]).log()
    nll = mixture_nll(log_w, torch.tensor([[[1.0], [-1.0]]]), torch.zeros(1, 2, 1), torch.ones(1, 1))
    assert nll.item() == pytest.approx(-math.log((0.75 + 0.25 * math.exp(-2)) / math.sqrt(2 * math.pi)))


def test_far_actions_do_not_overflow():
    nll = mixture_nll(torch.zeros(1, 1), torch.zeros(1, 1, 1), torch.full((1, 1, 1), -5.0), torch.ones(1, 1))
    assert math.isfinite(nll.item())


def test_density_of_the_network_integrates_to_one():
    agent = MixtureDensity(SPEC, MixtureConfig(hidden=(8,)), CPU, 0)
    axis = torch.linspace(-12, 12, 481)
    grid = torch.cartesian_prod(axis, axis)
    parts = agent.policy(torch.ones(1, 3))
    log_p = torch.stack([-mixture_nll(*parts, a[None]) for a in grid[::997]])  # one by one as they are ...
    log_w, mean, log_std = (x.double() for x in parts)
    z = (grid.double()[:, None] - mean) * (-log_std).exp()
    density = (log_w + (-(0.5 * z.square() + log_std + 0.5 * math.log(2 * math.pi))).sum(-1)).exp().sum(-1)
    torch.testing.assert_close(log_p.double(), density[::997].log(), rtol=1e-4, atol=1e-4)  # ... and at once
    assert density.sum().item() * 0.05**2 == pytest.approx(1, abs=1e-3)


def test_actions_come_from_both_components_as_often_as_their_weights_say():
    """w = 1/4 and 3/4 at -0.5 and 0.5, sigma = 0.1: 4,000 draws, four standard errors."""
    agent = MixtureDensity(SPEC, MixtureConfig(hidden=(), components=2), CPU, 0)
    layer = agent.policy.net[0]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(
            torch.tensor([math.log(0.25), math.log(0.75), -0.5, -0.5, 0.5, 0.5, *[math.log(0.1)] * 4])
        )
    action = agent.act(np.zeros((4_000, 3), np.float32))
    low = action[:, 0] < 0
    assert abs(low.mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 4_000)
    assert np.array_equal(low, action[:, 1] < 0)  # one component per action, not per entry
    assert abs(action[low].mean() + 0.5) < 4 * 0.1 / math.sqrt(2 * low.sum())
    assert action[~low].std(0) == pytest.approx([0.1, 0.1], rel=0.06)


def test_bad_settings_are_refused():
    with pytest.raises(UsageError, match="components must be at least 1, got 0"):
        MixtureConfig(components=0)
    with pytest.raises(UsageError, match="continuous actions for a mixture"):
        MixtureDensity(EnvSpec(1, 3, 2, True), MixtureConfig(), CPU, 0)
