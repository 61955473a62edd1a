import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from common.distributions import DiagonalGaussian
from common.types import EnvSpec, UsageError
from hw2_policy_gradient.natural_gradient import (
    NaturalGradient,
    NaturalGradientConfig,
    fisher,
    fisher_vector_product,
    fit_value,
    natural_step,
    policy_gradient,
)
from hw2_policy_gradient.policies import Policy
from hw2_policy_gradient.returns import critic_advantage, standardize
from tests.helpers import CPU, random_rollout

DISCRETE = EnvSpec(num_envs=4, obs_dim=3, action_dim=3, discrete=True)
CONTINUOUS = EnvSpec(num_envs=4, obs_dim=3, action_dim=2, discrete=False)
BOTH = pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])


def small_policy(spec: EnvSpec, dtype=torch.float64) -> Policy:
    """50 or so parameters, away from the uniform policy and from unit variance."""
    g = torch.Generator().manual_seed(0)
    policy = Policy(spec, (4,), -0.3, False, g).to(dtype)
    for p in policy.parameters():
        p.data += 0.5 * torch.randn(p.shape, generator=g)
    return policy


def observations(policy: Policy, count: int = 6) -> torch.Tensor:
    like = next(policy.parameters())
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(1)).to(like)


def count(policy: Policy) -> int:
    return sum(p.numel() for p in policy.parameters())


def gradient(policy: Policy, obs: torch.Tensor) -> torch.Tensor:
    """A policy gradient by sampled actions, the advantage the first observed number."""
    with torch.no_grad():
        action = policy(obs).sample(torch.Generator().manual_seed(2))
    return policy_gradient(policy, obs, action, obs[:, 0])


def score(policy: Policy, obs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """grad log pi(a|s): [P]."""
    log_prob = policy(obs).log_prob(action)
    return parameters_to_vector(torch.autograd.grad(log_prob, [*policy.parameters()]))


def dense_fisher(policy: Policy, obs: torch.Tensor) -> torch.Tensor:
    """mean_s E_a[grad log pi grad log pi^T] from its definition: [P, P].

    The expectation is a sum over all actions, or for a Gaussian the Gauss-Hermite rule, which is exact here:
    the score is quadratic in the action.
    """
    total = 0
    for s in obs:
        pi = policy(s)
        if hasattr(pi, "log_p"):
            weighted = [(p.item(), torch.tensor(a)) for a, p in enumerate(pi.log_p.exp())]
        else:  # nodes and weights of E[f(z)], z ~ N(0, 1), exact up to degree 5
            node = torch.tensor([-math.sqrt(3), 0.0, math.sqrt(3)], dtype=torch.float64)
            noise, weight = torch.cartesian_prod(node, node), torch.tensor([1, 4, 1]).double() / 6
            action = (pi.mean + pi.log_std.exp() * noise).detach()
            weighted = [*zip(torch.outer(weight, weight).flatten().tolist(), action, strict=True)]
        for p, action in weighted:
            g = score(policy, s, action)
            total = total + p * torch.outer(g, g)
    return total / len(obs)


@BOTH
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_product_is_that_with_the_dense_fisher_matrix(spec, dtype, error):
    policy = small_policy(spec, dtype)
    obs = observations(policy)
    dense = dense_fisher(small_policy(spec), observations(small_policy(spec)))
    for seed in range(5):
        v = torch.randn(len(dense), generator=torch.Generator().manual_seed(seed), dtype=dtype)
        product = fisher_vector_product(policy, obs, v, damping=0.0)
        assert product.dtype == dtype
        assert (product - dense @ v.double()).abs().max() < error * dense.norm() * v.norm()
        damped = fisher_vector_product(policy, obs, v, damping=0.25)
        torch.testing.assert_close(damped, product + 0.25 * v)


@BOTH
def test_fisher_is_symmetric_and_never_negative(spec):
    policy = small_policy(spec)
    product, size = fisher(policy, observations(policy), damping=0.0), count(policy)
    matrix = torch.stack([product(e) for e in torch.eye(size, dtype=torch.float64)])
    torch.testing.assert_close(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix).min() > -1e-12


@BOTH
def test_fisher_of_a_rollout_is_the_mean_over_its_states(spec):
    policy = small_policy(spec)
    obs = observations(policy, 6)
    v = torch.randn(count(policy)).double()
    each = torch.stack([fisher_vector_product(policy, s, v, 0.1) for s in obs])
    torch.testing.assert_close(fisher_vector_product(policy, obs.view(2, 3, 3), v, 0.1), each.mean(0))


@BOTH
def test_product_leaves_the_policy_as_it_is(spec):
    policy = small_policy(spec)
    before = parameters_to_vector(policy.parameters()).clone()
    fisher_vector_product(policy, observations(policy), torch.ones_like(before), 0.1)
    assert torch.equal(parameters_to_vector(policy.parameters()), before)
    assert all(p.grad is None for p in policy.parameters())


def test_product_takes_the_vector_as_a_constant_with_or_without_autograd():
    """A gradient that still hangs on the parameters must not be differentiated once more."""
    policy = small_policy(DISCRETE)
    obs, attached = observations(policy), parameters_to_vector(policy.parameters())
    expected = fisher_vector_product(policy, obs, attached.detach(), 0.1)
    torch.testing.assert_close(fisher_vector_product(policy, obs, attached, 0.1), expected)
    assert not fisher_vector_product(policy, obs, attached, 0.1).requires_grad
    with torch.no_grad():
        torch.testing.assert_close(fisher_vector_product(policy, obs, attached, 0.1), expected)


def kl_of_step(policy: Policy, obs: torch.Tensor, step: torch.Tensor) -> float:
    """The true KL(old || old + step), the policy put back."""
    parameters = [*policy.parameters()]
    theta, pi_old = parameters_to_vector(parameters).detach(), policy(obs).frozen()
    vector_to_parameters(theta + step, parameters)
    kl = pi_old.kl(policy(obs)).mean().item()
    vector_to_parameters(theta, parameters)
    return kl


@BOTH
def test_kl_of_the_step_is_max_kl_to_second_order(spec):
    """KL = max_kl + O(|step|^3) and |step|^2 ~ max_kl: a hundredth of it, a tenth of the relative error."""
    policy = small_policy(spec)
    obs = observations(policy, 40)
    product = fisher(policy, obs, damping=0.0)
    g = gradient(policy, obs)
    error = {}
    for max_kl in (1e-2, 1e-4, 1e-6, 1e-8):
        step = natural_step(g, product, max_kl, iterations=3)
        error[max_kl] = abs(kl_of_step(policy, obs, step) / max_kl - 1)
    assert error[1e-4] < 0.1
    for max_kl in (1e-4, 1e-6):
        assert error[max_kl / 100] == pytest.approx(error[max_kl] / 10, rel=0.3)


@pytest.mark.parametrize("iterations", [1, 3, None])
def test_second_order_kl_is_exact_however_early_conjugate_gradient_stops(iterations):
    policy = small_policy(DISCRETE)
    product = fisher(policy, observations(policy), damping=0.1)
    g = torch.linspace(-1, 1, count(policy), dtype=torch.float64)
    step = natural_step(g, product, 0.02, iterations)
    assert 0.5 * (step @ product(step)).item() == pytest.approx(0.02, rel=1e-9)
    assert step @ g > 0


@BOTH
def test_step_points_along_the_dense_inverse(spec):
    policy = small_policy(spec)
    obs = observations(policy)
    damped = dense_fisher(policy, obs) + 0.1 * torch.eye(count(policy), dtype=torch.float64)
    g = gradient(policy, obs)
    x = torch.linalg.solve(damped, g)
    expected = x * (2 * 0.01 / (g @ x)).sqrt()
    step = natural_step(g, fisher(policy, obs, 0.1), 0.01)
    torch.testing.assert_close(step, expected)
    assert nn.functional.cosine_similarity(step, g, dim=0) < 0.9


def test_with_the_identity_for_f_the_step_is_the_policy_gradient():
    """theta' - theta = sqrt(2 eps / g^T g) g."""
    g = torch.randn(20, generator=torch.Generator().manual_seed(0))
    step = natural_step(g, lambda v: v, 0.02)
    torch.testing.assert_close(step, math.sqrt(2 * 0.02) * g / g.norm())


class Bandit(nn.Module):
    """N(M phi, diag(std)^2) whatever is observed; phi [2] is all there is to learn."""

    def __init__(self, std: list[float], basis: list[list[float]]):
        super().__init__()
        self.phi = nn.Parameter(torch.tensor([0.3, -0.2], dtype=torch.float64))
        self.log_std, self.basis = torch.tensor(std).double().log(), torch.tensor(basis).double()

    def forward(self, obs: torch.Tensor) -> DiagonalGaussian:
        return DiagonalGaussian((self.basis @ self.phi).expand(len(obs), 2), self.log_std)


UNIT = [[1.0, 0.0], [0.0, 1.0]]


def test_direction_on_a_gaussian_is_free_of_its_covariance(generator):
    """g = Sigma^-1 E[(a - mu) A] and F = Sigma^-1, so that F^-1 g = E[(a - mu) A] for every Sigma, while g
    turns towards whatever varies least."""
    obs = torch.zeros(50, 1)
    action, advantage = torch.randn(50, 2, generator=generator).double(), torch.linspace(-1, 2, 50).double()
    directions, gradients = [], []
    for std in ([1.0, 1.0], [0.1, 2.0], [3.0, 0.2]):
        policy = Bandit(std, UNIT)
        g = policy_gradient(policy, obs, action, advantage)
        directions.append(nn.functional.normalize(natural_step(g, fisher(policy, obs, 0.0), 0.01), dim=0))
        gradients.append(nn.functional.normalize(g, dim=0))
    expected = ((action - policy.phi.detach()) * advantage[:, None]).mean(0)
    for direction in directions:
        torch.testing.assert_close(direction, expected / expected.norm())
    assert gradients[1] @ gradients[2] < 0.5


def test_step_of_the_policy_does_not_depend_on_its_parameters(generator):
    """Covariance (Kakade 2001): mean = M phi takes the same step of its mean for every invertible M."""
    obs = torch.zeros(50, 1)
    action, advantage = torch.randn(50, 2, generator=generator).double(), torch.linspace(-1, 2, 50).double()
    moves = []
    for basis in (UNIT, [[3.0, 1.0], [-2.0, 0.5]]):
        policy = Bandit([0.5, 2.0], basis)
        policy.phi.data = torch.linalg.solve(policy.basis, torch.tensor([0.3, -0.2]).double())
        g = policy_gradient(policy, obs, action, advantage)
        moves.append(policy.basis @ natural_step(g, fisher(policy, obs, 0.0), 0.01))
    torch.testing.assert_close(moves[0], moves[1])


@BOTH
def test_policy_gradient_is_that_of_the_importance_weighted_surrogate(spec):
    """grad E[log pi A] = grad E[pi / pi_old A] at pi_old."""
    policy, rollout = small_policy(spec, torch.float32), random_rollout(spec, 8)
    log_prob = policy(rollout.obs).log_prob(rollout.action)
    surrogate = ((log_prob - log_prob.detach()).exp() * rollout.reward).mean()
    expected = parameters_to_vector(torch.autograd.grad(surrogate, [*policy.parameters()]))
    g = policy_gradient(policy, rollout.obs, rollout.action, rollout.reward)
    torch.testing.assert_close(g, expected)


def agent(spec: EnvSpec = DISCRETE, **config) -> NaturalGradient:
    return NaturalGradient(spec, NaturalGradientConfig(**config), total_updates=10, device=CPU, seed=0)


@BOTH
def test_update_takes_the_natural_step_of_the_standardised_advantages(spec):
    learner, rollout = agent(spec), random_rollout(spec, 30)
    theta = parameters_to_vector(learner.policy.parameters()).detach()
    critic = (learner.value, rollout, rollout.obs, rollout.next_obs)
    advantage, _ = critic_advantage(*critic, learner.config.gamma, learner.config.lam)
    g = policy_gradient(learner.policy, rollout.obs, rollout.action, standardize(advantage))
    step = natural_step(g, fisher(learner.policy, rollout.obs, 0.1), 0.01, 10)
    metrics = learner.update(rollout)
    moved = parameters_to_vector(learner.policy.parameters()).detach() - theta
    torch.testing.assert_close(moved, step, rtol=1e-4, atol=1e-6)
    assert 0.001 < metrics["policy/kl"] < 0.02


@pytest.mark.parametrize("decay", [True, False])
def test_length_of_the_step_falls_to_zero_over_the_run_if_asked(decay):
    """The bound of update k of 10 is max_kl (1 - k / 10), the step as long as its root."""
    learner, rollout = agent(max_kl_decay=decay), random_rollout(DISCRETE, 8)
    start, lengths = parameters_to_vector(learner.policy.parameters()).detach(), []
    for k in (0, 5, 9, 10, 11):
        learner.updates = k
        learner.actor_step(rollout.obs, rollout.action, rollout.reward)
        lengths.append((parameters_to_vector(learner.policy.parameters()).detach() - start).norm().item())
        vector_to_parameters(start, learner.policy.parameters())
    factors = [1, 0.5**0.5, 0.1**0.5, 0, 0] if decay else [1] * 5
    assert lengths == pytest.approx([f * lengths[0] for f in factors], rel=1e-3, abs=1e-6)


def test_an_advantage_without_differences_moves_nothing():
    """Equal rewards, a critic that knows them: 0 / 0 of the step length must not appear."""
    learner, rollout = agent(), random_rollout(DISCRETE, 8)
    theta = parameters_to_vector(learner.policy.parameters()).detach()
    metrics = learner.actor_step(rollout.obs, rollout.action, torch.zeros(8, 4))
    assert torch.equal(parameters_to_vector(learner.policy.parameters()), theta)
    assert metrics["policy/kl"] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("factor", [1e-30, 1.0, 1e30])
def test_length_of_the_gradient_does_not_matter(factor):
    """Its square would vanish or overflow in float32."""
    g = torch.tensor([3.0, 4.0])
    torch.testing.assert_close(natural_step(factor * g, lambda v: 2 * v, 0.25), torch.tensor([0.3, 0.4]))


def test_critic_is_fitted_in_minibatches_of_every_row(generator):
    value = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(value.parameters(), 0.05)
    obs = torch.randn(50, 2, generator=generator)
    seen, target = [], obs @ torch.tensor([1.0, -2.0]) + 3
    value.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    first = fit_value(value, optimizer, obs, target, 1, 16, generator)
    assert [len(rows) for rows in seen] == [16, 16, 16, 2]
    torch.testing.assert_close(torch.cat(seen)[:, 0].sort().values, obs[:, 0].sort().values)
    assert not torch.equal(torch.cat(seen), obs)
    last = fit_value(value, optimizer, obs, target, 100, 16, generator)
    assert last < 0.1 * first
    torch.testing.assert_close(value(obs).squeeze(-1), target, rtol=0.05, atol=0.05)


def test_observation_statistics_wait_until_the_update_is_over():
    learner, rollout = agent(normalize_obs=True), random_rollout(DISCRETE, 16)
    seen = []
    learner.actor_step = lambda obs, *others: seen.append(obs) or {}
    learner.update(rollout)
    learner.update(rollout)
    torch.testing.assert_close(seen[0], rollout.obs.clamp(-10, 10))
    assert abs(seen[1].mean((0, 1))).max() < 1e-5


def test_rewards_are_scaled_for_learning_only_if_asked():
    rollout = random_rollout(DISCRETE, 16)
    big = rollout._replace(reward=1000 * rollout.reward)
    assert agent().update(big)["loss/value"] > 1e4
    assert agent(normalize_reward=True).update(big)["loss/value"] < 100


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 1.01}, {"lam": -0.5}, {"max_kl": 0.0}, {"damping": 0.0}, {"cg_iterations": 0},
        {"value_lr": math.nan}, {"value_epochs": 0}, {"batch_size": 0}, {"hidden": (0,)}, {"log_std": 99.0},
    ],
)  # fmt: skip
def test_bad_settings_are_named(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        NaturalGradientConfig(**change)


def test_bad_arguments_are_named():
    policy = small_policy(DISCRETE)
    obs, v = observations(policy), parameters_to_vector(policy.parameters()).detach()
    for args, name in (
        ((obs[:0], v, 0.1), "obs"),
        ((obs * math.nan, v, 0.1), "obs"),
        ((obs, v[1:], 0.1), "vector"),
        ((obs, v.float(), 0.1), "vector"),
        ((obs, v * math.nan, 0.1), "vector"),
        ((obs, v, -0.1), "damping"),
        ((obs, v, math.nan), "damping"),
    ):
        with pytest.raises(UsageError, match=name):
            fisher_vector_product(policy, *args)
    for g, max_kl, name in ((v, -0.1, "max_kl"), (v, math.nan, "max_kl"), (v * math.nan, 0.1, "gradient")):
        with pytest.raises(UsageError, match=name):
            natural_step(g, lambda x: x, max_kl)
