"""Staying close to the old controller: KL-constrained trajectory optimisation (Levine and Abbeel 2014).

min_p E_p[sum_t c(x_t, u_t)]   s.t.   KL(p(tau) || p_old(tau)) <= epsilon,    p(u|x) = N(K_t x + k_t, Sigma_t)

Start and dynamics are the same under both, so they cancel. With dK = K - K_old and
e_t = E_p[u_t - K_old x_t - k_old],
KL = sum_t 1/2 (tr(Sigma_old^-1 (Sigma + dK cov(x_t) dK')) - m + ln |Sigma_old|/|Sigma| + e' Sigma_old^-1 e)

The Lagrangian E_p[c] + eta (KL - epsilon) is a maximum-entropy LQR with the cost c - eta log p_old(u|x): K, k
are LQR's and Sigma = eta Q_uu^-1. KL falls as eta rises, from infinity (the cost alone and no noise) to zero
(the old controller). So the bound always binds, and eta is the root of KL(eta) = epsilon.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import elementwise
from torch import Tensor

from common.envs.linear_quadratic import LinearQuadratic
from common.types import require
from hw5_planning_control.local_models import LinearGaussian, Marginals, marginals
from hw5_planning_control.lqr import (
    check,
    dot,
    minimizer,
    mv,
    q_function,
    require_semidefinite,
    value_function,
)

REACH = 32.0  # of ln eta to either side of ln(largest entry of the cost), and by which it is widened
WIDENINGS = 4  # of the bracket at most, to 1e+-70 of that entry
HUGE = 1e300  # KL / epsilon where the surrogate cost has no minimum


class KLStep(NamedTuple):
    controller: LinearGaussian
    eta: Tensor  # [...]
    kl: Tensor  # [...] nats
    converged: Tensor  # [...] bool


def kl_step(
    model: LinearQuadratic,
    old: LinearGaussian,
    epsilon: float,
    x0_cov: Tensor | None = None,
    tol: float = 1e-8,
) -> KLStep:
    """The best controller with |KL(p || old) / epsilon - 1| <= tol; epsilon in nats.

    x0_cov [..., n, n] is that of the start around model.x0, zero if None. An indefinite cost does no harm: it
    bounds eta from below. If even the smallest eta searched is within epsilon, a small one is returned as
    converged; if even the largest is not, that as not converged.
    """
    require(0 < epsilon < torch.inf, f"epsilon must be positive, in nats, got {epsilon}")
    batch, model, old, x0_cov = _flatten(model, old, x0_cov)

    def log_excess(log_eta: np.ndarray, i: np.ndarray) -> np.ndarray:
        """ln(KL / epsilon) of the problems i."""
        part, before = (type(parts)(*(x[i] for x in parts)) for parts in (model, old))
        new, convex = max_entropy_lqr(part, before, torch.from_numpy(np.exp(log_eta)))
        kl = trajectory_kl(new, before, moments(new, part, x0_cov[i]))
        ratio = torch.where(convex & kl.isfinite(), kl / epsilon, HUGE)
        return ratio.clamp(1 / HUGE, HUGE).log().numpy()

    index = np.arange(len(x0_cov))
    largest = torch.stack([part.flatten(1).abs().amax(1) for part in model[2:6]]).amax(0)
    middle = torch.where(largest > 0, largest, 1).log().numpy()
    low, high = middle - REACH, middle + REACH
    for _ in range(WIDENINGS):
        short = log_excess(low, index) < 0, log_excess(high, index) > 0
        if not np.any(short):
            break
        low, high = low - REACH * short[0], high + REACH * short[1]
    found = elementwise.find_root(
        log_excess, (low, high), args=(index,), tolerances={"fatol": tol, "xatol": 0}
    )
    beyond = log_excess(low, index) < 0
    eta = torch.from_numpy(np.exp(np.where(beyond, middle - REACH, np.where(found.success, found.x, high))))
    controller, _ = max_entropy_lqr(model, old, eta)
    kl = trajectory_kl(controller, old, moments(controller, model, x0_cov))
    converged = torch.from_numpy(beyond) | ((kl / epsilon - 1).abs() <= 2 * tol)
    controller = LinearGaussian(*(x.reshape(*batch, *x.shape[1:]) for x in controller))
    return KLStep(controller, *(x.reshape(batch) for x in (eta, kl, converged)))


def max_entropy_lqr(
    model: LinearQuadratic, old: LinearGaussian, eta: Tensor
) -> tuple[LinearGaussian, Tensor]:
    """argmin_p E_p[c] + eta KL(p || old), eta [...]; and whether it exists [...], Q_uu > 0 at every step."""
    n = model.F.shape[-2]
    C, c = surrogate(model, old, eta)
    V, v, rows = model.C_final, model.c_final, []
    for t in reversed(range(C.shape[-3])):
        Q, q = q_function(model.F[..., t, :, :], model.f[..., t, :], C[..., t, :, :], c[..., t, :], V, v)
        K, k, _ = minimizer(Q, q, n)
        V, v = value_function(Q, q, K, k)
        rows.append((K, k, Q[..., n:, n:]))
    K, k, Q_uu = (torch.stack(part[::-1], eta.ndim) for part in zip(*rows, strict=True))
    covariance = eta[..., None, None, None] * torch.linalg.inv_ex(Q_uu).inverse
    return LinearGaussian(K, k, covariance), (torch.linalg.cholesky_ex(Q_uu).info == 0).all(-1)


def surrogate(model: LinearQuadratic, old: LinearGaussian, eta: Tensor) -> tuple[Tensor, Tensor]:
    """C [..., T, n+m, n+m], c [..., T, n+m] of c - eta log p_old(u|x) for eta [...]."""
    eye = torch.eye(old.k.shape[-1], dtype=old.k.dtype).expand(old.covariance.shape)
    error = torch.cat([-old.K, eye], -1)  # u - K x = error z
    weighted = eta[..., None, None, None] * error.mT @ torch.linalg.inv(old.covariance)
    return model.C + weighted @ error, model.c - mv(weighted, old.k)


def trajectory_kl(p: LinearGaussian, q: LinearGaussian, under_p: Marginals) -> Tensor:
    """KL(p(tau) || q(tau)) in nats: [...]"""
    n = p.K.shape[-1]
    x, cov = under_p.z[..., :n], under_p.z_cov[..., :n, :n]
    precision, dK = torch.linalg.inv(q.covariance), p.K - q.K
    e = mv(dK, x) + p.k - q.k
    trace = (precision * (p.covariance + dK @ cov @ dK.mT)).sum((-2, -1))
    log_ratio = torch.logdet(q.covariance) - torch.logdet(p.covariance)
    return 0.5 * (trace - e.shape[-1] + log_ratio + dot(e, mv(precision, e))).sum(-1)


def expected_cost(model: LinearQuadratic, under_p: Marginals) -> Tensor:
    """E_p[sum_t c(x_t, u_t) + c_T(x_T)]: [...]"""
    z, z_cov, x_final, x_final_cov = under_p
    n = x_final.shape[-1]
    of_mean = model.cost(torch.cat([z[..., :n], x_final[..., None, :]], -2), z[..., n:])
    spread = (model.C * z_cov).sum((-3, -2, -1)) + (model.C_final * x_final_cov).sum((-2, -1))
    return of_mean + 0.5 * spread


def moments(p: LinearGaussian, model: LinearQuadratic, x0_cov: Tensor) -> Marginals:
    return marginals(p, model.F, model.f, model.W, model.x0, x0_cov)


def _flatten(
    model: LinearQuadratic, old: LinearGaussian, x0_cov: Tensor | None
) -> tuple[tuple[int, ...], LinearQuadratic, LinearGaussian, Tensor]:
    """The batch dimensions, and everything with one [B] instead of them, checked."""
    n, m, T = model.F.shape[-2], model.F.shape[-1] - model.F.shape[-2], model.F.shape[-3]
    z = n + m
    x0_cov = model.F.new_zeros(n, n) if x0_cov is None else x0_cov
    shapes = {
        **dict(
            F=(T, n, z), f=(T, n), C=(T, z, z), c=(T, z), C_final=(n, n), c_final=(n,), W=(T, n, n), x0=(n,)
        ),
        **dict(K=(T, m, n), k=(T, m), covariance=(T, m, m), x0_cov=(n, n)),
    }
    tensors = {**model._asdict(), **old._asdict(), "x0_cov": x0_cov}
    parts = {name: (tensors[name], shape) for name, shape in shapes.items()}
    batch = check(parts, symmetric=("C", "C_final", "W", "covariance", "x0_cov"))
    require(model.F.dtype == torch.float64, f"F must be torch.float64, got {model.F.dtype}")
    require_semidefinite("W", model.W)
    require_semidefinite("x0_cov", x0_cov)
    indefinite = torch.linalg.cholesky_ex(old.covariance).info.any()
    require(not indefinite, "covariance of the old controller must be positive definite")
    flat = [tensors[name].expand(*batch, *shape).reshape(-1, *shape) for name, shape in shapes.items()]
    return batch, LinearQuadratic(*flat[:8]), LinearGaussian(*flat[8:11]), flat[11]
