"""Evidence and posterior against dense formulas, moments against Gauss-Hermite quadrature."""

import math

import numpy as np
import pytest
import torch

from common.types import UsageError
from hw4_model_based.gp_dynamics import (
    GaussianProcess,
    MomentMatching,
    Moments,
    bell,
    condition,
    evidence,
    fit,
    kernel,
    minimize,
    predict,
    sine,
)


def f64(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


MEAN = f64([[0.3, -0.2], [1.0, 0.5], [-4.0, 2.0]])  # the last far from all data
ROOT = f64([[[0.5, 0.0], [0.2, 0.3]], [[0.01, 0.0], [-0.02, 0.02]], [[1.0, 0.0], [0.9, 0.1]]])
COV = ROOT @ ROOT.mT


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def process(outputs: int = 3) -> GaussianProcess:
    """Of 15 points in the plane, every output with its own lengthscales."""
    x = normal(15, 2)
    y = torch.stack([x[:, 0].sin() + x[:, 1], (x[:, 0] * x[:, 1]).cos(), x[:, 1] ** 2], 1)[:, :outputs]
    length = f64([[0.8, 1.5], [1.1, 0.6], [2.0, 0.9]])[:outputs]
    signal, noise = f64([[1.3, 0.7, 2.0], [0.1, 0.05, 0.3]])[:, :outputs]
    return condition(x, y, length, signal, noise)


def quadrature(f, mean: torch.Tensor, root: torch.Tensor, nodes: int = 60) -> Moments:
    """Of f: [B, 2] -> mean, var [B, E], at Gaussians of the plane, by a product of Gauss-Hermite rules."""
    points, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(nodes))
    w = torch.outer(weights, weights).flatten() / weights.sum() ** 2
    grid = torch.cartesian_prod(points, points)
    found = []
    for m, L in zip(mean, root, strict=True):
        apart = grid @ L.mT
        value, var = f(m + apart)
        e = w @ value
        cov = (value - e).mT @ (w[:, None] * (value - e)) + torch.diag(w @ var)
        found.append((e, cov, torch.linalg.solve(L @ L.mT, apart.mT @ (w[:, None] * value))))
    return Moments(*(torch.stack(part) for part in zip(*found, strict=True)))


def assert_equal(found: Moments, expected: Moments, tolerance: float) -> None:
    for name, a, b in zip(Moments._fields, found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}")


def test_one_point_by_hand():
    """k = 4, noise 1: K = 5, y = 10, beta = 2; at the point 8 of variance 4 - 16/5; a lengthscale away
    8 exp(-1/2)."""
    one = torch.ones(1).double()
    x, y, length = torch.zeros(1, 1).double(), 10 * one[:, None], torch.full((1, 1), 3.0).double()
    gp = condition(x, y, length, 2 * one, one)
    mean, var = predict(gp, f64([[0.0], [3.0]]))
    assert mean[:, 0].tolist() == pytest.approx([8, 8 * math.exp(-0.5)])
    assert var[0, 0].item() == pytest.approx(4 - 16 / 5)
    log_p = -0.5 * 100 / 5 - 0.5 * math.log(5) - 0.5 * math.log(2 * math.pi)
    assert evidence(x, y, length, 2 * one, one).item() == pytest.approx(log_p, abs=1e-12)


def test_the_evidence_is_the_density_of_the_data():
    gp, y = process(), normal(15, 3, seed=1)
    found = evidence(gp.x, y, gp.lengthscale, gp.signal, gp.noise)
    K = kernel(gp.x, gp.x, gp.lengthscale, gp.signal)
    for e in range(3):
        cov = K[e] + gp.noise[e] ** 2 * torch.eye(15, dtype=torch.float64)
        truth = torch.distributions.MultivariateNormal(torch.zeros(15).double(), cov).log_prob(y[:, e])
        assert found[e].item() == pytest.approx(truth.item(), abs=1e-9)


def test_the_posterior_conditions_a_joint_gaussian():
    """With new points among the data, by the blocks of one covariance."""
    gp, new = process(), normal(4, 2, seed=2)
    mean, var = predict(gp, new)
    both = torch.cat([gp.x, new])
    K = kernel(both, both, gp.lengthscale, gp.signal)
    y = torch.linalg.inv(gp.inverse) @ gp.beta[..., None]
    for e in range(3):
        gain = torch.linalg.solve(
            K[e, :15, :15] + gp.noise[e] ** 2 * torch.eye(15, dtype=torch.float64), K[e, :15, 15:]
        ).mT
        torch.testing.assert_close(mean[:, e], gain @ y[e, :, 0], rtol=0, atol=1e-9)
        left = (K[e, 15:, 15:] - gain @ K[e, :15, 15:]).diagonal()
        torch.testing.assert_close(var[:, e], left, rtol=0, atol=1e-9)


def test_the_fit_finds_the_noise_the_scale_and_what_does_not_matter():
    x = normal(60, 2)
    y = torch.stack([(2 * x[:, 0]).sin(), 3 * x[:, 1]], 1) + 0.1 * normal(60, 2, seed=1)
    gp = fit(x, y)
    assert gp.noise.tolist() == pytest.approx([0.1, 0.1], rel=0.35)
    assert gp.lengthscale[0, 1] > 10 * gp.lengthscale[0, 0]
    assert gp.lengthscale[1, 0] > 10
    at = evidence(x, y, gp.lengthscale, gp.signal, gp.noise)
    for factor in (0.8, 1.25):
        assert (evidence(x, y, gp.lengthscale, gp.signal, factor * gp.noise) < at).all()
        length = gp.lengthscale * torch.tensor([factor, 1.0])
        assert (evidence(x, y, length, gp.signal, gp.noise) < at)[0]


def test_noiseless_data_and_idle_inputs_leave_a_process_that_can_be_computed():
    x = normal(40, 3)
    x[:, 2] = 5
    gp = fit(x, torch.stack([x[:, 0], torch.zeros(40)], 1))
    mean, var = predict(gp, x)
    assert (mean[:, 0] - x[:, 0]).abs().max() < 0.02
    assert mean[:, 1].abs().max() < 1e-6
    assert bool(var.isfinite().all())


@pytest.mark.parametrize("known", [False, True], ids=["posterior", "known function"])
def test_moments_of_a_gaussian_input_equal_quadrature(known):
    """To 1e-9: mean, covariance with what the data leave open, and input-output covariance."""
    gp = process()
    gp = gp._replace(inverse=None) if known else gp
    assert_equal(MomentMatching(gp)(MEAN, COV), quadrature(lambda x: predict(gp, x), MEAN, ROOT, 90), 1e-9)


def test_a_certain_input_gives_the_prediction():
    """S = 0: the posterior itself, and the slope is its gradient."""
    gp = process()
    found = MomentMatching(gp)(MEAN, torch.zeros_like(COV))
    mean, var = predict(gp, MEAN)
    torch.testing.assert_close(found.mean, mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.cov, torch.diag_embed(var), rtol=0, atol=1e-10)
    gradient = torch.func.vmap(torch.func.jacrev(lambda x: predict(gp, x[None])[0][0]))(MEAN)
    torch.testing.assert_close(found.slope.mT, gradient, rtol=0, atol=1e-10)


def test_far_from_data_the_prior_is_left():
    gp = process()
    found = MomentMatching(gp)(torch.full((1, 2), 90.0).double(), COV[:1])
    torch.testing.assert_close(found.cov[0], torch.diag(gp.signal**2), rtol=0, atol=1e-12)
    assert found.mean.abs().max() < 1e-12


def test_many_gaussians_side_by_side_are_those_one_by_one():
    match = MomentMatching(process())
    whole = match(MEAN, COV)
    for i in range(3):
        for a, b in zip(whole, match(MEAN[i : i + 1], COV[i : i + 1]), strict=True):
            torch.testing.assert_close(a[i], b[0], rtol=0, atol=1e-13)


def test_moments_can_be_differentiated():
    """By what goes through a rollout: mean, covariance, and the parameters of a policy."""
    gp = process(2)

    def f(mean, root, x, beta, length):
        policy = gp._replace(x=x, beta=beta, inverse=None, lengthscale=length)
        return MomentMatching(policy)(mean, root @ root.mT)

    inputs = [MEAN[:1], ROOT[:1], gp.x[:4], gp.beta[:, :4], gp.lengthscale]
    assert torch.autograd.gradcheck(f, [v.clone().requires_grad_() for v in inputs])


def test_the_mean_of_a_sine_by_hand():
    """E sin x = exp(-s^2/2) sin m; Var sin x = (1 - exp(-s^2))(1 + exp(-s^2) cos 2m)/2."""
    m, s2 = 0.7, 0.5
    found = sine(f64([[m]]), f64([[[s2]]]))
    assert found.mean.item() == pytest.approx(math.exp(-s2 / 2) * math.sin(m), abs=1e-15)
    var = 0.5 * (1 - math.exp(-s2)) * (1 + math.exp(-s2) * math.cos(2 * m))
    assert found.cov.item() == pytest.approx(var, abs=1e-15)
    assert found.slope.item() == pytest.approx(math.exp(-s2 / 2) * math.cos(m), abs=1e-15)


def test_moments_of_sines_equal_quadrature():
    def f(x):
        return x.sin(), torch.zeros_like(x)

    assert_equal(sine(MEAN, COV), quadrature(f, MEAN, ROOT), 1e-12)


def test_a_saturating_reward_equals_quadrature_and_its_peak():
    target, weight = f64([0.5, 0.0]), f64([[2.0, 0.3], [0.3, 0.5]])

    def f(x):
        apart = x - target
        reward = (-0.5 * (apart @ weight * apart).sum(-1, keepdim=True)).exp()
        return reward, torch.zeros_like(reward)

    expected = quadrature(f, MEAN, ROOT).mean[:, 0]
    torch.testing.assert_close(bell(MEAN, COV, target, weight), expected, rtol=0, atol=1e-12)
    assert bell(target[None], 0 * COV[:1], target, weight).item() == 1


def test_far_away_uncertainty_is_worth_something_and_near_by_it_costs():
    """What makes the expected saturating cost explore first and settle later."""
    target, weight = torch.zeros(1).double(), torch.ones(1, 1).double()
    narrow, wide = f64([[[0.01]]]), f64([[[1.0]]])
    far, near = f64([[3.0]]), f64([[0.1]])
    assert bell(far, wide, target, weight) > bell(far, narrow, target, weight)
    assert bell(near, wide, target, weight) < bell(near, narrow, target, weight)


def test_the_minimum_is_found_within_limits_and_beside_what_cannot_be_computed():
    def loss(theta):
        if theta[0] > 2:
            raise torch.linalg.LinAlgError
        return (theta - torch.tensor([1.5, 4.0])).square().sum() + (2 - theta[0]).log() * 0

    start, limit = torch.zeros(2).double(), f64([9.0, 3.0])
    assert minimize(loss, start, 50, -limit, limit).tolist() == pytest.approx([1.5, 3.0], abs=1e-5)
    assert minimize(lambda t: (t - 1).square().sum() * float("nan"), start, 5).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (torch.zeros(3), torch.zeros(3, 1), "x must be"),
        (torch.zeros(3, 1), torch.zeros(4, 1), "y must be"),
        (torch.zeros(1, 1), torch.zeros(1, 1), "N of at least 2"),
        (torch.zeros(3, 1), torch.full((3, 1), torch.nan), "y must be finite, got nan or inf"),
    ],
)
def test_bad_data_are_refused(x, y, sentence):
    with pytest.raises(UsageError, match=sentence):
        fit(x, y)


def test_a_gaussian_of_another_size_is_refused():
    with pytest.raises(UsageError, match=r"mean and cov must be \[M, 2\] and \[M, 2, 2\], got \[1, 3\]"):
        MomentMatching(process())(torch.zeros(1, 3), torch.zeros(1, 3, 3))
