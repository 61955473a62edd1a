"""Gaussian-process dynamics, and what becomes of a Gaussian that goes through them.

f_e ~ GP(0, k_e),   y = f(x) + noise
k_e(x, x') = signal_e^2 exp(-1/2 sum_d (x_d - x'_d)^2 / lengthscale_ed^2)                         (ARD)
log p(y|X) = -1/2 y' K^-1 y - 1/2 log |K| - N/2 log 2 pi,   K = k(X, X) + noise^2 I         (evidence)
f*|D ~ N(k*' beta, k** - k*' K^-1 k*),   beta = K^-1 y

x ~ N(m, S):  mean, covariance and input-output covariance of f(x) in closed form (moment matching), as
k(., x) and products of two of them are Gaussians in x.

Rasmussen and Williams 2006, chapters 2 and 5; Deisenroth and Rasmussen 2011, PILCO, section 2.2. Everything
is exact, float64 and differentiable: N is some hundred, each fit costs N^3. Input-output covariances are
returned as S^-1 Cov[x, f] = E df/dx, which exists where S is singular too.

N data, D inputs, E outputs, M Gaussians side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from common.distributions import LOG_2PI
from common.types import require


class GaussianProcess(NamedTuple):
    """E independent ones over the same inputs."""

    x: Tensor  # [N, D]
    beta: Tensor  # [E, N]
    inverse: Tensor | None  # K^-1 [E, N, N]; None for a function that is known, sum_i beta_i k(x_i, .)
    lengthscale: Tensor  # [E, D]
    signal: Tensor  # [E], standard deviation
    noise: Tensor  # [E], standard deviation


class Moments(NamedTuple):
    mean: Tensor  # [M, E]
    cov: Tensor  # [M, E, E]
    slope: Tensor  # S^-1 Cov[x, f] [M, D, E]


def kernel(x: Tensor, y: Tensor, lengthscale: Tensor, signal: Tensor) -> Tensor:
    """x [N, D], y [B, D] -> [E, N, B]"""
    x, y = x / lengthscale[:, None], y / lengthscale[:, None]
    square = x.square().sum(-1)[..., None] + y.square().sum(-1)[:, None] - 2 * x @ y.mT
    return signal[:, None, None].square() * (-0.5 * square.clamp(min=0)).exp()


def noisy_kernel(x: Tensor, lengthscale: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """K = k(X, X) + noise^2 I: [E, N, N]"""
    return kernel(x, x, lengthscale, signal) + torch.diag_embed(noise.square()[:, None].expand(-1, len(x)))


def evidence(x: Tensor, y: Tensor, lengthscale: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """log p(y|X) of each output: x [N, D], y [N, E] -> [E]"""
    L = torch.linalg.cholesky(noisy_kernel(x, lengthscale, signal, noise))
    white = torch.linalg.solve_triangular(L, y.mT[..., None], upper=False)  # [E, N, 1]
    log_det = L.diagonal(dim1=1, dim2=2).log().sum(1)
    return -0.5 * white.square().sum((1, 2)) - log_det - 0.5 * len(x) * LOG_2PI


def condition(x: Tensor, y: Tensor, lengthscale: Tensor, signal: Tensor, noise: Tensor) -> GaussianProcess:
    """The posterior under given hyperparameters."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(noisy_kernel(x, lengthscale, signal, noise)))
    return GaussianProcess(x, (inverse @ y.mT[..., None])[..., 0], inverse, lengthscale, signal, noise)


def fit(x: Tensor, y: Tensor, iterations: int = 100) -> GaussianProcess:
    """Maximise the evidence from the scale of the data, x [N, D], y [N, E].

    Lengthscales stay below 100 standard deviations of the data and the noise above 1/300 of the signal: an
    input that does not matter, or a function without noise, would drive K to singularity.
    """
    for name, value in (("x", x), ("y", y)):
        ok = value.ndim == 2 and len(value) == len(x) >= 2
        require(ok, f"{name} must be [N, .] with one N of at least 2, got {list(value.shape)}")
        require(bool(value.isfinite().all()), f"{name} must be finite, got nan or inf")
    x, y = x.double(), y.double()
    D, E = x.shape[1], y.shape[1]
    x_std, y_size = x.std(0, correction=0), y.square().mean(0).sqrt().clamp(min=1e-9)
    x_std = torch.where(x_std < 1e-6, 1.0, x_std)

    def unpack(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logarithms [E (D + 2)], relative -> lengthscale, signal, noise."""
        log_length, log_signal, log_noise = theta.view(E, D + 2).split((D, 1, 1), 1)
        signal = log_signal.exp()[:, 0] * y_size
        return log_length.exp() * x_std, signal, log_noise.exp()[:, 0] * signal

    start = x.new_tensor([0.0] * (D + 1) + [np.log(0.1)]).repeat(E)
    low = x.new_tensor([np.log(0.1)] * D + [np.log(0.1), -np.log(300)]).repeat(E)
    high = x.new_tensor([np.log(100)] * (D + 1) + [0.0]).repeat(E)
    scale = y.numel()
    theta = minimize(lambda t: -evidence(x, y, *unpack(t)).sum() / scale, start, iterations, low, high)
    return condition(x, y, *unpack(theta))


def predict(gp: GaussianProcess, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of f at x [B, D]: [B, E] each, without the noise of y."""
    k = kernel(x, gp.x, gp.lengthscale, gp.signal)  # [E, B, N]
    mean, var = (k @ gp.beta[..., None])[..., 0].mT, torch.zeros(len(x), len(gp.signal), dtype=x.dtype)
    if gp.inverse is not None:
        var = (gp.signal.square()[:, None] - (k @ gp.inverse * k).sum(-1)).mT.clamp(min=0)
    return mean, var


class MomentMatching:
    """What a Gaussian becomes in a process: mean, cov -> moments of f(x), the noise of y left out.

    What does not depend on the Gaussian is prepared once. An expectation of k_a(x_i, x), or of
    k_a(x_i, x) k_b(x_j, x) for a pair a <= b, takes B = I + P^1/2 S P^1/2 with P the inverse squares of the
    lengthscales, summed over a and b for a pair.
    """

    def __init__(self, gp: GaussianProcess):
        E = len(gp.signal)
        self.a, self.b = torch.triu_indices(E, E)
        self.x, self.beta, self.outputs = gp.x, gp.beta, E
        self.precision = gp.lengthscale.pow(-2)
        root = torch.cat([self.precision, self.precision[self.a] + self.precision[self.b]]).sqrt()
        self.outer = root[:, :, None] * root[:, None]  # [E + pairs, D, D]
        self.eye = torch.eye(gp.x.shape[1], dtype=gp.x.dtype)
        self.log_k = 2 * gp.signal.log()[:, None]  # [E, 1]
        # E f_a f_b = sum_ij weight_ij E k_a(x_i, x) k_b(x_j, x), and what the data leave open where a = b
        self.weight = gp.beta[self.a, :, None] * gp.beta[self.b, None]  # [pairs, N, N]
        self.open = torch.zeros(len(self.a), dtype=gp.x.dtype)
        if gp.inverse is not None:
            same = self.a == self.b
            self.weight[same] -= gp.inverse
            self.open[same] = gp.signal.square()
        self.full = torch.zeros(E, E, dtype=torch.int64)  # entry -> pair
        self.full[self.a, self.b] = self.full[self.b, self.a] = torch.arange(len(self.a))

    def __call__(self, mean: Tensor, cov: Tensor) -> Moments:
        """mean [M, D], cov [M, D, D]"""
        E, D = self.outputs, self.x.shape[1]
        ok = mean.ndim == 2 and mean.shape[1] == D and cov.shape == (*mean.shape, D)
        require(
            ok, f"mean and cov must be [M, {D}] and [M, {D}, {D}], got {list(mean.shape)}, {list(cov.shape)}"
        )
        B = self.eye + self.outer * cov[:, None]  # [M, E + pairs, D, D]
        inverse, half_logdet = torch.linalg.inv(B), 0.5 * torch.logdet(B)[..., None]
        apart = (self.x - mean[:, None])[:, None]  # [M, 1, N, D]
        t = apart @ (self.outer[:E] * inverse[:, :E])  # (S + Lambda)^-1 (x_i - m)
        k = (self.log_k - half_logdet[:, :E] - 0.5 * (t * apart).sum(-1)).exp()  # E k(x_i, x)
        weighted = self.beta * k  # [M, E, N]
        f, slope = weighted.sum(-1), (weighted[..., None, :] @ t)[..., 0, :]
        # G = (P^-1 + S^-1)^-1 / P^2: what S adds to the exponent of the product
        G = (self.eye - inverse[:, E:]) / self.outer[E:]
        z = apart * self.precision[:, None]
        at_mean = self.log_k - 0.5 * (z * apart).sum(-1)  # log k(x_i, m) [M, E, N]
        z_a, z_b = z[:, self.a], z[:, self.b]
        G_a = z_a @ G
        left = at_mean[:, self.a] + 0.5 * (G_a * z_a).sum(-1) - half_logdet[:, E:]
        right = at_mean[:, self.b] + 0.5 * (z_b @ G * z_b).sum(-1)
        one = torch.ones_like(left)[..., None]
        exponent = torch.cat([G_a, left[..., None], one], -1) @ torch.cat([z_b, one, right[..., None]], -1).mT
        second = (self.weight * exponent.exp()).sum((-2, -1)) + self.open
        return Moments(f, second[:, self.full] - f[:, :, None] * f[:, None], slope.mT)


def sine(mean: Tensor, cov: Tensor) -> Moments:
    """Moments of sin x, entry by entry, x ~ N(mean [M, D], cov [M, D, D]):

    E sin x = exp(-s^2/2) sin m = f,   E cos x = exp(-s^2/2) cos m = g,
    Cov[sin x, sin y] = f_x f_y (cosh Cov[x, y] - 1) + g_x g_y sinh Cov[x, y].
    """
    shrink = (-0.5 * cov.diagonal(dim1=-2, dim2=-1)).exp()
    f, g = shrink * mean.sin(), shrink * mean.cos()
    ff, gg = f[..., :, None] * f[..., None, :], g[..., :, None] * g[..., None, :]
    return Moments(f, ff * (cov.cosh() - 1) + gg * cov.sinh(), torch.diag_embed(g))


def bell(mean: Tensor, cov: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """E exp(-1/2 (x - target)' W (x - target)), x ~ N(mean [M, D], cov [M, D, D]), W [D, D]: [M]"""
    A = torch.eye(len(target), dtype=mean.dtype) + cov @ weight
    apart = mean - target
    square = (apart @ weight * torch.linalg.solve(A, apart[..., None])[..., 0]).sum(-1)
    return (-0.5 * square - 0.5 * torch.logdet(A)).exp()


def minimize(
    loss: Callable[[Tensor], Tensor],
    start: Tensor,
    iterations: int,
    low: Tensor | None = None,
    high: Tensor | None = None,
) -> Tensor:
    """By L-BFGS (Byrd et al. 1995, scipy's), its gradient by autograd: theta [P] -> theta [P].

    Where the loss cannot be computed it counts as large, and the line search turns back.
    """

    def value(theta: np.ndarray) -> tuple[float, np.ndarray]:
        theta = torch.from_numpy(theta).clone().requires_grad_()
        try:
            found = loss(theta)
            (slope,) = torch.autograd.grad(found, theta)
        except torch.linalg.LinAlgError:
            return 1e10, np.zeros(len(theta))
        finite = bool(found.isfinite() & slope.isfinite().all())
        return (found.item(), slope.numpy()) if finite else (1e10, np.zeros(len(theta)))

    bounds = None if low is None else list(zip(low.tolist(), high.tolist(), strict=True))
    found = optimize.minimize(
        value, start.double().numpy(), jac=True, method="L-BFGS-B", bounds=bounds,
        options={"maxiter": iterations},
    )  # fmt: skip
    return torch.from_numpy(found.x)
