"""Linear-quadratic systems under Gaussian noise: the mean cost of any affine policy is known exactly.

x_{t+1} = F_t z_t + f_t + w_t,  w_t ~ N(0, W_t),  z = [x; u];  cost sum_t 1/2 z_t' C_t z_t + z_t' c_t, and the
same at T in x alone. n state, m control, T steps, ... batch dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class LinearQuadratic(NamedTuple):
    F: Tensor  # [..., T, n, n+m]
    f: Tensor  # [..., T, n]
    C: Tensor  # [..., T, n+m, n+m]
    c: Tensor  # [..., T, n+m]
    C_final: Tensor  # [..., n, n]
    c_final: Tensor  # [..., n]
    W: Tensor  # [..., T, n, n] covariance of the noise
    x0: Tensor  # [..., n]

    def cost(self, x: Tensor, u: Tensor) -> Tensor:
        """Of a trajectory x [..., T+1, n], u [..., T, m]: [...]"""
        z, last = torch.cat([x[..., :-1, :], u], -1), x[..., -1, :]
        return _quadratic(self.C, self.c, z).sum(-1) + _quadratic(self.C_final, self.c_final, last)

    def noise(self, samples: int, generator: torch.Generator) -> Tensor:
        """w [samples, ..., T, n]"""
        normal = torch.randn(samples, *self.f.shape, generator=generator, dtype=self.f.dtype)
        return (torch.linalg.cholesky(self.W) @ normal[..., None])[..., 0]

    def expected_cost(self, K: Tensor, k: Tensor) -> Tensor:
        """Mean cost of u = K_t x + k_t, K [..., T, m, n], k [..., T, m]: [...]. A plan has K = 0.

        From the mean and the covariance of x_t, which the policy carries forward in closed form.
        """
        mean, n = self.x0, self.x0.shape[-1]
        cov = torch.zeros_like(self.C_final)
        total = self.x0.new_zeros(())
        for t in range(self.F.shape[-3]):
            I_K = torch.cat([torch.eye(n, dtype=K.dtype).expand_as(cov), K[..., t, :, :]], -2)
            z = (I_K @ mean[..., None])[..., 0]
            z = torch.cat([z[..., :n], z[..., n:] + k[..., t, :]], -1)
            cov_z = I_K @ cov @ I_K.mT
            C, F = self.C[..., t, :, :], self.F[..., t, :, :]
            total = total + _quadratic(C, self.c[..., t, :], z) + 0.5 * (C * cov_z).sum((-2, -1))
            mean = (F @ z[..., None])[..., 0] + self.f[..., t, :]
            cov = F @ cov_z @ F.mT + self.W[..., t, :, :]
        return total + _quadratic(self.C_final, self.c_final, mean) + 0.5 * (self.C_final * cov).sum((-2, -1))


def random_linear_quadratic(
    T: int, n: int, m: int, generator: torch.Generator, growth: float = 1.0, batch: tuple[int, ...] = ()
) -> LinearQuadratic:
    """Time-varying, affine, convex. `growth`: about the spectral radius of the open loop, unstable from 1."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*batch, *shape, generator=generator, dtype=torch.float64)

    def definite(*shape: int) -> Tensor:
        root = normal(*shape, shape[-1])
        return root @ root.mT / shape[-1] + 0.1 * torch.eye(shape[-1], dtype=torch.float64)

    F = torch.cat([growth * normal(T, n, n) / n**0.5, normal(T, n, m)], -1)
    running = definite(T, n + m), normal(T, n + m)
    return LinearQuadratic(F, normal(T, n), *running, definite(n), normal(n), definite(T, n), normal(n))


def _quadratic(C: Tensor, c: Tensor, z: Tensor) -> Tensor:
    return (z * (0.5 * (C @ z[..., None])[..., 0] + c)).sum(-1)
