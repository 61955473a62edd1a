"""NAF: the quadratic form by hand, its argmax, the value of a state that never ends."""

import dataclasses

import numpy as np
import pytest
import torch

from common.types import UsageError
from hw3_q_learning.naf import NAF, NAFConfig, NAFNetwork, quadratic_advantage
from tests.helpers import CPU
from tests.hw3.batches import CONTINUOUS, DISCRETE, noise, self_loop

SMALL = NAFConfig(hidden=(16,))


def agent(**options) -> NAF:
    return NAF(CONTINUOUS, dataclasses.replace(SMALL, **options), 1000, CPU, seed=0)


def test_advantage_is_the_quadratic_form():
    """P = L L' = [[4, 2], [2, 10]], a - mu = (1, -1): -1/2 (4 - 4 + 10) = -5."""
    L, offset = torch.tensor([[[2.0, 0.0], [1.0, 3.0]]]), torch.tensor([[1.0, -1.0]])
    assert (L[0] @ L[0].T).tolist() == [[4, 2], [2, 10]]
    mu = torch.tensor([[0.3, 0.2]])
    assert quadratic_advantage(mu + offset, mu, L).item() == pytest.approx(-5)


def test_mu_is_the_argmax_and_v_the_max(generator):
    """Over 2,000 other actions in each of 5 states."""
    v, mu, L = agent().net(torch.randn(5, 3, generator=generator))
    actions = 2 * torch.rand(2000, 5, 2, generator=generator) - 1
    q = torch.stack([v + quadratic_advantage(a, mu, L) for a in actions])
    assert (q < v).all()
    torch.testing.assert_close(v + quadratic_advantage(mu, mu, L), v)


def test_curvature_is_positive_definite(generator):
    net = NAFNetwork(3, 4, (8,), generator)
    _, _, L = net.double()(3 * torch.randn(64, 3, generator=generator).double())
    assert torch.equal(L, L.tril())
    assert (L.diagonal(dim1=1, dim2=2) > 0).all()
    assert L.tril(-1).abs().max() > 0
    assert (torch.linalg.eigvalsh(L @ L.mT) > 0).all()


def test_a_quadratic_reward_is_learnt_exactly():
    """reward = 2 - 3 (a_1 - 0.5)^2 - (a_2 + 0.25)^2, then the end: mu = (0.5, -0.25) and V = 2."""
    made, batch = agent(lr=0.01), noise(CONTINUOUS, 256)
    a = batch.action
    reward = 2 - 3 * (a[:, 0] - 0.5) ** 2 - (a[:, 1] + 0.25) ** 2
    ones = torch.ones(256, dtype=torch.bool)
    batch = batch._replace(obs=torch.ones(256, 3), reward=reward, terminated=ones)
    for _ in range(400):
        made.update(batch)
    v, mu, _ = made.net(batch.obs[:1])
    assert v.item() == pytest.approx(2, abs=0.05)
    assert mu[0].tolist() == pytest.approx([0.5, -0.25], abs=0.05)


def test_value_of_the_state_that_never_ends():
    made, batch = agent(gamma=0.8, lr=0.01, tau=0.1), self_loop(CONTINUOUS)
    for _ in range(300):
        made.update(batch)
    assert made.net.v(batch.obs[:1]).item() == pytest.approx(5, rel=0.05)


def test_target_is_the_old_v_and_holds_no_gradient():
    made, batch = agent(tau=0.25), noise(CONTINUOUS)
    before = [p.clone() for p in made.target_parameters]
    made.update(batch)
    for old, new, now in zip(before, made.v_parameters, made.target_parameters, strict=True):
        torch.testing.assert_close(now, 0.75 * old + 0.25 * new.detach())
        assert now.grad is None


def test_exploration_stays_within_the_limits():
    obs = np.zeros((500, 3), np.float32)
    explored = agent(noise=3.0).explore(obs, 0)
    assert abs(explored).max() == 1
    assert len(np.unique(explored)) > 100


def test_bad_input_is_named():
    with pytest.raises(UsageError, match="noise must be at least 0"):
        NAFConfig(noise=-0.1)
    with pytest.raises(UsageError, match="continuous actions for NAF"):
        NAF(DISCRETE, SMALL, 1, CPU, seed=0)
