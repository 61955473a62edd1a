"""Expectations and variances over every trajectory of a small problem, of a Gaussian by quadrature."""

import math

import numpy as np
import pytest
import torch

from common.distributions import Categorical, DiagonalGaussian
from common.types import EnvSpec, UsageError
from hw2_policy_gradient.baselines import (
    average_baseline,
    categorical_control,
    control_variate_loss,
    gaussian_control,
    leave_one_out_baseline,
    optimal_baseline,
    scores,
)
from hw2_policy_gradient.policies import Policy
from hw2_policy_gradient.returns import reward_to_go, total_return
from tests.hw2.enumeration import F64, A, S, SmallMDP, T, moments

GAMMA = 1.0
MDP = SmallMDP()
LOGITS = MDP.logits
P, SCORE = MDP.probability(LOGITS), MDP.scores(LOGITS)
EXACT = MDP.exact_gradient(LOGITS, GAMMA)
WEIGHTS = {
    "total return": total_return(MDP.reward, MDP.ended, GAMMA, MDP.zero),
    "reward-to-go": reward_to_go(MDP.reward, MDP.ended, GAMMA, MDP.zero),
}
each_weight = pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS.keys())


def estimate(weight: torch.Tensor) -> torch.Tensor:
    """sum_t g_t w_t of every trajectory: [N, P]"""
    return (SCORE * weight[..., None]).sum(0)


def best_constant(weight: torch.Tensor) -> torch.Tensor:
    """The shipped b*; probabilities enter as the square root of both factors."""
    root = P.sqrt()[:, None]
    return optimal_baseline(estimate(weight) * root, SCORE.sum(0) * root)


@each_weight
def test_the_estimates_without_baseline_have_the_exact_mean(weight):
    torch.testing.assert_close(moments(P, estimate(weight))[0], EXACT)


@each_weight
def test_a_baseline_of_the_state_leaves_the_mean(weight):
    """Any function of s_t and t, here noise, and here V itself."""
    noise = torch.randn(T, S, generator=torch.Generator().manual_seed(1), **F64)
    for table in (10 * noise, MDP.value(LOGITS, GAMMA)[:-1]):
        b = table[torch.arange(T)[:, None], MDP.state]
        torch.testing.assert_close(moments(P, estimate(weight - b))[0], EXACT)


def test_a_baseline_of_the_action_alone_changes_the_mean():
    b = MDP.R[MDP.state, MDP.action]
    assert (moments(P, estimate(WEIGHTS["reward-to-go"] - b))[0] - EXACT).norm() > 0.1 * EXACT.norm()


@each_weight
def test_optimal_is_below_average_is_below_none(weight):
    """Exact variances, rewards all positive. 'average' is the true mean over the steps of a trajectory."""
    b_average, b_optimal = (P * weight.mean(0)).sum(), best_constant(weight)
    mean, none = moments(P, estimate(weight))
    average = moments(P, estimate(weight - b_average))[1]
    mean_optimal, optimal = moments(P, estimate(weight - b_optimal))
    torch.testing.assert_close(mean_optimal, EXACT)
    assert optimal < average < none
    for other in torch.linspace(-5, 10, 31):
        assert optimal <= moments(P, estimate(weight - other))[1]
    second = P @ estimate(weight).square().sum(-1) - b_optimal**2 * (P @ SCORE.sum(0).square().sum(-1))
    assert optimal == pytest.approx((second - mean.square().sum()).item())  # the lecture's derivation


def test_v_is_below_every_constant():
    to_go = WEIGHTS["reward-to-go"]
    v = MDP.value(LOGITS, GAMMA)[torch.arange(T)[:, None], MDP.state]
    assert moments(P, estimate(to_go - v))[1] < moments(P, estimate(to_go - best_constant(to_go)))[1]


def test_optimal_of_total_returns_is_the_formula_of_the_lecture():
    """Two trajectories, g = (1, 0) and (0, 2), r = 3 and 6: b* = (1 * 3 + 4 * 6) / (1 + 4) = 5.4."""
    g, r = torch.tensor([[1.0, 0.0], [0.0, 2.0]], **F64), torch.tensor([[3.0], [6.0]], **F64)
    assert optimal_baseline(g * r, g).item() == pytest.approx(5.4)


def test_optimal_of_scores_that_vanish_is_zero():
    zero = torch.zeros(3, 2)
    assert optimal_baseline(zero, zero).item() == 0


@pytest.mark.parametrize(("baseline", "share"), [(average_baseline, 0.5), (leave_one_out_baseline, 1.0)])
def test_own_weight_in_the_average_shrinks_the_gradient_by_one_over_n(baseline, share):
    """Batches of n = 2, every pair of trajectories: half is lost, unless the own one is left out."""
    weight, mean = WEIGHTS["total return"], torch.zeros_like(EXACT)
    for i in range(len(P)):
        for j in range(len(P)):
            pair = [i, j]
            centred = weight[:, pair] - baseline(weight[:, pair])
            mean += P[i] * P[j] * (SCORE[:, pair] * centred[..., None]).sum(0).mean(0)
    torch.testing.assert_close(mean, share * EXACT)


def test_leaving_one_out_stretches_the_difference_from_the_average():
    r = torch.tensor([[1.0, 2.0, 6.0]])
    torch.testing.assert_close(leave_one_out_baseline(r), torch.tensor([[4.0, 3.5, 1.5]]))
    torch.testing.assert_close(r - leave_one_out_baseline(r), 3 / 2 * (r - average_baseline(r)))


def control_gradient(q: torch.Tensor, weight: torch.Tensor, correct: bool = True) -> torch.Tensor:
    """Expected gradient of the shipped loss, every trajectory weighed by its probability: [S A]"""
    logits = LOGITS.clone().requires_grad_()
    pi = Categorical(logits[MDP.state])
    control, expected = categorical_control(pi, MDP.action, q)
    terms = [
        control_variate_loss(log_prob, *rest)
        for log_prob, *rest in zip(
            pi.log_prob(MDP.action).T, weight.T, control.T, expected.T * correct, strict=True
        )
    ]
    (gradient,) = torch.autograd.grad(-(P * torch.stack(terms)).sum() * T, logits)
    return gradient.flatten()


@each_weight
def test_the_control_variate_with_its_correction_is_unbiased(weight):
    """Q is noise: right or wrong, what is taken out is put back."""
    noise = 10 * torch.randn(T, S, A, generator=torch.Generator().manual_seed(1), **F64)
    q = noise[torch.arange(T)[:, None], MDP.state]  # [T, N, A]
    torch.testing.assert_close(control_gradient(q, weight), EXACT)
    assert (control_gradient(q, weight, correct=False) - EXACT).norm() > 0.1 * EXACT.norm()


def test_the_true_q_as_control_is_below_v():
    """g_t (G_t - Q) + E_a[grad log pi Q] against g_t (G_t - V)."""
    value, pi = MDP.value(LOGITS, GAMMA), LOGITS.softmax(-1)
    q = MDP.R + GAMMA * torch.einsum("san,tn->tsa", MDP.P, value[1:])  # [T, S, A]
    t = torch.arange(T)[:, None]
    q_taken, v = q[t, MDP.state, MDP.action], value[t, MDP.state]
    expected = torch.zeros_like(SCORE).unflatten(-1, (S, A))
    slope = pi * (q - value[:-1, :, None])  # d E_a[Q] / d logits of the same state: [T, S, A]
    for s in range(S):
        expected[..., s, :] = slope[t, MDP.state] * (MDP.state == s)[..., None]
    to_go = WEIGHTS["reward-to-go"]
    mean, variance = moments(P, estimate(to_go - q_taken) + expected.flatten(-2).sum(0))
    torch.testing.assert_close(mean, EXACT)
    assert variance < moments(P, estimate(to_go - v))[1]


def quadrature(mean: float, std: float, points: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and weights of E[f(a)], a ~ N(mean, std^2); exact for polynomials."""
    x, w = np.polynomial.hermite_e.hermegauss(points)
    return mean + std * torch.as_tensor(x), torch.as_tensor(w / w.sum())


@pytest.mark.parametrize("q", [lambda a: 3 * a.sum(-1), lambda a: (a**3 - 2 * a).sum(-1)])
def test_the_tangent_of_a_gaussian_policy_is_unbiased(q):
    """Bandit with reward r(a) = a^3 - a^2: d E[r] / d mean = 3 (mean^2 + std^2) - 2 mean, and
    d / d log std = (6 mean - 2) std^2, whatever Q; and the better Q lowers the variance."""
    mean = torch.tensor([[0.7]], **F64, requires_grad=True)
    log_std = torch.tensor([math.log(0.5)], **F64, requires_grad=True)
    a, w = quadrature(0.7, 0.5)
    pi = DiagonalGaussian(mean.expand(len(a), 1), log_std)
    control, expected = gaussian_control(pi, a[:, None], q)
    loss = control_variate_loss(pi.log_prob(a[:, None]) * w, a**3 - a**2, control, expected * w) * len(a)
    got = torch.autograd.grad(-loss, (mean, log_std))
    assert got[0].item() == pytest.approx(3 * (0.7**2 + 0.25) - 2 * 0.7, rel=1e-9)
    assert got[1].item() == pytest.approx((6 * 0.7 - 2) * 0.25, rel=1e-9)


def test_a_linear_q_is_its_own_tangent():
    """Q = 2 a_1 - a_2: control = Q(a), expectation Q(mean); the gradient in the mean is (2, -1)."""
    mean = torch.randn(5, 2, **F64, requires_grad=True)
    pi, action, slope = DiagonalGaussian(mean, torch.zeros(2, **F64)), torch.randn(5, 2, **F64), [2.0, -1.0]
    control, expected = gaussian_control(pi, action, lambda a: a @ torch.tensor(slope, **F64))
    torch.testing.assert_close(control, action @ torch.tensor(slope, **F64))
    torch.testing.assert_close(expected, mean @ torch.tensor(slope, **F64))
    (gradient,) = torch.autograd.grad(expected.sum(), mean)
    torch.testing.assert_close(gradient, torch.tensor(slope, **F64).expand(5, 2))


def test_no_gradient_enters_weight_or_control():
    numbers = torch.ones(2, 3, requires_grad=True)
    log_prob, expected = torch.zeros(2, 2, 3, requires_grad=True).unbind()
    control_variate_loss(log_prob, numbers, numbers, expected).backward()
    assert numbers.grad is None
    q = torch.ones(2, 3, 2, requires_grad=True)
    parts = categorical_control(Categorical(torch.zeros(2, 3, 2)), torch.zeros(2, 3).long(), q)
    assert not any(part.requires_grad for part in parts)


@pytest.mark.parametrize("discrete", [True, False])
def test_scores_are_the_gradients_of_one_sample_at_a_time(discrete):
    spec, g = EnvSpec(3, 2, 4, discrete), torch.Generator().manual_seed(0)
    policy = Policy(spec, (8,), 0.3, False, g)
    obs = torch.randn(7, 2, generator=g)
    action = policy(obs).sample(g).detach()
    rows = scores(policy, obs, action, chunk_size=3)
    for row, o, a in zip(rows, obs, action, strict=True):
        each = torch.autograd.grad(policy(o[None]).log_prob(a[None]).sum(), [*policy.parameters()])
        torch.testing.assert_close(row, torch.cat([x.flatten() for x in each]))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: average_baseline(torch.ones(0, 2)), "weight must hold"),
        (lambda: average_baseline(torch.tensor([[math.nan]])), "weight must be finite"),
        (lambda: leave_one_out_baseline(torch.ones(5, 1)), r"N at least 2, got \[5, 1\]"),
        (lambda: leave_one_out_baseline(torch.ones(5)), "weight must be"),
        (lambda: optimal_baseline(torch.ones(5, 2), torch.ones(5, 3)), "gradient and score must be"),
        (lambda: optimal_baseline(torch.ones(0, 2), torch.ones(0, 2)), "not empty"),
        (lambda: optimal_baseline(torch.ones(5, 2), torch.full((5, 2), math.inf)), "finite"),
    ],
)
def test_bad_input_is_named(call, name):
    with pytest.raises(UsageError, match=name):
        call()
