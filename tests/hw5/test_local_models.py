import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch.func import jacrev, vmap

from common.envs.integration import discretize
from common.envs.linear_quadratic import random_linear_quadratic
from common.envs.systems import Pendulum
from hw5_planning_control.gaussian_mixture import GaussianMixture, fit_mixture, maximize
from hw5_planning_control.local_models import (
    LinearGaussian,
    NormalInverseWishart,
    controller,
    fit_linear_gaussian,
    marginals,
)
from hw5_planning_control.lqr import forward, lqr

F64 = {"dtype": torch.float64}
T, N, n, m = 5, 12, 3, 2


def samples(seed: int = 0, number: int = N, noise: float = 0.1):
    """x, u, x_next of a linear system with noise, and its F, f."""
    g = torch.Generator().manual_seed(seed)
    F, f = torch.randn(T, n, n + m, generator=g, **F64), torch.randn(T, n, generator=g, **F64)
    x, u = (torch.randn(T, number, size, generator=g, **F64) for size in (n, m))
    error = noise * torch.randn(T, number, n, generator=g, **F64)
    return x, u, torch.cat([x, u], -1) @ F.mT + f[:, None] + error, F, f


def random_prior(m_0: float, n_0: float, seed: int = 1) -> NormalInverseWishart:
    g, d = torch.Generator().manual_seed(seed), 2 * n + m
    root = torch.randn(T, d, d, generator=g, **F64)
    return NormalInverseWishart(torch.randn(T, d, generator=g, **F64), root @ root.mT, m_0, n_0)


def condition(mean: torch.Tensor, covariance: torch.Tensor):
    """F, f, noise of x' given z from the joint distribution, as the equations have it."""
    z = n + m
    F = torch.linalg.solve(covariance[:, :z, :z], covariance[:, :z, z:]).mT
    noise = covariance[:, z:, z:] - F @ covariance[:, :z, z:]
    return F, mean[:, z:] - (F @ mean[:, :z, None]).squeeze(-1), noise


def assert_same(model, expected, tol: float = 1e-10):
    for part, other in zip(model, expected, strict=True):
        torch.testing.assert_close(part, other, rtol=tol, atol=tol)


def test_without_prior_it_is_least_squares():
    x, u, x_next, *_ = samples()
    rows = torch.cat([x, u, torch.ones(T, N, 1, **F64)], -1)
    solution = torch.linalg.lstsq(rows, x_next).solution  # [T, n+m+1, n]
    error = x_next - rows @ solution
    expected = solution[:, :-1].mT, solution[:, -1], error.mT @ error / N
    assert_same(fit_linear_gaussian(x, u, x_next), expected)


def test_a_linear_system_without_noise_is_found_exactly_from_as_many_samples_as_unknowns():
    x, u, x_next, F, f = samples(number=n + m + 1, noise=0.0)
    assert_same(fit_linear_gaussian(x, u, x_next), (F, f, torch.zeros(T, n, n, **F64)), 1e-9)


def test_noise_is_estimated():
    """Of 4,000 samples with deviation 0.1: the deviation of a variance is 0.01 sqrt(2/4000)."""
    x, u, x_next, *_ = samples(number=4000)
    _, _, noise = fit_linear_gaussian(x, u, x_next)
    assert (noise - 0.01 * torch.eye(n)).abs().max() < 5 * 0.01 * math.sqrt(2 / 4000)


def test_the_prior_by_its_equations():
    x, u, x_next, *_ = samples()
    m_0, n_0 = 2.0, 3.0
    prior = random_prior(m_0, n_0)
    w = torch.cat([x, u, x_next], -1)
    w_mean = w.mean(1)
    d, e = w_mean - prior.mean, w - w_mean[:, None]
    scatter = e.mT @ e + n_0 * prior.covariance + N * m_0 / (N + m_0) * d[:, :, None] * d[:, None]
    expected = condition((N * w_mean + m_0 * prior.mean) / (N + m_0), scatter / (N + n_0))
    assert_same(fit_linear_gaussian(x, u, x_next, prior), expected)


def test_limits_of_the_prior():
    """Worth nothing it is least squares, worth everything it is the model, and many samples drown it."""
    x, u, x_next, *_ = samples()
    plain = fit_linear_gaussian(x, u, x_next)
    assert_same(fit_linear_gaussian(x, u, x_next, random_prior(0.0, 1e-12)), plain, 1e-9)
    strong = random_prior(1e12, 1e12)
    assert_same(
        fit_linear_gaussian(x, u, x_next, strong), condition(strong.mean, strong.covariance), tol=1e-6
    )
    errors = []
    for copies in (10, 1000):
        many = [part.repeat(1, copies, 1) for part in (x, u, x_next)]
        F, _, _ = fit_linear_gaussian(*many, random_prior(1.0, 1.0))
        errors.append((F - plain[0]).abs().max())
    assert errors[1] < errors[0] / 50


def test_one_sample_is_enough_with_a_prior_only():
    x, u, x_next, *_ = samples(number=1)
    model = fit_linear_gaussian(x, u, x_next, random_prior(1.0, 1.0))
    assert all(part.isfinite().all() for part in model)
    assert (torch.linalg.eigvalsh(model[2]) > 0).all()
    with pytest.raises(ValueError, match="at least n\\+m\\+1 = 6 samples"):
        fit_linear_gaussian(x, u, x_next)


def test_a_fixed_start_has_slope_zero():
    x, u, x_next, F, _ = samples(noise=0.0)
    x[0] = torch.tensor([0.1, 0.0, -1e6])
    x_next[0] = x[0] @ F[0, :, :n].mT + u[0] @ F[0, :, n:].mT
    fitted, f, _ = fit_linear_gaussian(x, u, x_next)
    assert fitted[0, :, :n].abs().max() < 1e-10
    torch.testing.assert_close(fitted[0, :, n:], F[0, :, n:])
    torch.testing.assert_close(f[0], F[0, :, :n] @ x[0, 0])
    torch.testing.assert_close(fitted[1:], F[1:])


def test_dtype_is_kept():
    """Also in single precision what does not vary is told from what varies, and u(x) from u."""
    x, u, x_next, *_ = (part.float() for part in samples())
    x[0] = 1 / 3
    double = fit_linear_gaussian(x.double(), u.double(), x_next.double())
    for part, exact in zip(fit_linear_gaussian(x, u, x_next), double, strict=True):
        assert part.dtype == torch.float32
        torch.testing.assert_close(part, exact.float(), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="noise in the controls"):
        fit_linear_gaussian(x, 0.3 * x[..., :m] + 1, x_next)


def test_controls_without_noise_do_not_tell_a_from_b():
    """Version 1.0: u is a function of x, so that no regression can say which of them moved the state."""
    x, u, x_next, *_ = samples()
    with pytest.raises(ValueError, match="noise in the controls"):
        fit_linear_gaussian(x, 0.3 * x[..., :m] + 1, x_next)
    fit_linear_gaussian(x, 0.3 * x[..., :m] + 1e-3 * u, x_next)


def linear_solution(seed: int = 0, growth: float = 1.2):
    """A linear-quadratic system and the optimal controller around its own noiseless trajectory."""
    system = random_linear_quadratic(20, n, m, torch.Generator().manual_seed(seed), growth)
    gains = lqr(*system[:6])
    x, u = forward(system.F, system.f, gains.K, gains.k, system.x0)
    return system, SimpleNamespace(x=x, u=u, K=gains.K, k=torch.zeros_like(u), Q_uu=gains.Q_uu)


def test_three_controllers():
    _, solution = linear_solution()
    plan, feedback, noisy = (controller(solution, version) for version in (0.5, 1.0, 2.0))
    x = solution.x[:-1]
    for p in (plan, feedback, noisy):  # all of them plan the same
        torch.testing.assert_close((p.K @ x[..., None]).squeeze(-1) + p.k, solution.u)
    assert plan.K.abs().max() == plan.covariance.abs().max() == feedback.covariance.abs().max() == 0
    torch.testing.assert_close(feedback.K, solution.K)
    torch.testing.assert_close(noisy.covariance @ solution.Q_uu, torch.eye(m, **F64).expand(20, m, m))
    with pytest.raises(ValueError, match="version must be"):
        controller(solution, 1.5)


def drift(system, p, W) -> float:
    """Mean squared distance from the plan at the end, in closed form."""
    x0_cov = torch.zeros_like(system.C_final)
    return marginals(p, system.F, system.f, W, system.x0, x0_cov).x_final_cov.trace().item()


@pytest.mark.parametrize("seed", range(5))
def test_drift_is_ordered_as_in_the_lecture(seed):
    """Under noise the plan drifts most, feedback least; without, only version 2.0 leaves the trajectory."""
    system, solution = linear_solution(seed)
    plan, feedback, noisy = (controller(solution, version) for version in (0.5, 1.0, 2.0))
    assert drift(system, plan, system.W) > 2 * drift(system, noisy, system.W)
    assert drift(system, noisy, system.W) > drift(system, feedback, system.W)
    quiet = torch.zeros_like(system.W)
    assert drift(system, plan, quiet) == drift(system, feedback, quiet) == 0
    assert drift(system, noisy, quiet) > 0


def test_samples_have_the_moments_in_closed_form():
    system, solution = linear_solution(growth=0.9)
    g, number = torch.Generator().manual_seed(0), 20_000
    noise = iter(system.noise(number, g).unbind(1))
    model = iter(zip(system.F, system.f, strict=True))

    def step(x, u):
        F, f = next(model)
        return torch.cat([x, u], -1) @ F.mT + f + next(noise)

    p = controller(solution, 2.0)
    x, u = p.run(step, system.x0.expand(number, n), g)
    exact = marginals(p, system.F, system.f, system.W, system.x0, torch.zeros(n, n, **F64))
    z = torch.cat([x[:-1], u], -1)
    for drawn, mean, cov in (
        (z[-1], exact.z[-1], exact.z_cov[-1]),
        (x[-1], exact.x_final, exact.x_final_cov),
    ):
        std = cov.diagonal().sqrt()
        assert ((drawn.mean(0) - mean).abs() < 5 * std / number**0.5).all()
        assert ((drawn.T.cov() - cov).abs() < 8 * std[:, None] * std / number**0.5).all()


@pytest.mark.parametrize("seed", range(5))
def test_with_the_prior_of_a_global_mixture_fewer_samples_are_needed(seed):
    """A pendulum in noise. Mean error of F over the steps, seeds 0 to 4: 20 samples without prior 0.08 to
    0.10, 12 samples 0.12 to 0.19, 6 samples 0.18 to 0.42; 6 samples with it 0.064 to 0.076."""
    g, steps = torch.Generator().manual_seed(seed), 30
    pendulum = discretize(Pendulum().dynamics, 0.05)
    p = LinearGaussian(
        torch.tensor([[-1.0, -0.5]], **F64).expand(steps, 1, 2),
        torch.linspace(-2, 2, steps, **F64)[:, None],
        torch.full((steps, 1, 1), 0.09, **F64),
    )

    def step(x, u):
        return pendulum(x, u) + 0.01 * torch.randn(x.shape, generator=g, **F64)

    def error(number: int, components: int | None) -> float:
        x0 = torch.tensor([0.5, 0.0], **F64) + 0.05 * torch.randn(number, 2, generator=g, **F64)
        x, u = p.run(step, x0, g)
        data, prior = (x[:-1], u, x[1:]), None
        if components:
            w = torch.cat(data, -1).flatten(0, 1)
            prior = fit_mixture(w, components, g).prior(*data)
        slope = vmap(vmap(jacrev(lambda z: pendulum(z[:2], z[2:]))))(torch.cat(data[:2], -1)).mean(1)
        return (fit_linear_gaussian(*data, prior)[0] - slope).norm(dim=(1, 2)).mean().item()

    with_prior = error(6, 4)
    assert with_prior < 0.1
    assert with_prior < error(12, None)


def two_clusters(g: torch.Generator) -> torch.Tensor:
    near = torch.randn(300, 2, generator=g, **F64) * torch.tensor([1.0, 0.2])
    far = torch.randn(100, 2, generator=g, **F64) * 0.5 + torch.tensor([10.0, -5.0])
    return torch.cat([near, far])


def test_mixture_of_one_component_is_the_gaussian_of_the_samples(generator):
    w = two_clusters(generator)
    mixture = fit_mixture(w, 1, generator)
    torch.testing.assert_close(mixture.weight, torch.ones(1, **F64))
    torch.testing.assert_close(mixture.mean[0], w.mean(0))
    torch.testing.assert_close(mixture.covariance[0], w.T.cov(correction=0), rtol=1e-5, atol=1e-6)
    density = torch.distributions.MultivariateNormal(mixture.mean[0], mixture.covariance[0])
    torch.testing.assert_close(mixture.log_prob(w), density.log_prob(w))


def test_mixture_finds_two_clusters(generator):
    mixture = fit_mixture(two_clusters(generator), 2, generator)
    order = mixture.weight.argsort(descending=True)
    torch.testing.assert_close(mixture.weight[order], torch.tensor([0.75, 0.25], **F64), rtol=0, atol=1e-6)
    expected = torch.tensor([[0.0, 0.0], [10.0, -5.0]], **F64)
    torch.testing.assert_close(mixture.mean[order], expected, rtol=0, atol=0.25)


def test_density_of_a_mixture(generator):
    weight = torch.tensor([0.9, 0.1], **F64)
    mean, root = (torch.randn(2, *shape, generator=generator, **F64) for shape in ((3,), (3, 3)))
    covariance = root @ root.mT + torch.eye(3, **F64)
    d = torch.distributions
    expected = d.MixtureSameFamily(d.Categorical(weight), d.MultivariateNormal(mean, covariance))
    w = torch.randn(4, 5, 3, generator=generator, **F64)
    torch.testing.assert_close(GaussianMixture(weight, mean, covariance).log_prob(w), expected.log_prob(w))


def test_fitting_ends_where_another_round_changes_nothing(generator):
    w = torch.cat([two_clusters(generator), 3 * torch.randn(200, 2, generator=generator, **F64)])
    mixture = fit_mixture(w, 2, generator, iterations=500, tol=1e-12)
    again = maximize(w, mixture.log_joint(w).softmax(-1))
    assert_same(again, mixture, 1e-5)


def test_likelihood_never_falls(generator):
    w = torch.randn(200, 3, generator=generator, **F64).pow(3)
    mixture = maximize(w, torch.rand(200, 4, generator=generator, **F64).softmax(-1))
    likelihoods = []
    for _ in range(30):
        likelihoods.append(mixture.log_prob(w).mean().item())
        mixture = maximize(w, mixture.log_joint(w).softmax(-1))
    assert all(after > before - 1e-6 for before, after in pairwise(likelihoods))
    assert likelihoods[-1] > likelihoods[0] + 0.1


def test_mixture_as_a_prior_by_hand():
    """Components at x = -1 and 1. Samples of both: mean 0, variance 1 within and 1 between; then of one."""
    mean = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], **F64)
    mixture = GaussianMixture(torch.full((2,), 0.5, **F64), mean, torch.eye(3, **F64).expand(2, 3, 3))
    x = torch.tensor([[[-30.0], [30.0]], [[30.0], [30.0]]], **F64)
    prior = mixture.prior(x, torch.zeros_like(x), torch.zeros_like(x), samples=7.0)
    torch.testing.assert_close(prior.mean[:, 0], torch.tensor([0.0, 1.0], **F64))
    torch.testing.assert_close(prior.covariance[0].diagonal(), torch.tensor([2.0, 1.0, 1.0], **F64))
    torch.testing.assert_close(prior.covariance[1].diagonal(), torch.ones(3, **F64))
    assert prior.mean_samples == prior.covariance_samples == 7.0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x": torch.zeros(T, n, **F64)}, r"x must be \[T, N, n\]"),
        ({"x": torch.zeros(T, 0, n, **F64)}, r"x must be \[T, N, n\]"),
        ({"u": torch.zeros(T, N + 1, m, **F64)}, "u must be"),
        ({"x_next": torch.zeros(T, N, n + 1, **F64)}, "x_next must be"),
        ({"u": torch.full((T, N, m), math.nan, **F64)}, "u must be finite"),
        ({"x": torch.zeros(T, N, n, dtype=torch.int64)}, "x must be finite floating"),
        ({"prior": random_prior(1.0, 0.0)}, "prior must be worth"),
        ({"prior": random_prior(-1.0, 1.0)}, "prior must be worth"),
        ({"prior": random_prior(1.0, math.inf)}, "prior must be worth"),
        (
            {"prior": random_prior(1.0, 1.0)._replace(mean=torch.full((T, 8), math.nan, **F64))},
            "prior must be fin",
        ),
        (
            {"prior": random_prior(1.0, 1.0)._replace(covariance=torch.full((T, 8, 8), math.nan, **F64))},
            "prior must be fin",
        ),
        (
            {"prior": random_prior(1.0, 1.0)._replace(covariance=-torch.eye(8, **F64).expand(T, 8, 8))},
            "covariance of the prior must be positive",
        ),
        (
            {
                "prior": random_prior(1.0, 1.0)._replace(
                    covariance=torch.ones(8, 8, **F64).triu().expand(T, 8, 8)
                )
            },
            "covariance of the prior must be symm",
        ),
        ({"prior": random_prior(1.0, 1.0)._replace(mean=torch.zeros(T, 3, **F64))}, "prior must have"),
    ],
)
def test_bad_samples_are_named(change, sentence):
    names = ("x", "u", "x_next")
    with pytest.raises(ValueError, match=sentence):
        fit_linear_gaussian(**dict(zip(names, samples()[:3], strict=True)) | change)


@pytest.mark.parametrize(
    ("w", "components", "sentence"),
    [
        (torch.zeros(5, **F64), 1, "w must be"),
        (torch.full((5, 2), math.inf, **F64), 1, "w must be"),
        (torch.zeros(5, 2, **F64), 6, "components must be"),
        (torch.zeros(5, 2, **F64), 0, "components must be"),
    ],
)
def test_bad_mixtures_are_named(w, components, sentence, generator):
    with pytest.raises(ValueError, match=sentence):
        fit_mixture(w, components, generator)


def test_samples_that_are_all_the_same_make_a_narrow_mixture(generator):
    mixture = fit_mixture(torch.ones(10, 2, **F64), 3, generator)
    assert mixture.log_prob(torch.ones(10, 2, **F64)).isfinite().all()
