"""C51 and QR: the projection keeps mass and mean, the quantile loss finds quantiles, both find the value."""

import dataclasses

import pytest
import torch

from common.types import UsageError
from hw3_q_learning.distributional import C51, QR, C51Config, QRConfig, project, quantile_huber
from tests.helpers import CPU
from tests.hw3.batches import DISCRETE, noise, self_loop

C51_LINEAR = C51Config(gamma=0.8, lr=0.1, lr_decay=False, hidden=(), tau=1.0, atoms=11, v_max=10.0)
QR_LINEAR = QRConfig(gamma=0.8, lr=0.05, lr_decay=False, hidden=(), tau=1.0, atoms=5)
BOTH = [pytest.param(C51, C51_LINEAR, id="c51"), pytest.param(QR, QR_LINEAR, id="qr")]
ATOMS = torch.linspace(-1, 3, 9, dtype=torch.float64)


def random_masses(generator, size: int = 20) -> torch.Tensor:
    return torch.rand(size, 9, generator=generator, dtype=torch.float64).softmax(1)


def test_projection_by_hand():
    """Mass 1 at 0.25 between atoms 0 and 1: three quarters and one quarter; beyond the last all of it."""
    atoms = torch.tensor([0.0, 1.0, 2.0])
    m = project(atoms, torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.25, 1.0, 7.0]]))
    torch.testing.assert_close(m, torch.tensor([[0.375, 0.125 + 0.3, 0.2]]))


def test_projection_keeps_mass_always_and_mean_within_the_atoms(generator):
    p = random_masses(generator)
    z = 4 * torch.rand(20, 9, generator=generator, dtype=torch.float64) - 1
    m = project(ATOMS, p, z)
    torch.testing.assert_close(m.sum(1), torch.ones(20, dtype=torch.float64))
    torch.testing.assert_close(m @ ATOMS, (p * z).sum(1))
    assert (m >= 0).all()
    torch.testing.assert_close(project(ATOMS, p, 10 * z).sum(1), torch.ones(20, dtype=torch.float64))


def test_projection_of_the_atoms_themselves_changes_nothing(generator):
    p = random_masses(generator)
    torch.testing.assert_close(project(ATOMS, p, ATOMS.expand_as(p)), p)


def test_quantile_loss_by_hand():
    """Median of one target 3 at theta = 1 and 5, kappa 1: 1/2 (2 - 1/2) = 3/4 from either side."""
    for theta in (1.0, 5.0):
        loss = quantile_huber(torch.tensor([[theta]]), torch.tensor([[3.0]]), 1.0)
        assert loss.item() == pytest.approx(0.75)


def test_quantile_loss_is_least_at_the_quantiles():
    """Targets 1 ... 100 and kappa -> 0: of 4 quantiles the minimum lies at 12.5, 37.5, 62.5, 87.5 %, which
    are where its slope changes sign."""
    target = torch.arange(1.0, 101.0)[None]
    quantiles = torch.tensor([[13.0, 38.0, 63.0, 88.0]])
    least = quantile_huber(quantiles, target, 1e-3)
    for k in range(4):
        for shift in (-2.0, 2.0):
            moved = quantiles.clone()
            moved[0, k] += shift
            assert quantile_huber(moved, target, 1e-3) > least


@pytest.mark.parametrize(("kind", "config"), BOTH)
def test_value_of_the_state_that_never_ends(kind, config):
    """1 / (1 - gamma) = 5, with an atom at it; one of the two double."""
    made = kind(DISCRETE, dataclasses.replace(config, double=kind is C51), 1000, CPU, seed=0)
    batch = self_loop(DISCRETE)
    for _ in range(250):
        made.update(batch)
    assert made.values(batch.obs[:1]).detach().numpy() == pytest.approx(5, rel=0.05)


@pytest.mark.parametrize(("kind", "config"), BOTH)
def test_the_law_of_a_coin_is_learnt(kind, config):
    """Rewards 0 and 8, each half of the time, then the end: mass lies at 0 and at 8 only."""
    made, batch = kind(DISCRETE, config, 1000, CPU, seed=0), self_loop(DISCRETE, 64, terminated=True)
    batch = batch._replace(reward=8.0 * (torch.arange(64) // 2 % 2))
    for _ in range(400):
        made.update(batch)
    law = made.q(batch.obs[:1])[0, 0].detach()
    if kind is C51:
        law = law.softmax(0)
        assert law[0].item() == pytest.approx(0.5, abs=0.05)
        assert law[8].item() == pytest.approx(0.5, abs=0.05)
    else:
        assert law[:2].tolist() == pytest.approx([0, 0], abs=0.5)
        assert law[3:].tolist() == pytest.approx([8, 8], abs=0.5)


@pytest.mark.parametrize(("kind", "config"), BOTH)
def test_only_the_reward_counts_where_the_episode_ended(kind, config):
    made, batch = kind(DISCRETE, config, 1000, CPU, seed=0), noise(DISCRETE)
    batch = batch._replace(reward=torch.full((32,), 3.0), terminated=torch.ones(32, dtype=torch.bool))
    y = made.loss(batch)[2]
    torch.testing.assert_close(y, batch.reward)


@pytest.mark.parametrize(("kind", "config"), BOTH)
def test_steps_discount_the_next_law(kind, config):
    """gamma = 0.8, two steps: the law moves by r + 0.64 z."""
    made, batch = kind(DISCRETE, config, 1000, CPU, seed=0), noise(DISCRETE)
    z = torch.ones(32, 4)
    moved = made.moved(batch._replace(steps=torch.full((32,), 2.0)), z)
    expected = (batch.reward + 0.64 * ~batch.terminated)[:, None].expand(32, 4)
    torch.testing.assert_close(moved, expected)


def test_bad_settings_are_named():
    with pytest.raises(UsageError, match="v_min must be below v_max"):
        C51Config(v_min=1.0, v_max=1.0)
    with pytest.raises(UsageError, match=r"both finite, got 0\.0 and inf"):
        C51Config(v_max=float("inf"))
    with pytest.raises(UsageError, match="atoms must be at least 2"):
        C51Config(atoms=1)
    with pytest.raises(UsageError, match="atoms must be at least 1"):
        QRConfig(atoms=0)
