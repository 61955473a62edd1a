"""Bayes by backprop: the linear case in closed form, what is learned, and what is drawn."""

import math

import pytest
import torch

from common.types import UsageError
from hw4_model_based import bayesian_network
from hw4_model_based.bayesian_network import (
    BayesianConfig,
    BayesianDynamics,
    BayesianLinear,
    BayesianNet,
    expected_log_likelihood,
    kl_to_prior,
    linear_elbo,
    linear_posterior,
    log_evidence,
    mean_field,
)

ALPHA, BETA = 0.5, 4.0  # precisions of the prior and of the noise


def problem(generator, n=12):
    """Columns of X are correlated: the posterior is not independent."""
    X = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    X[:, 1] += 0.9 * X[:, 0]
    w = torch.tensor([1.0, -0.5, 2.0]).double()
    return X, X @ w + BETA**-0.5 * torch.randn(n, generator=generator, dtype=torch.float64)


def gaussian(mean, covariance):
    return torch.distributions.MultivariateNormal(mean, covariance)


def test_posterior_is_the_joint_gaussian_conditioned(generator):
    """Mean S X' K^-1 y and covariance S - S X' K^-1 X S with K = I / beta + X S X'."""
    X, y = problem(generator)
    S = torch.eye(3).double() / ALPHA
    gain = S @ X.T @ torch.linalg.inv(torch.eye(12) / BETA + X @ S @ X.T)
    mean, precision = linear_posterior(X, y, ALPHA, BETA)
    torch.testing.assert_close(mean, gain @ y, rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.linalg.inv(precision), S - gain @ X @ S, rtol=0, atol=1e-10)


def test_evidence_in_the_dimensions_of_w_is_that_in_the_dimensions_of_y(generator):
    X, y = problem(generator)
    expected = gaussian(torch.zeros(12).double(), torch.eye(12) / BETA + X @ X.T / ALPHA).log_prob(y)
    torch.testing.assert_close(log_evidence(X, y, ALPHA, BETA), expected, rtol=0, atol=1e-10)


def test_the_bound_misses_the_evidence_by_the_divergence_from_the_posterior(generator):
    """log p(D) - ELBO = KL(q || p(w|D)), at the optimum and anywhere else."""
    X, y = problem(generator)
    posterior = linear_posterior(X, y, ALPHA, BETA)
    exact = gaussian(posterior.mean, torch.linalg.inv(posterior.precision))
    for m, s in (mean_field(posterior), (torch.ones(3).double(), torch.tensor([0.1, 0.5, 2.0]).double())):
        gap = log_evidence(X, y, ALPHA, BETA) - linear_elbo(m, s, X, y, ALPHA, BETA)
        expected = torch.distributions.kl_divergence(gaussian(m, s.square().diag()), exact)
        assert gap > 0.1
        torch.testing.assert_close(gap, expected, rtol=0, atol=1e-10)


def test_no_independent_gaussian_has_a_better_bound(generator):
    """The gradient vanishes at m = mu, s_i^2 = 1 / Lambda_ii; the posterior's own variances do worse."""
    X, y = problem(generator)
    posterior = linear_posterior(X, y, ALPHA, BETA)
    m, s = (x.clone().requires_grad_() for x in mean_field(posterior))
    best = linear_elbo(m, s, X, y, ALPHA, BETA)
    for gradient in torch.autograd.grad(best, (m, s)):
        assert gradient.abs().max() < 1e-10
    marginal = torch.linalg.inv(posterior.precision).diagonal().sqrt()
    assert (s < marginal).all()
    assert linear_elbo(m, marginal, X, y, ALPHA, BETA) < best


def test_with_independent_columns_mean_field_is_exact(generator):
    X = torch.linalg.qr(problem(generator)[0]).Q
    y = torch.randn(12, generator=generator).double()
    m, s = mean_field(linear_posterior(X, y, ALPHA, BETA))
    torch.testing.assert_close(
        linear_elbo(m, s, X, y, ALPHA, BETA), log_evidence(X, y, ALPHA, BETA), rtol=0, atol=1e-10
    )


def test_divergence_from_the_prior_is_that_of_the_library(generator):
    m, s = torch.randn(7, generator=generator).double(), torch.rand(7, generator=generator).double() + 0.1
    q, p = torch.distributions.Normal(m, s), torch.distributions.Normal(torch.zeros_like(m), 1.7)
    expected = torch.distributions.kl_divergence(q, p).sum()
    torch.testing.assert_close(kl_to_prior(m, s, 1.7), expected, rtol=0, atol=1e-12)
    assert kl_to_prior(torch.zeros(3), torch.full((3,), 1.7), 1.7) == pytest.approx(0, abs=1e-6)


def test_gradient_descent_on_the_drawn_bound_finds_the_closed_form(generator):
    """A network without hidden layers is the linear model. Seeds 0 to 4: the ELBO is at most 0.0014 below the
    best, means within 0.012 of a deviation, deviations within 3.5 %."""
    X, y = problem(generator, n=40)
    net = BayesianNet(2, 1, std=0.3, generator=generator).double()
    x, log_var = X[:, :2] * 2**0.5, torch.tensor(-math.log(BETA)).double()
    design = net.layers[0].inputs(x)
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    x, target = x.repeat(64, 1), y.repeat(64)[:, None]  # as many draws per row and step
    for _ in range(400):
        fit = expected_log_likelihood(net, x, target, log_var, generator)
        loss = net.kl(ALPHA**-0.5) / 40 - fit
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    m, s = mean_field(linear_posterior(design, y, ALPHA, BETA))
    found_m, found_s = net.layers[0].mean[:, 0].detach(), net.layers[0].std[:, 0].detach()
    lost = linear_elbo(m, s, design, y, ALPHA, BETA) - linear_elbo(found_m, found_s, design, y, ALPHA, BETA)
    assert 0 <= lost < 1e-2
    assert ((found_m - m) / s).abs().max() < 0.05
    assert (found_s / s - 1).abs().max() < 0.07


def test_the_divergence_gains_its_weight_over_the_warm_up(generator, monkeypatch):
    """And the fit heeds it: without the divergence, weights of no use do not go back to the prior."""
    config = BayesianConfig(hidden=(4,), epochs=10, warm_up=0.5, lr=0.02)
    assert [bayesian_network.kl_weight(epoch, config) for epoch in (0, 2, 4, 5, 9)] == [
        1 / 6,
        0.5,
        5 / 6,
        1,
        1,
    ]
    assert bayesian_network.kl_weight(0, BayesianConfig(warm_up=0.0)) == 1
    obs = torch.randn(20, 2, generator=generator)

    def deviations():
        draws = torch.Generator().manual_seed(0)
        model = BayesianDynamics(2, 1, config, draws)
        model.fit(obs, obs[:, :1], obs + 0.1 * obs.flip(0), draws)
        return torch.cat([layer.std.flatten() for layer in model.net.layers])

    heeded = deviations().mean()
    monkeypatch.setattr(bayesian_network, "kl_weight", lambda epoch, config: 0.0)
    assert deviations().mean() < 0.99 * heeded


@pytest.mark.parametrize("batch_size", [5, 20])
def test_the_divergence_is_shared_out_among_all_data(batch_size, generator, monkeypatch):
    """Where the data say nothing and nothing moves, a transition costs KL / 20, whatever the batches."""
    monkeypatch.setattr(bayesian_network, "expected_log_likelihood", lambda *_: torch.zeros(()))
    config = BayesianConfig(hidden=(4,), epochs=1, lr=1e-12, batch_size=batch_size)
    model, x = BayesianDynamics(1, 1, config, generator), torch.randn(20, 1, generator=generator)
    metrics = model.fit(x, x, 0.5 * x, generator)
    assert metrics["loss/negative_elbo"] == pytest.approx(model.net.kl(config.prior).item() / 20)


def test_the_bias_is_a_weight_whose_input_is_one(generator):
    x = torch.randn(5, 4, generator=generator)
    found = BayesianLinear(4, 2, 0.4, generator).inputs(x)
    torch.testing.assert_close(found, torch.cat([x / 2, torch.ones(5, 1)], 1))


def test_drawing_the_output_has_the_moments_of_drawing_the_weights(generator):
    """Local reparametrisation: N(x m, x^2 s^2) in each row, against whole matrices drawn."""
    layer = BayesianLinear(3, 2, 0.4, generator)
    x = torch.randn(4, 3, generator=generator)
    local = layer(x.repeat(20_000, 1), generator).view(20_000, 4, 2)
    whole = layer.inputs(x) @ layer.sample(20_000, generator)
    torch.testing.assert_close(local.mean(0), whole.mean(0), rtol=0, atol=0.025)
    torch.testing.assert_close(local.std(0), whole.std(0), rtol=0.03, atol=0)


def test_a_drawn_network_is_the_same_at_every_state(generator):
    """Members are functions: equal states get equal values, which rows drawn one by one would not."""
    net = BayesianNet(2, 8, 1, std=0.5, generator=generator)
    x = torch.ones(5, 2)
    found = net.members(x, 3, generator)[..., 0]
    assert found.std(1).max() < 1e-6
    assert found[:, 0].std() > 0.01
    assert net(x, generator).std() > 0.01


def test_a_fit_finds_the_dynamics_and_their_noise(generator):
    """s' = 0.5 s + 3 a + N(0, 0.3^2); what the networks disagree about grows away from the data, fourfold at
    ten times their spread in three seeds (10, 9, 9 with another action)."""
    obs, action = torch.randn(2, 300, 1, generator=generator).unbind(0)
    next_obs = 0.5 * obs + 3 * action + 0.3 * torch.randn(300, 1, generator=generator)
    model = BayesianDynamics(1, 1, BayesianConfig(hidden=(8,), epochs=500), generator)
    metrics = model.fit(obs, action, next_obs, generator)
    assert math.isfinite(metrics["loss/negative_elbo"])
    mean, std = model.predict(torch.tensor([[0.5], [10.0]]), torch.zeros(2, 1), 200, generator)
    assert mean[:, 0].mean() == pytest.approx(0.25, abs=0.2)
    assert std.median() == pytest.approx(0.3, rel=0.4)
    spread = mean.std(0)[:, 0]
    assert spread[1] > 4 * spread[0]


def test_the_same_generators_give_the_same_fit():
    found = []
    for _ in range(2):
        draws = torch.Generator().manual_seed(3)
        model = BayesianDynamics(1, 1, BayesianConfig(hidden=(4,), epochs=3), draws)
        x = torch.randn(20, 1, generator=draws)
        model.fit(x, torch.zeros(20, 1), x * 0.5, draws)
        found.append(model.predict(x, torch.zeros(20, 1), 2, draws)[0])
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda X, y: (X, y[:5], 1.0, 1.0), r"X must be \[n, d\] and y \[n\], got \[12, 3\] and \[5\]"),
        (lambda X, y: (X[:0], y[:0], 1.0, 1.0), r"X must be \[n, d\] and y \[n\], got \[0, 3\]"),
        (lambda X, y: (X, y / 0, 1.0, 1.0), "X and y must be finite"),
        (lambda X, y: (X, y, 0.0, 1.0), "alpha must be positive, got 0.0"),
        (lambda X, y: (X, y, 1.0, math.nan), "beta must be positive, got nan"),
    ],
)
def test_bad_problems_are_refused(change, sentence, generator):
    with pytest.raises(UsageError, match=sentence):
        log_evidence(*change(*problem(generator)))


def test_bad_data_are_refused(generator):
    model = BayesianDynamics(2, 1, BayesianConfig(), generator)
    with pytest.raises(UsageError, match="obs must hold at least 2 transitions"):
        model.fit(torch.zeros(1, 2), torch.zeros(1, 1), torch.zeros(1, 2), generator)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"hidden": (0,)}, "hidden must lie in"),
        ({"prior": 0.0}, "prior must be positive"),
        ({"std": math.inf}, "std must be positive"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"warm_up": 1.1}, r"warm_up must lie in \[0, 1\], got 1.1"),
    ],
)
def test_bad_settings_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        BayesianConfig(**settings)
