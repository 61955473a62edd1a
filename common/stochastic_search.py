"""Maximise J(x), x in R^d, by sampling: the lecture's planners, with x the actions a_1..a_T.

random shooting  x_i ~ U[low, high], keep the best
CEM              x_i ~ N(mean, std^2), refit mean and std to the elites (Rubinstein and Kroese 2004)
MPPI             mean <- sum_i w_i x_i,  w = softmax(J / temperature)   (Williams et al. 2017)
CMA-ES           x_i ~ N(mean, sigma^2 C), ranks move mean, sigma and C    (Hansen 2016, arXiv 1604.00772)

`score` takes [samples, ..., d] and gives [samples, ...]: leading dimensions of `mean` are so many problems
searched beside each other. Larger is better; what is not finite ranks last. Samples are clipped to
[low, high] (CMA-ES bends them back) and `mean` obeys the limits too. Correlated noise F epsilon is the same
as a search over z whose score is J(F z). No gradient flows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.covariance_adaptation import CMAState, cma_update, roots
from common.types import require

Score = Callable[[Tensor], Tensor]  # [samples, ..., d] -> [samples, ...]


class Optimum(NamedTuple):
    mean: Tensor  # [..., d] of the last distribution; under a learned model the safer answer
    best: Tensor  # [..., d] of all samples
    score: Tensor  # [...] of `best`
    evaluations: int  # per problem


@torch.no_grad()
def random_shooting(
    score: Score, low: Tensor, high: Tensor, samples: int, generator: torch.Generator
) -> Optimum:
    """The best of `samples` uniform ones. low, high [..., d]; `mean` is `best`."""
    for name, limit in (("low", low), ("high", high)):
        _check_vector(name, limit)
    low, high = _limits(low, low, high)
    _check_counts(generator, samples=samples)
    x = low + (high - low) * _noise(torch.rand, samples, low, generator)
    (best,), (value,) = rank(x, score(x), 1)
    return Optimum(best, best, value, samples)


@torch.no_grad()
def cem(
    score: Score,
    mean: Tensor,
    std: Tensor | float,
    iterations: int = 5,
    samples: int = 400,
    elites: int = 40,
    alpha: float = 0.0,
    low: Tensor | float | None = None,
    high: Tensor | float | None = None,
    *,
    generator: torch.Generator,
) -> Optimum:
    """Refit a Gaussian with diagonal covariance to the `elites` best of `samples`, `iterations` times.

    alpha is the weight of the old mean and variance in the new ones, as in PETS: 0 is all new.
    """
    std = _check_gaussian(mean, std)
    low, high = _clamp_limits(mean, low, high)
    _check_counts(generator, iterations=iterations, samples=samples, elites=elites)
    require(elites <= samples, f"elites must be at most samples = {samples}, got {elites}")
    require(0 <= alpha < 1, f"alpha must lie in [0, 1), got {alpha}")
    found, var = [], std**2
    for _ in range(iterations):
        x = torch.addcmul(mean, var.sqrt(), _noise(torch.randn, samples, mean, generator)).clamp(low, high)
        elite, value = rank(x, score(x), elites)
        found.append((elite[0], value[0]))
        new_mean, new_var = refit(elite, value)
        mean, var = torch.lerp(new_mean, mean, alpha), torch.lerp(new_var, var, alpha)
    return Optimum(mean, *_best(found), iterations * samples)


def refit(elite: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (divided by n) of the elites whose score is finite.

    elite [elites, ..., d], value [elites, ...] -> [..., d] each.
    """
    finite = value > -math.inf
    if finite.all():
        var, mean = torch.var_mean(elite, 0, correction=0)
        return mean, var
    weight = (finite / finite.sum(0)).to(elite)[..., None]
    mean = (weight * elite).sum(0)
    return mean, (weight * (elite - mean) ** 2).sum(0)


@torch.no_grad()
def mppi(
    score: Score,
    mean: Tensor,
    std: Tensor | float,
    temperature: float,
    iterations: int = 1,
    samples: int = 1000,
    low: Tensor | float | None = None,
    high: Tensor | float | None = None,
    *,
    generator: torch.Generator,
    correlate: Callable[[Tensor], Tensor] = lambda noise: noise,
) -> Optimum:
    """Move the mean to the softmax-weighted average of the samples, `iterations` times; std stays.

    A cost of control belongs into the score, where it sees the clipped action. `correlate` is done to the
    noise [samples, ..., d] before it is multiplied by std.
    """
    std = _check_gaussian(mean, std)
    low, high = _clamp_limits(mean, low, high)
    _check_counts(generator, iterations=iterations, samples=samples)
    found = []
    for _ in range(iterations):
        noise = correlate(_noise(torch.randn, samples, mean, generator))
        x = torch.addcmul(mean, std, noise).clamp(low, high)
        value = score(x)
        (best,), (best_value,) = rank(x, value, 1)
        found.append((best, best_value))
        mean = torch.einsum("k...,k...d->...d", mppi_weights(value, temperature).to(x), x)
    return Optimum(mean, *_best(found), iterations * samples)


def mppi_weights(value: Tensor, temperature: float) -> Tensor:
    """softmax(J / temperature) over the samples, 0 where J is not finite: [samples, ...] -> [samples, ...].

    The best value is taken off before the division, so that no temperature is too small.
    """
    require(0 < temperature < math.inf, f"temperature must be positive, got {temperature}")
    value = _finite_or_last(value)
    temperature = max(temperature, torch.finfo(value.dtype).tiny)  # which is not rounded to zero
    return ((value - value.max(0).values) / temperature).softmax(0)


@torch.no_grad()
def cma_es(
    score: Score,
    mean: Tensor,
    std: Tensor | float,
    iterations: int = 1000,
    samples: int | None = None,
    target: float = math.inf,
    tolerance: float = 1e-12,
    low: Tensor | float | None = None,
    high: Tensor | float | None = None,
    *,
    generator: torch.Generator,
) -> Optimum:
    """Active CMA-ES from mean [d], one problem. `samples` per iteration: 4 + 3 ln d unless given.

    Stops at a score of `target`, and where the distribution is `tolerance` times as wide as at first, or as
    much wider: it has converged, or the score grows without bound.
    """
    std = _check_gaussian(mean, std)
    require(mean.ndim == 1, f"mean must be [d], one problem, got {list(mean.shape)}")
    low, high = _limits(mean, low, high)
    ok = bool((low.isfinite() == high.isfinite()).all())
    require(ok, "low and high must both be finite or both be absent, in each dimension")
    # Wider than a third of the limits, the distribution would see several copies of the score by `fold`.
    std = torch.minimum(std, torch.where(high > low, (high - low) / 3, 1))
    d = len(mean)
    samples = 4 + int(3 * math.log(d)) if samples is None else samples
    _check_counts(generator, iterations=iterations, samples=samples)
    require(samples >= 4, f"samples must be at least 4, got {samples}")
    require(0 < tolerance < 1, f"tolerance must lie in (0, 1), got {tolerance}")
    require(not math.isnan(target), "target must be a number, got nan")
    zero, found, evaluations = torch.zeros_like(mean), [], 0
    state = CMAState(mean, 1.0, torch.eye(d).to(mean), zero, zero, 0)
    for _ in range(iterations):
        root, inverse_root, longest = roots(state.C)
        if not tolerance < state.sigma * longest < 1 / tolerance:
            break
        y = _noise(torch.randn, samples, mean, generator) @ root
        z = state.mean + state.sigma * std * y
        (ranked_z, value), evaluations = rank(z, score(fold(z, low, high)), samples), evaluations + samples
        found = [_best([*found, (fold(ranked_z[0], low, high), value[0])])]
        if found[0][1] >= target:
            break
        y = (ranked_z - state.mean) / (state.sigma * std)
        state = cma_update(state, y, value > -math.inf, inverse_root, std)
    return Optimum(fold(state.mean, low, high), *found[0], evaluations)


def fold(z: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """R^d onto [low, high]: the identity but for a twentieth of the width at each limit, where it bends
    into a parabola that turns back at the limit. So a best point on the limit is a smooth maximum over z;
    clipping, or a sharp fold, would make of it a plane or a kink."""
    margin = torch.where(high > low, (high - low) / 20, 1)
    width = high - low + 2 * margin
    y = high + margin - ((z - low + margin).remainder(2 * width) - width).abs()
    from_low = low + (y - low + margin) ** 2 / (4 * margin)
    from_high = high - (high + margin - y) ** 2 / (4 * margin)
    bent = torch.where(y < low + margin, from_low, torch.where(y > high - margin, from_high, y))
    return torch.where(low.isfinite(), bent.clamp(low, high), z)


def rank(x: Tensor, value: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best samples and their scores, best first; a score that is not finite is -inf and last.

    x [samples, ..., d], value [samples, ...] -> [count, ..., d], [count, ...].
    """
    require(isinstance(value, Tensor), f"score must return a tensor, got {type(value).__name__}")
    ok = value.shape == x.shape[:-1]
    require(ok, f"score must map {list(x.shape)} to {list(x.shape[:-1])}, got {list(value.shape)}")
    value, index = _finite_or_last(value).topk(count, 0)
    ok = bool((value[0] > -math.inf).all())
    require(ok, f"score must be finite for at least one of {len(x)} samples, all are nan or infinite")
    if value.ndim == 1:
        return x[index], value
    return x.gather(0, index[..., None].expand(count, *x.shape[1:])), value


def _finite_or_last(value: Tensor) -> Tensor:
    return value.nan_to_num(-math.inf, -math.inf, -math.inf)


def _best(found: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The best of several samples [..., d] by their scores [...]."""
    if len(found) == 1:
        return found[0]
    x, value = (torch.stack(part) for part in zip(*found, strict=True))
    best = value.max(0)
    return x.gather(0, best.indices[None, ..., None].expand(1, *x.shape[1:]))[0], best.values


def _noise(draw: Callable[..., Tensor], samples: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """float32 normal numbers take a quarter of the time of float64 ones and are random enough for either."""
    return draw(samples, *like.shape, generator=generator, device=like.device).to(like.dtype)


def _check_gaussian(mean: Tensor, std: Tensor | float) -> Tensor:
    """std, shaped like mean."""
    _check_vector("mean", mean)
    full = _shaped("std", std, mean)
    number = isinstance(std, (int, float))
    ok = 0 < std < math.inf if number else bool(((full > 0) & (full < math.inf)).all())
    require(ok, "std must be positive and finite")
    return full


def _clamp_limits(
    like: Tensor, low: Tensor | float | None, high: Tensor | float | None
) -> tuple[Tensor, Tensor] | tuple[float, float]:
    """Limits as clamp takes them: both tensors, or both numbers."""
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    if not (isinstance(low, (int, float)) and isinstance(high, (int, float))):
        return _limits(like, low, high)
    require(low <= high, f"low must be at most high, and neither may be nan, got {low} and {high}")
    return low, high


def _limits(like: Tensor, low: Tensor | float | None, high: Tensor | float | None) -> tuple[Tensor, Tensor]:
    """Limits shaped like `like`; None is no limit."""
    low = _shaped("low", -math.inf if low is None else low, like)
    high = _shaped("high", math.inf if high is None else high, like)
    require(bool((low <= high).all()), "low must be at most high everywhere, and neither may be nan")
    return low, high


def _shaped(name: str, value: Tensor | float, like: Tensor) -> Tensor:
    if isinstance(value, (int, float)):
        return torch.full_like(like, value)
    value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    pairs = zip(reversed(value.shape), reversed(like.shape), strict=False)
    ok = value.ndim <= like.ndim and all(n in (1, m) for n, m in pairs)
    require(ok, f"{name} must broadcast to {list(like.shape)}, got {list(value.shape)}")
    return value.expand_as(like).contiguous()


def _check_vector(name: str, x: Tensor) -> None:
    ok = isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= 1 and x.numel() > 0
    require(ok, f"{name} must be a floating-point tensor [..., d], got {getattr(x, 'shape', x)}")
    require(bool(x.isfinite().all()), f"{name} must be finite, got nan or inf")


def _check_counts(generator: torch.Generator, **counts: int) -> None:
    ok = isinstance(generator, torch.Generator)
    require(ok, f"generator must be a torch.Generator, got {type(generator).__name__}")
    for name, count in counts.items():
        require(
            isinstance(count, (int, np.integer)) and count >= 1,
            f"{name} must be a positive integer, got {count}",
        )
