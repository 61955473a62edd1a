"""LQR in a latent space: the reward's quadratic, the optimum where the model is linear, limits and ties."""

import numpy as np
import pytest
import torch
from torch import nn

from common.types import UsageError
from hw4_model_based.e2c import Linearization, shorten
from hw4_model_based.latent_dynamics import unroll
from hw4_model_based.latent_lqr import (
    ConcaveQuadratic,
    LatentLQRConfig,
    QuadraticE2CModel,
    QuadraticModelConfig,
)
from hw4_model_based.run import SOLAR
from tests.hw4.test_latent_dynamics import SPEC, data

TINY = QuadraticModelConfig(
    latent=3, hidden=(16,), dynamics_hidden=(16,), unroll=2, first_updates=60, updates=5
)
N, T, Z, K = SPEC.num_envs, 4, 3, SPEC.action_dim


class Linear(nn.Module):
    """The same local model everywhere."""

    def __init__(self, generator):
        super().__init__()
        self.reward_net = ConcaveQuadratic(Z, generator)
        with torch.no_grad():
            self.reward_net.w.copy_(torch.tensor([0.3, -0.2, 0.1]))
        self.v, self.r = shorten(torch.randn(2, Z, generator=generator))
        self.B, self.c = 0.3 * torch.randn(Z, K, generator=generator), 0.05 * torch.ones(Z)

    def linearize(self, z):
        shape = z.shape[:-1]
        return Linearization(*(x.expand(*shape, *x.shape) for x in (self.v, self.r, self.B, self.c)))

    def step(self, z, u):
        return self.linearize(z).map(z, u)


def agent(generator, **settings):
    settings = {"horizon": T, "iterations": 1, "damping": (0.0,), "effort": 0.5} | settings
    found = SOLAR(SPEC, LatentLQRConfig(model=TINY, **settings), 0)
    found.model = Linear(generator)
    return found


def states(lqr, z, plans):
    """Of plans [M, N, T, K]: [M, N, T+1, Z]"""
    return unroll(lqr.model.step, z.expand(len(plans), *z.shape), plans.movedim(2, 0)).movedim(0, 2)


def worth(lqr, z, plan):
    return lqr.value(states(lqr, z, plan[None]), plan[None])


def start(generator):
    return 0.3 * torch.randn(N, Z, generator=generator)


def test_the_reward_is_a_concave_quadratic(generator):
    net, z = ConcaveQuadratic(Z, generator), torch.randn(7, Z, generator=generator)
    with torch.no_grad():
        net.w.normal_(generator=generator)
        Q, q = net.cost()
        quadratic = -0.5 * torch.einsum("bi,ij,bj->b", z, Q, z) - z @ q
        found = net(z)[:, 0] - net(torch.zeros(1, Z))[:, 0]
    torch.testing.assert_close(found, quadratic)
    assert torch.linalg.eigvalsh(Q).min() >= -1e-6


def test_where_the_model_is_linear_one_solution_is_the_optimum(generator):
    """The gradient of what the plan is worth vanishes, from any plan before; the limits do not bind here."""
    lqr, z = agent(generator), start(generator)
    for warm in (torch.zeros(N, T, K), torch.rand(N, T, K, generator=generator)):
        plan = lqr.search(z, warm).requires_grad_()
        assert plan.abs().max() < 1
        (slope,) = torch.autograd.grad(worth(lqr, z, plan).sum(), plan)
        assert slope.abs().max() < 1e-5
    assert (worth(lqr, z, plan) > worth(lqr, z, warm)).all()


def test_damping_keeps_the_plan_near_the_last_one(generator):
    lqr, z = agent(generator, damping=(0.0, 1.0, 1e4)), start(generator)
    warm = torch.full((N, T, K), 0.4)
    plans, led = lqr.play(z, *lqr.gains(states(lqr, z, warm[None])[0], warm))
    torch.testing.assert_close(led, states(lqr, z, plans))
    distance = (plans - warm).square().sum((1, 2, 3))
    assert distance[0] > 1.5 * distance[1] > 0
    assert distance[2] < 1e-4


def test_limits_are_kept_and_the_plan_never_gets_worse(generator):
    """Far away, cheap controls: everything is at its limits. Each problem chooses for itself."""
    lqr = agent(generator, effort=1e-3, damping=(0.0, 0.1, 1.0), iterations=4)
    z, plan = 30 * start(generator), torch.zeros(N, T, K)
    before = worth(lqr, z, plan)
    found = lqr.search(z, plan)
    assert found.abs().max() == 1
    assert (worth(lqr, z, found) >= before).all()
    assert (lqr.search(z, found) - found).abs().max() < 1


def test_a_plan_that_is_not_finite_loses(generator):
    lqr, z = agent(generator), start(generator)
    plans = torch.zeros(2, N, T, K)
    plans[0] = torch.nan
    assert (lqr.value(states(lqr, z, plans), plans).argmax(0) == 1).all()


def test_it_learns_from_pixels_and_plans(generator):
    """The model's own parts fit as E2C's do, the quadratic among them; a plan lies within the limits."""
    lqr = SOLAR(SPEC, LatentLQRConfig(model=TINY, horizon=3), 0)
    assert isinstance(lqr.model, QuadraticE2CModel)
    before = [p.detach().clone() for p in lqr.model.reward_net.parameters()]
    batch = data(generator)
    metrics = lqr.update(batch)
    assert np.isfinite(list(metrics.values())).all()
    after = lqr.model.reward_net.parameters()
    assert all((p != q).any() for p, q in zip(before, after, strict=True))
    lqr.begin(np.ones(N, bool))
    action = lqr.act(batch.obs[:N].numpy())
    assert action.shape == (N, K)
    assert np.abs(action).max() <= 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"effort": 0.0}, "effort must be positive"),
        ({"damping": ()}, "damping must hold"),
        ({"damping": (0.0, -1.0)}, "damping must hold"),
    ],
)
def test_bad_settings_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        LatentLQRConfig(**settings)
