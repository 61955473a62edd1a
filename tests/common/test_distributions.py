import numpy as np
import pytest
import torch

from common.distributions import Categorical, DiagonalGaussian


def pair(kind, generator):
    """Two of a kind of ours, and the same two of torch.distributions, float64."""
    if kind is Categorical:
        logits = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
        theirs = [torch.distributions.Categorical(logits=x) for x in logits]
        return [Categorical(x) for x in logits], theirs
    mean = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    log_std = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    theirs = [
        torch.distributions.Independent(torch.distributions.Normal(m, s.exp()), 1)
        for m, s in zip(mean, log_std, strict=True)
    ]
    return [DiagonalGaussian(m, s) for m, s in zip(mean, log_std, strict=True)], theirs


@pytest.mark.parametrize("kind", [Categorical, DiagonalGaussian])
def test_agrees_with_torch(kind, generator):
    (p, q), (their_p, their_q) = pair(kind, generator)
    action = p.sample(generator)
    assert action.shape == their_p.sample().shape
    torch.testing.assert_close(p.log_prob(action), their_p.log_prob(action))
    torch.testing.assert_close(p.entropy(), their_p.entropy())
    torch.testing.assert_close(p.kl(q), torch.distributions.kl_divergence(their_p, their_q))


@pytest.mark.parametrize("kind", [Categorical, DiagonalGaussian])
def test_entropy_is_minus_the_mean_log_prob_of_samples(kind, generator):
    (p, _), _ = pair(kind, generator)
    log_p = torch.stack([p.log_prob(p.sample(generator)) for _ in range(20_000)])
    error = 4 * log_p.std(0) / len(log_p) ** 0.5
    assert (abs(-log_p.mean(0) - p.entropy()) < error).all()


@pytest.mark.parametrize("kind", [Categorical, DiagonalGaussian])
def test_kl_is_zero_on_itself_and_positive_elsewhere(kind, generator):
    (p, q), _ = pair(kind, generator)
    torch.testing.assert_close(p.kl(p), torch.zeros(5, dtype=torch.float64))
    assert (p.kl(q) > 0).all()


@pytest.mark.parametrize("kind", [Categorical, DiagonalGaussian])
def test_information_is_the_curvature_of_the_divergence(kind, generator):
    """By the numbers that a network puts out for five states: logits, or means and one log sigma."""
    logits = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    numbers = (logits,) if kind is Categorical else (logits, logits[0])
    fixed = kind(*numbers)

    def kl(*numbers):
        return fixed.kl(kind(*numbers)).sum()

    hessian = torch.autograd.functional.hessian(kl, numbers)
    size = sum(x.numel() for x in numbers)
    expected = torch.cat(
        [
            torch.cat([h.reshape(x.numel(), -1) for h in row], 1)
            for x, row in zip(numbers, hessian, strict=True)
        ]
    )
    fisher = torch.zeros(size, size, dtype=torch.float64)
    leaves = [x.clone().requires_grad_() for x in numbers]
    for x, w in kind(*leaves).information():
        assert not w.requires_grad
        for value, weight in zip(x.flatten(), w.flatten(), strict=True):
            grads = torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True)
            g = torch.cat([grad.flatten() for grad in grads])
            fisher += weight * torch.outer(g, g)
    torch.testing.assert_close(fisher, expected)


def test_samples_follow_the_probabilities(generator):
    p = torch.tensor([0.1, 0.2, 0.7])
    drawn = Categorical(p.log().expand(30_000, 3)).sample(generator)
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), p, atol=4 * (0.25 / 30_000) ** 0.5)


def test_modes():
    assert Categorical(torch.tensor([[0.0, 2.0, 1.0]])).mode().tolist() == [1]
    assert DiagonalGaussian(torch.tensor([[3.0]]), torch.zeros(1)).mode().tolist() == [[3.0]]


def test_large_logits_stay_finite():
    p = Categorical(torch.tensor([[1e4, 0.0]]))
    assert p.log_prob(torch.tensor([0])).item() == 0.0
    assert torch.isfinite(p.entropy()).all()


def test_frozen_stays_when_the_parameters_move():
    logits = torch.tensor([[0.0, 1.0]], requires_grad=True)
    mean, log_std = torch.zeros(1, 2, requires_grad=True), torch.nn.Parameter(torch.zeros(2))
    frozen = [Categorical(logits).frozen(), DiagonalGaussian(mean, log_std).frozen()]
    with torch.no_grad():
        log_std += 1
    torch.testing.assert_close(frozen[0].log_p, torch.tensor([[0.0, 1.0]]).log_softmax(-1))
    assert frozen[1].log_std.tolist() == [0, 0]
    assert not frozen[0].log_p.requires_grad
    assert not frozen[1].mean.requires_grad
