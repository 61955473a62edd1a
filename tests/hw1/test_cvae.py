"""The bound against a known likelihood: a = w z + sigma eps, log p(a) = log N(a; 0, w^2 + sigma^2)."""

import math

import numpy as np
import pytest
import torch

from common.types import EnvSpec, UsageError
from hw1_imitation.cvae import CVAE, CVAEConfig, elbo
from tests.helpers import CPU

SPEC = EnvSpec(1, 3, 2, False)
W, SIGMA = 1.5, 0.5
LOG_SIGMA = torch.tensor([math.log(SIGMA)], dtype=torch.float64)


def mean_elbo(action: float, m: float, s: float) -> float:
    """E_q[ELBO] by Gauss-Hermite quadrature, which is exact here, with q = N(m, s^2)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    z = torch.tensor(m + s * nodes)[:, None]
    q = torch.full_like(z, m), torch.full_like(z, math.log(s))
    log_likelihood, kl = elbo(W * z, LOG_SIGMA, torch.full_like(z, action), *q)
    return float((torch.tensor(weights / weights.sum()) * (log_likelihood - kl)).sum())


def test_bound_holds_and_is_tight_at_the_posterior():
    """q(z | a) = N(w a / (w^2 + sigma^2), sigma^2 / (w^2 + sigma^2))"""
    variance = W**2 + SIGMA**2
    for action in (-2.0, 0.0, 0.7):
        exact = -0.5 * (action**2 / variance + math.log(2 * math.pi * variance))
        m, s = W * action / variance, SIGMA / math.sqrt(variance)
        assert mean_elbo(action, m, s) == pytest.approx(exact, abs=1e-12)
        for wrong in ((m + 0.1, s), (m, 1.3 * s), (0.0, 1.0)):
            if wrong != (m, s):
                assert mean_elbo(action, *wrong) < exact - 1e-4


def test_kl_to_the_prior_by_hand():
    """N(1, 1): 1/2; N(0, e^2): (e^2 - 1)/2 - 1; two entries add up."""
    zero, q = torch.zeros(1, 1), (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    _, kl = elbo(zero, zero[0], zero, *q)
    assert kl.item() == pytest.approx(0.5 + (math.exp(2) - 1) / 2 - 1)


def test_loss_is_the_bound_at_the_encoders_own_draw(generator):
    """z = m + s eps, so that the likelihood's gradient reaches the encoder too."""
    agent = CVAE(SPEC, CVAEConfig(hidden=(8,)), CPU, 0)
    obs, action = torch.randn(16, 3, generator=generator), torch.rand(16, 2, generator=generator)
    twin = torch.Generator()
    twin.set_state(agent.generator.get_state())
    loss = agent.loss(obs, action)
    m, log_s = agent.policy.encode(obs, action)
    z = m + log_s.exp() * torch.randn(16, 2, generator=twin)
    log_likelihood, kl = elbo(agent.policy(obs, z), agent.policy.log_std, action, m, log_s)
    torch.testing.assert_close(loss, (kl - log_likelihood).mean())
    encoder = [*agent.policy.encoder.parameters()]
    slopes = torch.autograd.grad(log_likelihood.mean(), encoder)
    assert min(slope.abs().max() for slope in slopes) > 0


def test_acting_draws_z_anew():
    agent = CVAE(SPEC, CVAEConfig(hidden=(8,)), CPU, 0)
    obs = np.ones((500, 3), np.float32)
    action = agent.act(obs)
    assert action.shape == (500, 2)
    assert action.std(0).min() > 0.01


def test_bad_settings_are_refused():
    with pytest.raises(UsageError, match="latents must be at least 1, got 0"):
        CVAEConfig(latents=0)
    with pytest.raises(UsageError, match="continuous actions for a conditional VAE"):
        CVAE(EnvSpec(1, 3, 2, True), CVAEConfig(), CPU, 0)
