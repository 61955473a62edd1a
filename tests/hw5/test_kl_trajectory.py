import math
from itertools import pairwise

import pytest
import torch
from scipy.optimize import brentq
from torch.distributions import MultivariateNormal, kl_divergence

from common.envs.linear_quadratic import LinearQuadratic, random_linear_quadratic
from hw5_planning_control.kl_trajectory import (
    expected_cost,
    kl_step,
    max_entropy_lqr,
    moments,
    trajectory_kl,
)
from hw5_planning_control.local_models import LinearGaussian
from hw5_planning_control.lqr import lqr

F64 = {"dtype": torch.float64}
T, n, m = 8, 3, 2
X0_COV = 0.3 * torch.eye(n, **F64)


def system(seed: int = 0, batch: tuple[int, ...] = ()) -> LinearQuadratic:
    return random_linear_quadratic(T, n, m, torch.Generator().manual_seed(seed), growth=0.9, batch=batch)


def random_controller(seed: int = 1, batch: tuple[int, ...] = ()) -> LinearGaussian:
    g = torch.Generator().manual_seed(seed)
    K, k = (
        0.3 * torch.randn(*batch, T, m, n, generator=g, **F64),
        torch.randn(*batch, T, m, generator=g, **F64),
    )
    root = torch.randn(*batch, T, m, m, generator=g, **F64)
    return LinearGaussian(K, k, root @ root.mT + 0.2 * torch.eye(m, **F64))


def joint(p: LinearGaussian, model: LinearQuadratic) -> MultivariateNormal:
    """The Gaussian of the whole trajectory [x_0, u_0, ..., x_T]: a linear function of independent noises."""
    x_mean, x_root = model.x0, torch.linalg.cholesky(X0_COV)
    size = n + T * (m + n)
    x_root = torch.nn.functional.pad(x_root, (0, size - n))  # the first n of all noises
    means, roots, used = [x_mean], [x_root], n
    for t in range(T):
        u_mean, u_root = p.K[t] @ means[-1] + p.k[t], p.K[t] @ roots[-1]
        u_root[:, used : used + m] += torch.linalg.cholesky(p.covariance[t])
        x_mean = model.F[t] @ torch.cat([means[-1], u_mean]) + model.f[t]
        x_root = model.F[t] @ torch.cat([roots[-1], u_root])
        x_root[:, used + m : used + m + n] += torch.linalg.cholesky(model.W[t])
        means, roots, used = [*means, u_mean, x_mean], [*roots, u_root, x_root], used + m + n
    root = torch.cat(roots)
    return MultivariateNormal(torch.cat(means), root @ root.T)


@pytest.mark.parametrize("seed", range(5))
def test_kl_of_trajectories_is_that_of_their_joint_gaussian(seed):
    model, p, q = system(seed), random_controller(seed), random_controller(seed + 50)
    expected = kl_divergence(joint(p, model), joint(q, model)).item()
    found = trajectory_kl(p, q, moments(p, model, X0_COV)).item()
    assert found == pytest.approx(expected, rel=1e-10)
    assert trajectory_kl(p, p, moments(p, model, X0_COV)).item() == pytest.approx(0, abs=1e-12)


def test_expected_cost_is_that_of_samples():
    model, p, number = system(), random_controller(), 20_000
    z = joint(p, model)
    torch.manual_seed(0)
    drawn = z.sample((number,))
    x0, rest = drawn[:, :n], drawn[:, n:].unflatten(1, (T, m + n))
    x = torch.cat([x0[:, None], rest[..., m:]], 1)
    costs = model.cost(x, rest[..., :m])
    error = (costs.mean() - expected_cost(model, moments(p, model, X0_COV))).abs()
    assert error < 4 * costs.std() / number**0.5


def one_step(epsilon: float, slope: float = 2.0):
    """T = n = m = 1: the cost 1/2 u^2 + slope u, and the old controller N(0, 1)."""
    model = LinearQuadratic(
        F=torch.zeros(1, 1, 2, **F64),
        f=torch.zeros(1, 1, **F64),
        C=torch.diag(torch.tensor([0.0, 1.0], **F64))[None],
        c=torch.tensor([[0.0, slope]], **F64),
        C_final=torch.zeros(1, 1, **F64),
        c_final=torch.zeros(1, **F64),
        W=torch.ones(1, 1, 1, **F64),
        x0=torch.zeros(1, **F64),
    )
    old = LinearGaussian(torch.zeros(1, 1, 1, **F64), torch.zeros(1, 1, **F64), torch.ones(1, 1, 1, **F64))
    return kl_step(model, old, epsilon)


@pytest.mark.parametrize("epsilon", [1e-4, 0.1, 3.0])
def test_one_step_by_hand(epsilon):
    """u ~ N(-slope/(1 + eta), eta/(1 + eta)), which is (Q_uu/eta)^-1, and KL = (s - 1 - ln s + mean^2)/2."""
    step = one_step(epsilon)

    def kl(eta):
        s, mean = eta / (1 + eta), -2.0 / (1 + eta)
        return 0.5 * (s - 1 - math.log(s) + mean**2)

    eta = brentq(lambda eta: kl(eta) - epsilon, 1e-6, 1e6, xtol=1e-14, rtol=1e-14)
    assert step.eta.item() == pytest.approx(eta, rel=1e-7)
    assert step.controller.covariance.item() == pytest.approx(eta / (1 + eta), rel=1e-7)
    assert step.controller.k.item() == pytest.approx(-2 / (1 + eta), rel=1e-7)


@pytest.mark.parametrize("epsilon", [1e-4, 1e-2, 1.0, 30.0])
def test_the_bound_is_met_and_the_cost_falls(epsilon):
    model, old = system(batch=(5,)), random_controller(batch=(5,))
    step = kl_step(model, old, epsilon, X0_COV)
    assert step.converged.all()
    under_new = moments(step.controller, model, X0_COV)
    kl = trajectory_kl(step.controller, old, under_new)
    assert ((kl / epsilon - 1).abs() < 1e-6).all()
    assert (expected_cost(model, under_new) < expected_cost(model, moments(old, model, X0_COV))).all()


def test_the_step_is_a_stationary_point_of_the_lagrangian():
    """E[c] + eta KL rises whatever becomes of K, k and the covariance: within epsilon nothing is better."""
    model, old = system(), random_controller()
    step = kl_step(model, old, 2.0, X0_COV)
    roots = torch.linalg.cholesky(step.controller.covariance)
    parts = [part.clone().requires_grad_() for part in (step.controller.K, step.controller.k, roots)]

    def lagrangian(K, k, root):
        p = LinearGaussian(K, k, root @ root.mT)
        under_p = moments(p, model, X0_COV)
        return expected_cost(model, under_p) + step.eta * trajectory_kl(p, old, under_p)

    gradients = torch.autograd.grad(lagrangian(*parts), parts)
    assert all(gradient.abs().max() < 1e-9 * step.eta for gradient in gradients)
    best = lagrangian(*parts).item()
    g = torch.Generator().manual_seed(0)
    for _ in range(10):
        other = [part + 0.05 * torch.randn(part.shape, generator=g, **F64) for part in parts]
        assert lagrangian(*other).item() > best


def test_kl_falls_as_eta_rises():
    model, old = system(), random_controller()
    etas = torch.logspace(-6, 6, 25, **F64)
    kls = []
    for eta in etas:
        p, convex = max_entropy_lqr(model, old, eta)
        assert convex
        kls.append(trajectory_kl(p, old, moments(p, model, X0_COV)).item())
    assert all(a > b > 0 for a, b in pairwise(kls))


def test_limits_are_the_old_controller_and_lqr():
    model, old = system(), random_controller()
    small = kl_step(model, old, 1e-10).controller
    for new, before in zip(small, old, strict=True):
        torch.testing.assert_close(new, before, rtol=1e-3, atol=1e-4)
    best = lqr(*model[:6])
    large = kl_step(model, old, 200.0).controller
    torch.testing.assert_close(large.K, best.K, rtol=0, atol=1e-4)
    torch.testing.assert_close(large.k, best.k, rtol=0, atol=1e-3)
    assert large.covariance.abs().max() < 1e-4
    beyond = kl_step(model, old, 1e6)
    assert beyond.converged
    assert beyond.kl < 1e6


def test_a_bound_below_rounding_is_not_met_and_says_so():
    step = kl_step(system(), random_controller(), 1e-19)
    assert not step.converged
    assert step.kl.abs() < 1e-12
    assert all(part.isfinite().all() for part in step.controller)


def test_a_batch_is_each_of_its_problems():
    model, old = system(batch=(2, 2)), random_controller()
    together = kl_step(model, old, 1.0, X0_COV)
    assert together.eta.shape == (2, 2)
    assert together.controller.K.shape == (2, 2, T, m, n)
    for i in range(2):
        for j in range(2):
            one = kl_step(LinearQuadratic(*(part[i, j] for part in model)), old, 1.0, X0_COV)
            torch.testing.assert_close(together.controller.K[i, j], one.controller.K, rtol=1e-6, atol=1e-8)
            torch.testing.assert_close(together.eta[i, j], one.eta, rtol=1e-6, atol=0)


@pytest.mark.parametrize("down", [2.0, 50.0])
def test_an_indefinite_cost_stays_where_the_surrogate_is_convex(down):
    model, old = system(), random_controller()
    model = model._replace(C=model.C - down * torch.eye(n + m, **F64))
    step = kl_step(model, old, 5.0, X0_COV)
    assert step.converged
    assert step.kl.item() == pytest.approx(5.0, rel=1e-6)
    assert (torch.linalg.eigvalsh(step.controller.covariance) > 0).all()


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_the_unit_of_cost_does_not_matter(unit):
    model, old = system(), random_controller()
    scaled = model._replace(
        **{name: unit * getattr(model, name) for name in ("C", "c", "C_final", "c_final")}
    )
    plain, step = kl_step(model, old, 1.0), kl_step(scaled, old, 1.0)
    torch.testing.assert_close(step.controller.K, plain.controller.K, rtol=1e-6, atol=1e-8)
    assert step.eta.item() == pytest.approx(unit * plain.eta.item(), rel=1e-6)


@pytest.mark.parametrize("running", [0.0, 1e-16, 1.0])
@pytest.mark.parametrize("reach", [1e-30, 1.0, 1e12])
@pytest.mark.parametrize("final", ["C_final", "c_final"])
def test_what_costs_at_the_end_alone_counts(final, reach, running):
    """The running cost is small against the final one, or zero; the last step shrinks the state, or blows it
    up, so that eta lies far from the largest entry of the cost."""
    model, old = system(), random_controller()
    zero = {name: running * getattr(model, name) for name in ("C", "c")}
    zero |= {name: 0 * getattr(model, name) for name in ("C_final", "c_final")}
    by = torch.where(torch.arange(T) == T - 1, reach, 1.0).double()[:, None, None]
    model = model._replace(F=by * model.F, f=by[..., 0] * model.f, W=by**2 * model.W)
    model = model._replace(**zero | {final: 1e10 * getattr(model, final)})
    step = kl_step(model, old, 5.0, X0_COV)
    assert step.converged
    assert step.kl.item() == pytest.approx(5.0, rel=1e-6)
    assert expected_cost(model, moments(step.controller, model, X0_COV)) < expected_cost(
        model, moments(old, model, X0_COV)
    )


def test_without_any_cost_the_old_controller_stays():
    model, old = system(), random_controller()
    free = model._replace(**{name: 0 * getattr(model, name) for name in ("C", "c", "C_final", "c_final")})
    step = kl_step(free, old, 5.0)
    assert step.converged
    assert step.kl.item() == pytest.approx(0, abs=1e-9)
    for new, before in zip(step.controller, old, strict=True):
        torch.testing.assert_close(new, before)


SKEW = torch.eye(n, **F64) + torch.ones(n, n, **F64).triu(1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epsilon": 0.0}, "epsilon must be positive"),
        ({"epsilon": math.nan}, "epsilon must be positive"),
        ({"model": system()._replace(f=torch.zeros(T, n + 1, **F64))}, "f must end in"),
        ({"model": system()._replace(c=torch.full((T, n + m), math.nan, **F64))}, "c must be finite"),
        ({"old": random_controller()._replace(k=torch.zeros(T + 1, m, **F64))}, "k must end in"),
        ({"old": random_controller()._replace(k=torch.zeros(T, m))}, "k must be torch.float64 as F is"),
        (
            {"old": random_controller()._replace(covariance=torch.zeros(T, m, m, **F64))},
            "covariance of the old",
        ),
        (
            {"old": random_controller()._replace(covariance=torch.ones(m, m, **F64).triu().expand(T, m, m))},
            "covariance must be symmetric",
        ),
        ({"model": system()._replace(C=torch.ones(n + m, n + m, **F64).triu())}, "C must end in"),
        ({"model": system()._replace(C=system().C.triu())}, "C must be symmetric"),
        ({"model": system()._replace(C_final=SKEW)}, "C_final must be symmetric"),
        ({"model": system()._replace(W=-system().W)}, "W must be positive semidefinite"),
        ({"model": system()._replace(W=SKEW.expand(T, n, n))}, "W must be symmetric"),
        ({"model": system(batch=(2,)), "old": random_controller(batch=(3,))}, "batch dimensions that"),
        ({"x0_cov": torch.zeros(n, **F64)}, "x0_cov must end in"),
        ({"x0_cov": -X0_COV}, "x0_cov must be positive semidefinite"),
        ({"x0_cov": SKEW}, "x0_cov must be symmetric"),
    ],
)
def test_bad_input_is_named(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        kl_step(**{"model": system(), "old": random_controller(), "epsilon": 1.0} | change)
