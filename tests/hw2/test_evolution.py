"""The gradient of a smoothed quadratic in closed form, pairs, ranks, and policies side by side."""

import copy
import math

import numpy as np
import pytest
import torch

from common import checkpoint
from common.population import Episodes
from common.types import EnvSpec, UsageError
from hw2_policy_gradient.evolution import (
    CMAES,
    CMAESConfig,
    Evolution,
    EvolutionConfig,
    best_pairs,
    centred_ranks,
    search_gradient,
    side_by_side,
    standardised,
)
from tests.helpers import CPU

DISCRETE = EnvSpec(num_envs=4, obs_dim=3, action_dim=2, discrete=True)
CONTINUOUS = EnvSpec(num_envs=4, obs_dim=3, action_dim=2, discrete=False)
each_spec = pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
A = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 3.0]], dtype=torch.float64)
B = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
THETA = torch.tensor([0.3, 0.7, -0.2], dtype=torch.float64)


def quadratic(x):
    """5 + b'x - x'Ax/2: smoothing takes sigma^2 tr(A)/2 off; the gradient is b - A x for any sigma."""
    return 5 + x @ B - 0.5 * ((x @ A) * x).sum(-1)


def evolution(spec=CONTINUOUS, **config) -> Evolution:
    return Evolution(spec, EvolutionConfig(**config), CPU, seed=0)


def cma(spec=CONTINUOUS, **config) -> CMAES:
    return CMAES(spec, CMAESConfig(**config), CPU, seed=0)


def theta_of(search) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(search.policy.net.parameters()).detach()


def episodes(returns) -> Episodes:
    return Episodes(np.asarray(returns, np.float64), 100, np.ones(3), np.full(3, 4.0))


@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_gradient_of_a_smoothed_quadratic_is_its_closed_form(sigma):
    """Gauss-Hermite nodes in each dimension make of the expectation a sum that is exact for polynomials."""
    node, weight = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(4))
    eps, p = torch.cartesian_prod(node, node, node), torch.cartesian_prod(weight, weight, weight).prod(1)
    p = p / p.sum()
    f = quadratic(THETA + sigma * eps)
    torch.testing.assert_close(search_gradient(len(p) * p * f, eps, sigma), B - A @ THETA)
    torch.testing.assert_close(p @ f, quadratic(THETA) - sigma**2 * A.trace() / 2)


def test_pairs_are_no_bias_and_lower_the_variance(generator):
    """The even part of f cancels in a pair, and what is left of this one is eps eps'g, g = b - A theta,
    with mean g and variance (d + 1) |g|^2. Two single members have about f^2 d / 2 sigma^2 more, f = 3.2."""
    sigma, n = 0.1, 4000
    eps = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    both = torch.stack((eps, -eps), 1)  # [n, 2, 3]
    other = torch.randn(n, 2, 3, generator=generator, dtype=torch.float64)
    estimate = torch.func.vmap(lambda x: search_gradient(quadratic(THETA + sigma * x), x, sigma))
    g = B - A @ THETA
    torch.testing.assert_close(estimate(both), eps * (eps @ g)[:, None])
    assert estimate(both).var(0).sum().item() == pytest.approx(4 * (g @ g).item(), rel=0.1)
    assert estimate(other).var(0).sum() > 20 * estimate(both).var(0).sum()


def test_centred_ranks_by_hand():
    x = torch.tensor([3.0, -1.0, 7.0, 3.0, 3.0])
    assert centred_ranks(x).tolist() == [0.0, -0.5, 0.5, 0.0, 0.0]
    assert centred_ranks(torch.full((4,), 500.0)).tolist() == [0.0] * 4
    assert centred_ranks(torch.tensor([4.0, 2.0])).tolist() == [0.5, -0.5]


@pytest.mark.parametrize(
    "increasing", [torch.exp, lambda x: x**3, lambda x: 1e6 * x - 3], ids=["exp", "cube", "line"]
)
def test_ranks_are_the_same_for_any_increasing_function(increasing, generator):
    x = torch.randn(50, generator=generator, dtype=torch.float64)
    assert centred_ranks(increasing(x)).equal(centred_ranks(x))
    assert not torch.allclose(standardised(x**3), standardised(x))


def test_an_increasing_function_of_the_return_changes_nothing_of_the_search():
    returns = np.random.default_rng(0).normal(size=16)
    for make in (evolution, cma):
        first, second = make(), make()
        first.update(episodes(returns))
        second.update(episodes(np.exp(returns)))
        assert all(map(torch.equal, first.policy.parameters(), second.policy.parameters()))


def test_standardised_returns_survive_being_equal():
    assert standardised(torch.tensor([1.0, 3.0])).tolist() == [-1.0, 1.0]
    assert standardised(torch.full((6,), 0.1, dtype=torch.float64)).abs().max() < 1e-6


def test_best_pairs_are_those_of_the_best_members():
    """Pairs (0, 9), (5, 5), (8, 1), (2, 3): by their better ones 9, 5, 8, 3."""
    returns = torch.tensor([0.0, 9.0, 5.0, 5.0, 8.0, 1.0, 2.0, 3.0])
    assert best_pairs(returns, 0.5).tolist() == [0, 1, 4, 5]
    assert best_pairs(returns, 0.01).tolist() == [0, 1]
    assert best_pairs(returns, 1.0).sort().values.tolist() == list(range(8))


def test_noise_is_that_of_the_seed_the_generation_and_the_member():
    search = evolution()
    whole = search.noise(range(16))
    assert whole[0::2].equal(-whole[1::2])
    assert search.noise([5, 2]).equal(whole[[5, 2]])
    assert len({row.sum().item() for row in whole[0::2]}) == 8
    search.update(episodes(range(16)))
    assert not search.noise([0]).equal(whole[[0]])
    assert not Evolution(CONTINUOUS, EvolutionConfig(), CPU, seed=1).noise([0]).equal(whole[[0]])


@each_spec
@pytest.mark.parametrize("hidden", [(), (5, 4)])
def test_policies_side_by_side_act_as_each_alone(spec, hidden, generator):
    policy = evolution(spec, hidden=hidden, normalize_obs=True).policy
    policy.normalize.update(torch.randn(20, 3, generator=generator) * 4 + 1)
    parameters = torch.randn(4, sum(p.numel() for p in policy.net.parameters()), generator=generator)
    obs = torch.randn(4, 3, generator=generator).numpy()
    together = side_by_side(policy, parameters)(obs)
    assert together.shape == ((4,) if spec.discrete else (4, 2))
    for k in range(4):
        torch.nn.utils.vector_to_parameters(parameters[k], policy.net.parameters())
        np.testing.assert_allclose(policy.act(obs[k : k + 1])[0], together[k], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [evolution, cma])
def test_a_generation_is_the_whole_of_its_groups(make):
    search, obs = make(population=8), np.ones((8, 3), np.float32)
    whole = search.members(0, 8)(obs)
    parts = [search.members(first, 2)(obs[:2]) for first in range(0, 8, 2)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-6)


def test_update_is_one_step_up_the_gradient():
    """theta + lr mean f eps / sigma of the chosen, here all, with their ranks for f."""
    search = evolution(population=4, best=1.0, lr=0.3, sigma=0.2)
    theta, eps = (
        torch.nn.utils.parameters_to_vector(search.policy.net.parameters()).detach(),
        search.noise(range(4)),
    )
    metrics = search.update(episodes([4.0, 1.0, 2.0, 3.0]))
    step = 0.3 / (4 * 0.2) * (0.5 * eps[0] - 0.5 * eps[1] - eps[2] / 6 + eps[3] / 6)
    torch.testing.assert_close(theta_of(search), theta + step)
    assert metrics["grad/norm"] == pytest.approx(step.norm().item() / 0.3, rel=1e-5)


def test_equal_returns_move_nothing():
    for fitness in ("ranks", "returns"):
        search = evolution(fitness=fitness)
        before = [p.clone() for p in search.policy.parameters()]
        search.update(episodes([500.0] * 16))
        for p, old in zip(search.policy.parameters(), before, strict=True):
            torch.testing.assert_close(p, old)


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (evolution, {"fitness": "ranks"}),
        (evolution, {"fitness": "returns", "lr": 0.01}),
        (cma, {}),
    ],
    ids=["ranks", "returns", "cma-es"],
)
def test_a_search_climbs_a_quadratic(make, config):
    """-|theta - 1|^2 over eight parameters, from -8. Measured in five seeds: above -0.2."""
    search = make(**config)
    for _ in range(150):
        search.update(episodes(-(search.parameters(range(16)) - 1).square().sum(1)))
    assert -(theta_of(search) - 1).square().sum() > -0.5


def test_observation_statistics_are_taken_in_if_asked():
    for on in (True, False):
        search = evolution(normalize_obs=on)
        search.update(episodes(range(16)))
        if on:
            assert search.policy.normalize.mean.tolist() == [1.0] * 3
            assert search.policy.normalize.var.tolist() == [4.0] * 3


@pytest.mark.parametrize("make", [evolution, cma])
def test_a_search_goes_on_from_its_state(make):
    first, second = make(normalize_obs=True), make(normalize_obs=True)
    first.update(episodes(range(16)))
    checkpoint.restore(second, copy.deepcopy(checkpoint.state_of(first)))
    for search in (first, second):
        search.update(episodes(np.arange(16)[::-1]))
    obs = np.random.default_rng(0).normal(size=(16, 3))
    assert all(map(torch.equal, first.policy.parameters(), second.policy.parameters()))
    assert np.array_equal(first.members(0, 16)(obs), second.members(0, 16)(obs))


@pytest.mark.parametrize(
    "change",
    [
        {"population": 0}, {"population": 7}, {"sigma": 0.0}, {"sigma": math.nan}, {"lr": -1.0},
        {"lr": math.inf}, {"best": 0.0}, {"best": 1.1}, {"best": math.nan}, {"hidden": (0,)},
    ],
)  # fmt: skip
def test_bad_settings_of_evolution_are_named(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        EvolutionConfig(**change)


@pytest.mark.parametrize("change", [{"population": 3}, {"sigma": -1.0}, {"hidden": (-1,)}])
def test_bad_settings_of_cma_es_are_named(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        CMAESConfig(**change)


def test_a_covariance_that_would_not_fit_is_refused():
    with pytest.raises(UsageError, match="hidden must leave at most 2000 parameters"):
        cma(hidden=(64, 64))
