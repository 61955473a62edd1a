"""The model: closed forms of its loss, members against a loop, and what keeps an ensemble honest."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from common.types import UsageError
from hw4_model_based.dynamics import (
    Dynamics,
    DynamicsConfig,
    Normalizer,
    bootstrap,
    gaussian_nll,
    mixture_moments,
    soft_bound,
)

SMALL = DynamicsConfig(members=4, elites=2, hidden=(16, 16), max_epochs=5)


def data(size, generator, noise=0.0):
    """s' = s + 0.1 (s_2, a) of different scales, and a constant third entry."""
    obs = torch.randn(size, 3, generator=generator) * torch.tensor([1.0, 100.0, 0.0])
    action = torch.rand(size, 1, generator=generator) * 2 - 1
    change = torch.cat([0.1 * obs[:, 1:2], action, torch.zeros(size, 1)], 1)
    return obs, action, obs + change + noise * torch.randn(size, 3, generator=generator)


def test_the_likelihood_is_that_of_a_gaussian(generator):
    mean, log_var, y = torch.randn(3, 7, 2, generator=generator, dtype=torch.float64)
    reference = torch.distributions.Normal(mean, (0.5 * log_var).exp()).log_prob(y)
    torch.testing.assert_close(gaussian_nll(mean, log_var, y), -reference, rtol=0, atol=1e-12)


def test_the_floor_of_the_likelihood_is_the_entropy_of_the_noise(generator):
    """1/2 ln(2 pi s^2) + 1/2, -0.883647 for s = 0.1, in expectation; no other variance does better."""
    y = 0.1 * torch.randn(400_000, generator=generator, dtype=torch.float64)
    log_var = torch.tensor(2 * math.log(0.1)).double()
    found = gaussian_nll(torch.zeros_like(y), log_var, y).mean()
    assert found == pytest.approx(-0.883647, abs=4 * math.sqrt(0.5 / 400_000))
    for factor in (0.8, 1.25):
        assert gaussian_nll(torch.zeros_like(y), log_var + 2 * math.log(factor), y).mean() > found


def test_bounds_are_never_crossed_and_have_a_slope(generator):
    x = torch.linspace(-40, 40, 801, dtype=torch.float64, requires_grad=True)
    low, high = torch.tensor([-10.0, 0.5]).double()
    y = soft_bound(x, low, high)
    assert y.min() >= low
    assert y.max() <= F.softplus(high - low) + low  # the upper bound is soft by 3e-5 at this distance
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert (slope > 0).all()
    assert soft_bound(torch.tensor(-4.0), low, high) == pytest.approx(-4, abs=0.02)


def test_moments_of_the_ensemble_are_those_of_the_mixture(generator):
    """Mean of the variances plus variance of the means, against draws."""
    mean, var = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[1.0], [4.0], [0.25]])
    centre, aleatoric, epistemic = mixture_moments(mean, var)
    assert (float(centre), float(aleatoric)) == (2.0, 1.75)
    assert float(epistemic) == pytest.approx(14 / 3)
    draws = mean + var.sqrt() * torch.randn(3, 200_000, generator=generator)
    assert draws.var() == pytest.approx(float(aleatoric + epistemic), rel=0.01)


def test_members_side_by_side_equal_a_loop_over_members(generator):
    model = Dynamics(3, 2, dataclasses.replace(SMALL, elites=4), generator)
    obs, action = torch.randn(6, 3, generator=generator), torch.randn(6, 2, generator=generator)
    model.inputs.fit(torch.randn(50, 5, generator=generator) * 3 + 1)
    model.change.fit(torch.randn(50, 3, generator=generator) * 0.2 + 0.1)
    mean, std = model.predict(obs, action)
    for e in range(4):
        x = (torch.cat([obs, action], 1) - model.inputs.mean) / model.inputs.std
        for layer in model.net.layers[:-1]:
            x = F.silu(x @ layer.weight[e] + layer.bias[e])
        x = x @ model.net.layers[-1].weight[e] + model.net.layers[-1].bias[e]
        expected = obs + x[:, :3] * model.change.std + model.change.mean
        deviation = (0.5 * soft_bound(x[:, 3:], model.low[e], model.high[e])).exp() * model.change.std
        torch.testing.assert_close(mean[e], expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(std[e], deviation, rtol=1e-6, atol=1e-6)


def test_normalising_and_back_is_the_identity(generator):
    norm = Normalizer(3)
    x = torch.randn(1000, 3, generator=generator) * torch.tensor([1e-3, 1.0, 1e4]) + torch.tensor([1, 0, 5e4])
    norm.fit(x)
    assert norm(x).mean(0).abs().max() < 1e-3
    torch.testing.assert_close(norm(x).std(0, correction=0), torch.ones(3), rtol=1e-3, atol=0)
    torch.testing.assert_close(norm.inverse(norm(x)), x, rtol=1e-6, atol=1e-6)


def test_what_never_changes_is_not_divided_by_nothing(generator):
    norm = Normalizer(1)
    norm.fit(torch.full((10, 1), 3.0))
    assert norm.std == 1
    model = Dynamics(3, 1, SMALL, generator)
    metrics = model.fit(*data(60, generator), generator)
    assert all(math.isfinite(value) for value in metrics.values())


def test_the_bootstrap_leaves_a_third_out_of_each_member(generator):
    """(1 - 1/n)^n = 36.8 % are never drawn; what one member lacks another has."""
    rows = bootstrap(10_000, 5, generator)
    missing = [1 - len(row.unique()) / 10_000 for row in rows]
    assert missing == pytest.approx([math.exp(-1)] * 5, abs=0.015)
    assert bootstrap(7, 1, generator).tolist() == [list(range(7))]


def test_a_member_never_sees_what_its_bootstrap_left_out(generator, monkeypatch):
    """The draw is made once per fit, not once per epoch: in 5 epochs each row misses a third of the data."""
    model = Dynamics(3, 1, SMALL, generator)
    seen = [set() for _ in range(4)]
    loss = Dynamics.loss

    def watch(self, x, y):
        if torch.is_grad_enabled():
            for e in range(4):
                seen[e] |= set(x[e, :, 0].tolist())
        return loss(self, x, y)

    monkeypatch.setattr(Dynamics, "loss", watch)
    model.fit(*data(400, generator), generator)
    assert all(0.55 < len(rows) / 360 < 0.72 for rows in seen)
    assert len(set.union(*seen)) > 340


@pytest.mark.parametrize("probabilistic", [True, False])
def test_a_fit_finds_linear_dynamics(probabilistic, generator):
    """The change of state to 2 % of its variance; entries of the state differ by a factor of a hundred."""
    config = DynamicsConfig(members=2, elites=2, hidden=(32,), lr=1e-2, probabilistic=probabilistic)
    model = Dynamics(3, 1, config, generator)
    metrics = model.fit(*data(1000, generator), generator)
    assert metrics["model/squared_error"] < 0.02
    obs, action, next_obs = data(200, generator)
    mean, std = model.predict(obs, action)
    error = (mean.mean(0) - next_obs)[:, :2] / torch.tensor([10.0, 0.58])
    assert error.square().mean() < 0.02
    assert (std > 0).all() if probabilistic else (std == 0).all()


def test_the_fitted_variance_is_that_of_the_noise(generator):
    """Trained to within 0.05 of the floor, and 68 % of new data lie within one deviation."""
    x, noise = torch.randn(3000, 1, generator=generator), torch.randn(3000, 1, generator=generator)
    action = torch.zeros(3000, 1)
    config = DynamicsConfig(members=1, elites=1, hidden=(16,), lr=1e-2)
    model = Dynamics(1, 1, config, generator)
    model.fit(x[:2000], action[:2000], (0.5 * x + 0.1 * noise)[:2000], generator)
    mean, std = model.predict(x[2000:], action[2000:])
    z = (0.5 * x + 0.1 * noise)[2000:] - mean[0]
    floor = 0.5 * math.log(2 * math.pi * 0.01) + 0.5
    assert gaussian_nll(mean[0], 2 * std[0].log(), mean[0] + z).mean() < floor + 0.05
    covered = (z.abs() < std[0]).float().mean()
    assert covered == pytest.approx(0.6827, abs=3 * math.sqrt(0.6827 * 0.3173 / 1000) + 0.02)


def test_elites_are_those_best_on_the_data_held_out(generator):
    model = Dynamics(3, 1, dataclasses.replace(SMALL, max_epochs=3), generator)
    with torch.no_grad():
        model.net.layers[0].weight[0] *= 50  # this one starts far from anything
    batch = data(300, generator)
    model.fit(*batch, generator)
    losses = model.losses(model.inputs(torch.cat(batch[:2], 1)), model.change(batch[2] - batch[0]))
    assert losses[:2].max() < losses[2:].max()
    assert len(model.predict(*batch[:2])[0]) == 2


def test_a_fit_ends_at_its_best_on_the_data_held_out(generator, monkeypatch):
    """Early stopping restores each member's best, its bounds included, where the learning rate wrecks it
    afterwards; better by less than 1 % does not count."""
    asked, losses = [], Dynamics.losses

    def watch(self, x, y):
        asked.append((x, y, losses(self, x, y)))
        return asked[-1][2]

    monkeypatch.setattr(Dynamics, "losses", watch)
    model = Dynamics(3, 1, dataclasses.replace(SMALL, lr=0.3), generator)
    model.fit(*data(200, generator, noise=0.1), generator)
    best = torch.stack([loss for _, _, loss in asked]).min(0).values.sort().values
    found = losses(model, *asked[0][:2])
    assert (found <= best + 0.011 * best.abs()).all()
    assert (asked[-1][2].sort().values > best + 0.011 * best.abs()).any()  # the last epoch was not the best


ONE_STEP = dataclasses.replace(SMALL, members=1, elites=1, max_epochs=1, lr=0.01, weight_decay=0.0)


def test_the_bounds_of_the_variance_are_pulled_together(generator):
    """Ten nats away from log sigma^2 they feel their own pull alone: a step of Adam is the learning rate."""
    model = Dynamics(3, 1, ONE_STEP, generator)
    with torch.no_grad():
        model.high.fill_(10.0)
    model.fit(*data(60, generator), generator)
    torch.testing.assert_close(model.low, torch.full_like(model.low, -9.99))
    torch.testing.assert_close(model.high, torch.full_like(model.high, 9.99))


@pytest.mark.parametrize(("decay", "step"), [(0.0, 0.0), (0.1, 0.01)])
def test_weights_that_the_data_say_nothing_about_decay(decay, step, generator):
    """The third entry never changes, so its weights have no gradient: one step of Adam by decay, or none."""
    model = Dynamics(3, 1, dataclasses.replace(ONE_STEP, weight_decay=decay), generator)
    before = model.net.layers[0].weight[:, 2].detach().clone()
    model.fit(*data(60, generator), generator)
    torch.testing.assert_close(model.net.layers[0].weight[:, 2], before - step * before.sign())


@pytest.mark.parametrize(("patience", "epochs"), [(3, 3), (7, 7), (30, 20)])
def test_a_fit_that_gets_no_better_ends_after_patience_or_at_the_last_epoch(patience, epochs, generator):
    config = dataclasses.replace(SMALL, lr=1e-12, patience=patience, max_epochs=20)
    metrics = Dynamics(3, 1, config, generator).fit(*data(60, generator), generator)
    assert metrics["model/epochs"] == epochs


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda o, a, n: (o[:1], a[:1], n[:1]), "obs must hold at least 2 transitions"),
        (lambda o, a, n: (o[:0], a[:0], n[:0]), "obs must hold at least 2 transitions"),
        (lambda o, a, n: (o, a[:5], n), r"action must be \[20, K\], got \[5, 1\]"),
        (lambda o, a, n: (o, a, n[:, :2]), r"next_obs must be \[20, 3\], got \[20, 2\]"),
        (lambda o, a, n: (o, a, n / 0), "next_obs must be finite"),
    ],
)
def test_bad_data_are_refused(change, sentence, generator):
    model = Dynamics(3, 1, SMALL, generator)
    with pytest.raises(UsageError, match=sentence):
        model.fit(*change(*data(20, generator)), generator)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"members": 0}, "members must be at least 1"),
        ({"elites": 6}, "elites must be at most members = 5, got 6"),
        ({"hidden": (8, 0)}, "hidden must lie in"),
        ({"lr": math.nan}, "lr must be positive"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"holdout": 1.0}, r"holdout must lie in \(0, 1\), got 1.0"),
    ],
)
def test_bad_settings_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        DynamicsConfig(**settings)
