"""A mixture of Gaussians by expectation maximisation (Dempster, Laird and Rubin 1977), as a dynamics prior.

p(w) = sum_k weight_k N(w; mean_k, covariance_k)
E: r_ik = p(k | w_i);   M: weight, mean and covariance of the samples, each counted r_ik times

Fitted to the transitions w = [x; u; x'] of all steps and rounds it is a global model of the dynamics, linear
in each component. What it says of one step is the prior of the local model there (Levine and Abbeel 2014):
mean and covariance of the mixture whose weights are the mean p(k | w) of that step's samples.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from common.distributions import LOG_2PI
from common.types import require
from hw5_planning_control.local_models import NormalInverseWishart

FLOOR = 1e-6  # added to the variances, as a share of the data's


class GaussianMixture(NamedTuple):
    weight: Tensor  # [K]
    mean: Tensor  # [K, d]
    covariance: Tensor  # [K, d, d]

    def log_joint(self, w: Tensor) -> Tensor:
        """log p(w, k): [..., d] -> [..., K]"""
        L = torch.linalg.cholesky(self.covariance)
        e = (w[..., None, :] - self.mean).movedim(-2, 0).flatten(1, -2)  # [K, S, d]
        e = torch.linalg.solve_triangular(L, e.mT, upper=False).square().sum(-2)  # [K, S]
        log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_p = self.weight.log() - 0.5 * (w.shape[-1] * LOG_2PI + log_det)
        return (log_p[:, None] - 0.5 * e).mT.reshape(*w.shape[:-1], -1)

    def log_prob(self, w: Tensor) -> Tensor:
        """[..., d] -> [...]"""
        return self.log_joint(w).logsumexp(-1)

    def prior(self, x: Tensor, u: Tensor, x_next: Tensor, samples: float = 1.0) -> NormalInverseWishart:
        """Of each step from its samples x [T, N, n], u [T, N, m], x_next [T, N, n]; worth `samples`."""
        r = self.log_joint(torch.cat([x, u, x_next], -1)).softmax(-1).mean(1)  # [T, K]
        mean = r @ self.mean
        e = self.mean - mean[:, None]  # [T, K, d]
        within = torch.einsum("tk,kij->tij", r, self.covariance)
        between = torch.einsum("tk,tki,tkj->tij", r, e, e)
        return NormalInverseWishart(mean, within + between, samples, samples)


def fit_mixture(
    w: Tensor, components: int, generator: torch.Generator, iterations: int = 100, tol: float = 1e-6
) -> GaussianMixture:
    """w [S, d]. Ends when the mean log likelihood gains less than `tol` nats."""
    ok = w.ndim == 2 and w.is_floating_point() and bool(w.isfinite().all())
    require(ok, f"w must be finite floating numbers [S, d], got {list(w.shape)}")
    ok = 1 <= components <= len(w)
    require(ok, f"components must be between 1 and the {len(w)} samples, got {components}")
    mixture = _start(w, components, generator)
    before = -torch.inf
    for _ in range(iterations):
        joint = mixture.log_joint(w)
        mixture = maximize(w, joint.softmax(-1))
        after = joint.logsumexp(-1).mean().item()
        if after - before < tol:
            break
        before = after
    return mixture


def maximize(w: Tensor, r: Tensor) -> GaussianMixture:
    """The M step: w [S, d], r [S, K]."""
    count = r.sum(0).clamp(min=torch.finfo(w.dtype).tiny)
    mean = r.mT @ w / count[:, None]
    e = w - mean[:, None]  # [K, S, d]
    covariance = (r.mT[..., None] * e).mT @ e / count[:, None, None]
    floor = FLOOR * w.var(0, correction=0) + torch.finfo(w.dtype).eps
    return GaussianMixture(count / len(w), mean, covariance + floor.diag())


def _start(w: Tensor, components: int, generator: torch.Generator) -> GaussianMixture:
    """Each sample belongs to the nearest of `components` seeds, which lie far apart (k-means++, Arthur and
    Vassilvitskii 2007); distances in units of the data's deviation."""
    scaled = (w - w.mean(0)) / w.std(0, correction=0).clamp(min=torch.finfo(w.dtype).tiny)
    seeds = scaled[torch.randint(len(w), (1,), generator=generator)]
    for _ in range(components - 1):
        distance = torch.cdist(scaled, seeds).amin(1).square() + torch.finfo(w.dtype).tiny
        seeds = torch.cat([seeds, scaled[torch.multinomial(distance, 1, generator=generator)]])
    nearest = torch.cdist(scaled, seeds).argmin(1)
    return maximize(w, torch.nn.functional.one_hot(nearest, components).to(w))
