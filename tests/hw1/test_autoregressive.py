"""A distribution over all combinations of bins, by enumeration; one with a correlation, by fitting it."""

import numpy as np
import pytest
import torch

from common.types import EnvSpec, UsageError
from hw1_imitation.autoregressive import Autoregressive, AutoregressiveConfig, bin_of, center_of
from tests.helpers import CPU

SPEC = EnvSpec(1, 3, 2, False)


def test_bins_by_hand():
    """Four bins of [-1, 1]: borders -0.5, 0, 0.5; the last one holds 1 as well."""
    action = torch.tensor([-1.0, -0.51, -0.5, 0.0, 0.49, 1.0])
    assert bin_of(action, 4).tolist() == [0, 0, 1, 2, 2, 3]
    assert center_of(torch.arange(4), 4).tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert torch.equal(bin_of(center_of(torch.arange(21), 21), 21), torch.arange(21))


def test_probabilities_of_all_combinations_sum_to_one():
    spec = EnvSpec(1, 3, 3, False)
    policy = Autoregressive(spec, AutoregressiveConfig(hidden=(16,), bins=5), CPU, 0).policy
    every = torch.cartesian_prod(*[torch.arange(5)] * 3)  # [125, 3]
    log_p = policy.log_prob(torch.randn(1, 3).expand(125, -1), every)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert log_p.std() > 1e-3


def test_later_entries_see_earlier_ones_and_never_the_reverse():
    policy = Autoregressive(SPEC, AutoregressiveConfig(hidden=(16,), bins=5), CPU, 0).policy
    obs, before = torch.zeros(2, 3), torch.tensor([[0], [4]])
    assert not torch.allclose(*policy.conditional(1, obs, before).log_p)
    assert policy.nets[0][0].in_features == 3


def test_recovers_a_correlated_distribution():
    """Actions (0.8, 0.8) and (-0.8, -0.8), equally often. Entries drawn apart would mix them."""
    agent = Autoregressive(SPEC, AutoregressiveConfig(hidden=(32,), bins=5, lr=1e-2), CPU, 0)
    g = torch.Generator().manual_seed(0)
    for _ in range(200):
        action = 0.8 * (2.0 * torch.randint(2, (64, 1), generator=g) - 1).expand(-1, 2)
        agent.update(torch.zeros(64, 3), action)
    drawn = agent.act(np.zeros((1_000, 3), np.float32))
    assert (drawn[:, 0] == drawn[:, 1]).mean() > 0.97
    assert 0.4 < (drawn[:, 0] > 0).mean() < 0.6
    assert (np.abs(drawn).round(4) == np.float32(0.8)).mean() > 0.99


def test_bad_settings_are_refused():
    with pytest.raises(UsageError, match="bins must be at least 2, got 1"):
        AutoregressiveConfig(bins=1)
    with pytest.raises(UsageError, match="continuous actions for an autoregressive"):
        Autoregressive(EnvSpec(1, 3, 2, True), AutoregressiveConfig(), CPU, 0)
