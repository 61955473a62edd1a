"""Local models and the controllers that collect their data (LQR-FLM, Levine and Abbeel 2014).

Which controller to run, given x^, u^, K, k and Q_uu of iLQR (the lecture's versions):
0.5  u = u^                                         drifts: nothing corrects a deviation
1.0  u = u^ + k + K (x - x^)                        corrects, but every sample looks the same
2.0  u ~ N(u^ + k + K (x - x^), Q_uu^-1)            corrects, and varies as much as the cost forgives

Fitted at every step by linear regression on the samples:  p(x'|x, u) = N(F_t [x; u] + f_t, noise_t)
The Bayesian way is a normal-inverse-Wishart prior on the joint distribution of w = [x; u; x']: mu_0 counts
as m samples, Sigma_0 as n_0. With the mean w^ and the covariance S of N samples, d = w^ - mu_0,
  mu = (N w^ + m mu_0)/(N + m),   Sigma = (N S + n_0 Sigma_0 + N m/(N + m) d d')/(N + n_0),
and conditioning it on [x; u] gives  F = Sigma_yz Sigma_zz^-1,  noise = Sigma_yy - F Sigma_zz F'.

n state, m control, T steps, N samples; ... batch dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from common.types import require
from hw5_planning_control.lqr import mv, require_semidefinite, require_symmetric
from hw5_planning_control.problem import Solution


class LinearGaussian(NamedTuple):
    """The controller u ~ N(K_t x + k_t, covariance_t)."""

    K: Tensor  # [..., T, m, n]
    k: Tensor  # [..., T, m]
    covariance: Tensor  # [..., T, m, m], zero for a deterministic one

    def run(
        self, step: Callable[[Tensor, Tensor], Tensor], x0: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """x [T+1, N, n], u [T, N, m] of N samples from x0 [N, n], where step(x [N, n], u [N, m]) -> x' [N, n]
        may be random. Without batch dimensions."""
        (T, m), N = self.k.shape, len(x0)
        normal = torch.randn(T, N, m, generator=generator, dtype=x0.dtype)
        noise = normal @ root(self.covariance)
        xs, us = [x0], []
        for t in range(T):
            us.append(xs[-1] @ self.K[t].mT + self.k[t] + noise[t])
            xs.append(step(xs[-1], us[-1]))
        return torch.stack(xs), torch.stack(us)


def controller(solution: Solution, version: Literal[0.5, 1.0, 2.0]) -> LinearGaussian:
    """The lecture's version 0.5, 1.0 or 2.0."""
    require(version in (0.5, 1.0, 2.0), f"version must be 0.5, 1.0 or 2.0, got {version}")
    K, quiet = solution.K, torch.zeros_like(solution.Q_uu)
    if version == 0.5:
        return LinearGaussian(torch.zeros_like(K), solution.u, quiet)
    k = solution.u + solution.k - mv(K, solution.x[..., :-1, :])
    return LinearGaussian(K, k, quiet if version == 1.0 else torch.linalg.inv(solution.Q_uu))


class Marginals(NamedTuple):
    """Means and covariances of a controller's trajectories, z_t = [x_t; u_t]."""

    z: Tensor  # [..., T, n+m]
    z_cov: Tensor  # [..., T, n+m, n+m]
    x_final: Tensor  # [..., n]
    x_final_cov: Tensor  # [..., n, n]


def marginals(
    p: LinearGaussian, F: Tensor, f: Tensor, noise: Tensor, x0: Tensor, x0_cov: Tensor
) -> Marginals:
    """Of p on x' ~ N(F_t z + f_t, noise_t) from x_0 ~ N(x0 [..., n], x0_cov [..., n, n])."""
    n, T = x0.shape[-1], F.shape[-3]
    of_x = torch.cat([torch.eye(n, dtype=F.dtype).expand(*p.K.shape[:-2], n, n), p.K], -2)  # dz/dx
    offset = nn.functional.pad(p.k, (n, 0))
    added = nn.functional.pad(p.covariance, (n, 0, n, 0))
    x, cov, rows = x0, x0_cov, []
    for t in range(T):
        z = mv(of_x[..., t, :, :], x) + offset[..., t, :]
        z_cov = of_x[..., t, :, :] @ cov @ of_x[..., t, :, :].mT + added[..., t, :, :]
        x = mv(F[..., t, :, :], z) + f[..., t, :]
        cov = F[..., t, :, :] @ z_cov @ F[..., t, :, :].mT + noise[..., t, :, :]
        rows.append((z, z_cov))
    return Marginals(*(torch.stack(part, x.ndim - 1) for part in zip(*rows, strict=True)), x, cov)


class NormalInverseWishart(NamedTuple):
    """What is believed of w = [x; u; x'] before the samples, d = 2n + m."""

    mean: Tensor  # [T, d] mu_0
    covariance: Tensor  # [T, d, d] Sigma_0
    mean_samples: float  # m: as many samples is mu_0 worth
    covariance_samples: float  # n_0: as many is Sigma_0 worth


def fit_linear_gaussian(
    x: Tensor, u: Tensor, x_next: Tensor, prior: NormalInverseWishart | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """x [T, N, n], u [T, N, m], x_next [T, N, n] -> F [T, n, n+m], f [T, n], noise [T, n, n].

    The most likely model: noise is a mean of squares, not corrected for the n+m+1 numbers fitted. What does
    not vary at all, such as a fixed start, gets the slope zero.
    """
    _check(x, u, x_next, prior)
    N, n, z = x.shape[1], x.shape[2], x.shape[2] + u.shape[2]
    w = torch.cat([x, u, x_next], -1)  # [T, N, d]
    mean = w.mean(1)  # [T, d]
    rows, count = [w - mean[:, None]], N
    if prior is not None:
        d, m, n_0 = mean - prior.mean, prior.mean_samples, prior.covariance_samples
        rows += [(N * m / (N + m)) ** 0.5 * d[:, None], n_0**0.5 * root(prior.covariance)]
        mean, count = (N * mean + m * prior.mean) / (N + m), N + n_0
    rows = torch.cat(rows, 1)  # [T, >= N, d], whose scatter is count * Sigma
    size = rows[..., :z].norm(dim=1)
    eps = torch.finfo(x.dtype).eps
    still = size <= 100 * eps * N**0.5 * mean[:, :z].abs()  # not more than rounding
    pins = nn.functional.pad(torch.diag_embed(still.to(x)), (0, n))
    R = torch.linalg.qr(torch.cat([rows, pins], 1), mode="r").R  # R'R = count * Sigma, not squared on the way
    pivots = R[:, :z, :z].diagonal(dim1=-2, dim2=-1).abs()
    ok = bool((pivots >= 0.01 * eps**0.5 * size).all())  # what the other columns leave of each
    require(
        ok, "x and u must vary in all n+m directions: give more samples, noise in the controls, or a prior"
    )
    F = torch.linalg.solve_triangular(R[:, :z, :z], R[:, :z, z:], upper=True).mT
    noise = R[:, z:, z:].mT @ R[:, z:, z:] / count
    return F, mean[:, z:] - mv(F, mean[:, :z]), noise


def root(covariance: Tensor) -> Tensor:
    """The symmetric S with S S = covariance, which may be singular: [..., d, d]"""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mT


def _check(x: Tensor, u: Tensor, x_next: Tensor, prior: NormalInverseWishart | None) -> None:
    ok = x.ndim == 3 and x.numel() > 0
    require(ok, f"x must be [T, N, n], got {list(x.shape)}")
    T, N, n = x.shape
    ok = u.ndim == 3 and u.shape[:2] == (T, N) and u.shape[2] > 0
    require(ok, f"u must be [{T}, {N}, m], got {list(u.shape)}")
    require(x_next.shape == x.shape, f"x_next must be {list(x.shape)} as x is, got {list(x_next.shape)}")
    for name, value in (("x", x), ("u", u), ("x_next", x_next)):
        ok = value.is_floating_point() and bool(value.isfinite().all())
        require(ok, f"{name} must be finite floating numbers")
    if prior is None:
        least = n + u.shape[2] + 1
        require(least <= N, f"x must hold at least n+m+1 = {least} samples without a prior, got {N}")
        return
    d = 2 * n + u.shape[2]
    ok = prior.mean.shape == (T, d) and prior.covariance.shape == (T, d, d)
    got = f"{list(prior.mean.shape)} and {list(prior.covariance.shape)}"
    require(ok, f"prior must have the shapes [{T}, {d}] and [{T}, {d}, {d}], got {got}")
    ok = bool(prior.mean.isfinite().all() and prior.covariance.isfinite().all())
    require(ok, "prior must be finite, got nan or inf")
    require_symmetric("covariance of the prior", prior.covariance)
    require_semidefinite("covariance of the prior", prior.covariance)
    ok = 0 <= prior.mean_samples < torch.inf and 0 < prior.covariance_samples < torch.inf
    require(ok, "prior must be worth a positive number of samples")
