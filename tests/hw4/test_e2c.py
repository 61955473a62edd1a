"""Locally linear latent dynamics: determinant, moments and KL against torch, and the objective."""

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from common.types import EnvSpec
from hw4_model_based.e2c import (
    E2C,
    E2CConfig,
    E2CModel,
    E2CModelConfig,
    Gaussian,
    Linearization,
    diagonal,
    kl_to_diagonal,
    shorten,
)
from tests.hw4.test_latent_dynamics import SPEC, data, sequences

TINY = E2CModelConfig(latent=3, hidden=(16,), dynamics_hidden=(16,), unroll=2, first_updates=60, updates=5)
B, Z, K = 6, 5, 2


def draw(*shape, generator):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def local(generator):
    v, r = shorten(draw(2, B, Z, generator=generator))
    return Linearization(v, r, draw(B, Z, K, generator=generator), draw(B, Z, generator=generator))


@pytest.fixture
def belief(generator):
    root = draw(B, Z, Z, generator=generator)
    cov = root @ root.mT
    return Gaussian(draw(B, Z, generator=generator), cov, torch.logdet(cov))


def matrix(local):
    return torch.eye(Z, dtype=torch.float64) + local.v[..., None] * local.r[..., None, :]


def test_the_map_is_affine(local, generator):
    z, u = draw(B, Z, generator=generator), draw(B, K, generator=generator)
    expected = torch.einsum("bij,bj->bi", matrix(local), z) + torch.einsum("bij,bj->bi", local.B, u) + local.c
    torch.testing.assert_close(local.map(z, u), expected, rtol=0, atol=1e-12)


def test_moments_and_determinant_are_those_of_the_matrices(local, belief, generator):
    """A Sigma A' and, by |I + v r'| = 1 + v'r, its log determinant: to 1e-10, twice in a row."""
    u, A = draw(B, K, generator=generator), matrix(local)
    once = local.propagate(belief, 0 * u)
    torch.testing.assert_close(torch.linalg.det(A), 1 + (local.v * local.r).sum(-1), rtol=0, atol=1e-12)
    found = local.propagate(once, u)
    expected = A @ A @ belief.cov @ A.mT @ A.mT
    torch.testing.assert_close(found.cov, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.log_det, torch.logdet(expected), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.mean, local.map(local.map(belief.mean, 0 * u), u))


def test_kl_is_that_of_torch(local, belief, generator):
    """Of a full Gaussian, and of a propagated one, to a diagonal one: to 1e-10."""
    mean, log_std = draw(2, B, Z, generator=generator)
    target = MultivariateNormal(mean, torch.diag_embed((2 * log_std).exp()))
    for p in (belief, local.propagate(belief, draw(B, K, generator=generator)), diagonal(mean + 1, log_std)):
        expected = kl_divergence(MultivariateNormal(p.mean, p.cov), target)
        torch.testing.assert_close(kl_to_diagonal(p, mean, log_std), expected, rtol=1e-10, atol=1e-10)


def test_kl_is_zero_only_where_both_agree(generator):
    mean, log_std = draw(2, B, Z, generator=generator)
    p = diagonal(mean, log_std)
    assert kl_to_diagonal(p, mean, log_std).abs().max() < 1e-12
    assert (kl_to_diagonal(p, mean, log_std + 0.1) > 0).all()
    unit = kl_to_diagonal(diagonal(torch.ones(1, 4), torch.zeros(1, 4)), torch.zeros(1, 4), 0.0)
    assert unit.item() == pytest.approx(2)  # 1/2 per unit of distance


def test_volume_never_vanishes(generator):
    v, r = shorten(100 * draw(2, 1000, Z, generator=generator))
    determinant = 1 + (v * r).sum(-1)
    assert (determinant > 0).all()
    assert determinant.max() < 2
    x = draw(B, Z, generator=generator)
    torch.testing.assert_close(shorten(x) / x, (1 + x.square().sum(-1, keepdim=True)).rsqrt().expand(B, Z))


def test_one_step_is_the_papers_objective(generator):
    """T = 1: term by term, with torch's distributions and matrices, the noise drawn again."""
    model = E2CModel(4, 1, TINY, generator)
    x = sequences(generator, steps=1)
    model.draws = torch.Generator().manual_seed(3)
    total, parts = model.loss(x)
    mean, log_std = model.posterior(x.obs)
    z = mean[0] + log_std[0].exp() * torch.randn(5, 3, generator=torch.Generator().manual_seed(3))
    local = model.linearize(z)
    A = torch.eye(3) + local.v[..., None] * local.r[..., None, :]
    after = (A @ z[..., None] + local.B @ x.action[0][..., None]).squeeze(-1) + local.c
    predicted = MultivariateNormal(
        (A @ mean[0][..., None] + local.B @ x.action[0][..., None]).squeeze(-1) + local.c,
        A @ torch.diag_embed((2 * log_std[0]).exp()) @ A.mT,
    )
    q0, q1 = (
        MultivariateNormal(m, torch.diag_embed((2 * s).exp())) for m, s in zip(mean, log_std, strict=True)
    )
    seen = [torch.distributions.Bernoulli(logits=model.decoder(s), validate_args=False) for s in (z, after)]
    pixels = -torch.stack([p.log_prob(o).sum(-1) for p, o in zip(seen, x.obs, strict=True)]).mean()
    prior = kl_divergence(q0, MultivariateNormal(torch.zeros(3), torch.eye(3))).mean()
    dynamics = kl_divergence(predicted, q1).mean()
    reward = (model.reward(z) - x.reward[0]).square().mean()
    expected = torch.stack([pixels, dynamics, reward, prior])
    torch.testing.assert_close(parts, expected.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(total, pixels + dynamics + 50 * reward + prior, rtol=1e-4, atol=1e-3)


def test_the_belief_is_carried_from_step_to_step(generator):
    """T = 3: A_k is that of the k-th sample, and mean and covariance go through all of them in a row."""
    model = E2CModel(4, 1, TINY, generator)
    with torch.no_grad():
        model.change[-1].weight *= 10  # at first nothing moves far
    x = sequences(generator, steps=3)
    model.draws = torch.Generator().manual_seed(3)
    _, parts = model.loss(x)
    mean, log_std = model.posterior(x.obs)
    cov = torch.diag_embed((2 * log_std).exp())
    z = mean[0] + log_std[0].exp() * torch.randn(5, 3, generator=torch.Generator().manual_seed(3))
    m, S, total = mean[0], cov[0], 0.0
    for k in range(3):
        local = model.linearize(z)
        A = torch.eye(3) + local.v[..., None] * local.r[..., None, :]
        z, m, S = local.map(z, x.action[k]), local.map(m, x.action[k]), A @ S @ A.mT
        target = MultivariateNormal(mean[k + 1], cov[k + 1])
        total = total + kl_divergence(MultivariateNormal(m, S), target).mean() / 3
    torch.testing.assert_close(parts[1], total.detach(), rtol=1e-4, atol=1e-4)


def test_every_parameter_learns(generator):
    model = E2CModel(4, 1, TINY, generator)
    model.loss(sequences(generator))[0].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_it_plans_from_the_mean(generator):
    """No noise in what is believed, and the plan's steps are the means'."""
    agent = E2C(EnvSpec(2, 4, 1, False), E2CConfig(model=TINY), 0)
    obs = torch.rand(2, 4, generator=generator)
    s, action = agent.believe(obs), torch.ones(2, 1)
    torch.testing.assert_close(s, agent.model.posterior(obs)[0])
    torch.testing.assert_close(agent.model.step(s, action), agent.model.linearize(s).map(s, action))
    agent.begin(np.ones(2, bool))
    assert agent.act(obs.numpy()).shape == (2, 1)


def test_a_fit_learns_and_the_seed_decides(generator):
    batch = data(generator)
    one, two = (E2C(SPEC, E2CConfig(model=TINY), 0) for _ in range(2))
    found = one.update(batch)
    assert found == two.update(batch)
    assert one.update(batch)["loss/pixels"] < found["loss/pixels"]
