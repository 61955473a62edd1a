"""One step of active CMA-ES (Hansen 2016, arXiv 1604.00772, appendix A).

mean    <- mean + sigma sum_{i <= mu} w_i y_i                     y_i ~ N(0, C), ranked, best first
p_sigma <- (1 - c_sigma) p_sigma + sqrt(c_sigma (2 - c_sigma) mu_eff) C^(-1/2) sum w_i y_i
sigma   <- sigma exp(c_sigma / d_sigma (|p_sigma| / E|N(0, I)| - 1))
p_c     <- (1 - c_c) p_c + sqrt(c_c (2 - c_c) mu_eff) sum w_i y_i
C       <- (1 - c_1 - c_mu sum w_j) C + c_1 p_c p_c' + c_mu sum w_i y_i y_i'

Only ranks of the score enter, so that any increasing function of it gives the same search.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor


class CMAConstants(NamedTuple):
    """Hansen 2016, table 1: what depends on the dimension and the number of samples only."""

    weights: Tensor  # [samples] of the ranks, best first; the last half is negative
    mass: float  # mu_eff = 1 / sum w_i^2 over the positive weights
    c_sigma: float
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float
    length: float  # E |N(0, I)|


@functools.cache
def cma_constants(d: int, samples: int) -> CMAConstants:
    raw = math.log((samples + 1) / 2) - torch.arange(1, samples + 1, dtype=torch.float64).log()
    plus, minus = raw.clamp(min=0), raw.clamp(max=0)
    mass, mass_minus = (float(w.sum() ** 2 / w.square().sum()) for w in (plus, minus))
    c_sigma = (mass + 2) / (d + mass + 5)
    d_sigma = 1 + c_sigma + 2 * max(0.0, math.sqrt((mass - 1) / (d + 1)) - 1)
    c_c = (4 + mass / d) / (d + 4 + 2 * mass / d)
    c_1 = 2 / ((d + 1.3) ** 2 + mass)
    c_mu = min(1 - c_1, 2 * (0.25 + mass + 1 / mass - 2) / ((d + 2) ** 2 + mass))
    against = min(1 + c_1 / c_mu, 1 + 2 * mass_minus / (mass + 2), (1 - c_1 - c_mu) / (d * c_mu))
    weights = plus / plus.sum() - against * minus / minus.sum()
    length = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    return CMAConstants(weights, mass, c_sigma, d_sigma, c_c, c_1, c_mu, length)


class CMAState(NamedTuple):
    """x ~ mean + sigma std N(0, C): lengths are in units of the `std` that the search began with."""

    mean: Tensor  # [d]
    sigma: float
    C: Tensor  # [d, d]
    path_sigma: Tensor  # [d]
    path_c: Tensor  # [d]
    t: int  # updates made


def roots(C: Tensor) -> tuple[Tensor, Tensor, float]:
    """C^(1/2), C^(-1/2) and the longest axis of C [d, d]. No axis is taken for shorter than 1e-7 of it."""
    eigenvalues, axes = torch.linalg.eigh(C)
    scale = eigenvalues.clamp(min=1e-14 * eigenvalues[-1]).sqrt()
    return (axes * scale) @ axes.T, (axes / scale) @ axes.T, scale[-1].item()


def cma_update(state: CMAState, y: Tensor, finite: Tensor, inverse_root: Tensor, std: Tensor) -> CMAState:
    """From the steps y [samples, d] ranked by their score, best first: y_i = (x_i - mean) / (sigma std).

    finite [samples]: a step whose score is not may push away but never attract. inverse_root = C^(-1/2).
    """
    samples, d = y.shape
    k = cma_constants(d, samples)
    weights = k.weights.to(y)
    pull = weights.clamp(min=0) * finite
    step = pull / pull.sum() @ y
    mean, sigma, C, path_sigma, path_c, t = state
    whitened = math.sqrt(k.c_sigma * (2 - k.c_sigma) * k.mass) * inverse_root @ step
    path_sigma = (1 - k.c_sigma) * path_sigma + whitened
    stretch = path_sigma.norm().item() / k.length
    # While sigma has to grow, path_c waits: C would be stretched for what is a matter of sigma.
    calm = stretch / math.sqrt(1 - (1 - k.c_sigma) ** (2 * t + 2)) < 1.4 + 2 / (d + 1)
    path_c = (1 - k.c_c) * path_c + calm * math.sqrt(k.c_c * (2 - k.c_c) * k.mass) * step
    # A negative weight takes away at most what its direction has: C stays positive definite.
    squares = (y @ inverse_root).square().sum(1).clamp(min=1e-12)
    pushed = torch.where(weights < 0, weights * d / squares, weights)
    kept = 1 - k.c_1 - k.c_mu * weights.sum() + k.c_1 * (not calm) * k.c_c * (2 - k.c_c)
    C = kept * C + k.c_1 * torch.outer(path_c, path_c) + k.c_mu * (pushed * y.T) @ y
    sigma_next = sigma * math.exp(min(1.0, k.c_sigma / k.d_sigma * (stretch - 1)))
    return CMAState(mean + sigma * std * step, sigma_next, (C + C.T) / 2, path_sigma, path_c, t + 1)
