"""The linear-quadratic regulator: dynamic programming in closed form (Kalman 1960).

min sum_{t<T} 1/2 z_t' C_t z_t + z_t' c_t  +  1/2 x_T' C_final x_T + x_T' c_final,   z = [x; u]
s.t. x_{t+1} = F_t z_t + f_t

Backward, from V_T = C_final, v_T = c_final:           Forward:
Q_t = C_t + F_t' V_{t+1} F_t                           u_t = K_t x_t + k_t
q_t = c_t + F_t' (V_{t+1} f_t + v_{t+1})               x_{t+1} = F_t z_t + f_t
K_t = -Q_uu^-1 Q_ux,  k_t = -Q_uu^-1 q_u
V_t = Q_xx + Q_xu K + K' Q_ux + K' Q_uu K
v_t = q_x + Q_xu k + K' q_u + K' Q_uu k

Gaussian noise on x_{t+1} changes neither K nor k (certainty equivalence); it adds 1/2 sum_t tr(V_{t+1} W_t).
n state, m control, T steps; ... any leading batch dimensions, which broadcast. Costs carry the 1/2.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.types import require
from hw5_planning_control.small_matrices import batch_innermost, dot, eliminate, mm, mv

DOUBLINGS = 60  # horizon 2^60: whatever has not settled by then never will


class LQRSolution(NamedTuple):
    """u = K_t x + k_t; the cost from x on is V_t(x) = 1/2 x' V_t x + x' v_t + const_t."""

    K: Tensor  # [..., T, m, n], carries its minus sign
    k: Tensor  # [..., T, m]
    V: Tensor  # [..., T+1, n, n]
    v: Tensor  # [..., T+1, n]
    const: Tensor  # [..., T+1]
    Q_uu: Tensor  # [..., T, m, m]

    def cost_to_go(self, x: Tensor, t: int = 0) -> Tensor:
        """V_t(x): [..., n] -> [...]"""
        return dot(x, 0.5 * mv(self.V[..., t, :, :], x) + self.v[..., t, :]) + self.const[..., t]


def lqr(
    F: Tensor,
    f: Tensor,
    C: Tensor,
    c: Tensor,
    C_final: Tensor | None = None,
    c_final: Tensor | None = None,
) -> LQRSolution:
    """The backward recursion. F [..., T, n, n+m], f [..., T, n], C [..., T, n+m, n+m], c [..., T, n+m],
    C_final [..., n, n] and c_final [..., n], zero where None."""
    require(F.ndim >= 3, f"F must be [..., T, n, n+m], got {list(F.shape)}")
    T, n, m = F.shape[-3], F.shape[-2], F.shape[-1] - F.shape[-2]
    require(min(T, n, m) >= 1, f"F must be [..., T, n, n+m] with T, n, m at least 1, got {list(F.shape)}")
    C_final = F.new_zeros(n, n) if C_final is None else C_final
    c_final = F.new_zeros(n) if c_final is None else c_final
    parts = {  # what each must end in
        "F": (F, (T, n, n + m)),
        "f": (f, (T, n)),
        "C": (C, (T, n + m, n + m)),
        "c": (c, (T, n + m)),
        "C_final": (C_final, (n, n)),
        "c_final": (c_final, (n,)),
    }
    batch = check(parts, symmetric=("C", "C_final"))

    V = batch_innermost(C_final.expand(*batch, n, n), 2)
    v = batch_innermost(c_final.expand(*batch, n), 1)
    const = v.new_zeros(batch)
    steps, gains = [(V, v, const)], []
    for F_t, f_t, C_t, c_t in zip(
        _backwards(F, 2), _backwards(f, 1), _backwards(C, 2), _backwards(c, 1), strict=True
    ):
        Q, q = q_function(F_t, f_t, C_t, c_t, V, v)
        K, k, definite = minimizer(Q, q, n)
        if not definite:
            require(bool(Q.isfinite().all()), "F must be tame enough for a finite cost, got an overflow")
            require(False, "C must make every Q_uu positive definite: there is no minimum over u otherwise")
        const = const + dot(f_t, 0.5 * mv(V, f_t) + v) + 0.5 * dot(k, q[..., n:])
        V, v = value_function(Q, q, K, k)
        gains.append((K, k, Q[..., n:, n:]))
        steps.append((V, v, const))
    solved = (_stack(xs[::-1], len(batch)) for rows in (gains, steps) for xs in zip(*rows, strict=True))
    K, k, Q_uu, V, v, const = solved
    return LQRSolution(K, k, V, v, const, Q_uu)


def _backwards(x: Tensor, dims: int) -> Iterable[Tensor]:
    """x_{T-1}, ..., x_0 of x [..., T, *], `dims` dimensions behind time. What is expanded over time, the same
    at every step, is laid out once."""
    time = x.ndim - 1 - dims
    if x.stride(time) == 0:
        return repeat(batch_innermost(x.select(time, 0), dims), x.shape[time])
    return (batch_innermost(x_t, dims) for x_t in reversed(x.unbind(time)))


def q_function(F: Tensor, f: Tensor, C: Tensor, c: Tensor, V: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Q [..., n+m, n+m] and q [..., n+m] of one step: the cost now and from x' on, as a function of z."""
    return mm(F.mT, mm(V, F), plus=C), c + mv(F.mT, mv(V, f) + v)


def minimizer(Q: Tensor, q: Tensor, n: int) -> tuple[Tensor, Tensor, bool]:
    """K = -Q_uu^-1 Q_ux [..., m, n], k = -Q_uu^-1 q_u [..., m]; is every Q_uu positive definite?"""
    G, definite = eliminate(torch.cat([q[..., n:, None], Q[..., n:, :]], -1))
    return G[..., 1:], G[..., 0], bool(definite.all())


def value_function(Q: Tensor, q: Tensor, K: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """V [..., n, n] and v [..., n] under u = Kx + k, whether or not that minimises Q."""
    n = K.shape[-1]
    Q_xx, Q_xu, Q_uu = Q[..., :n, :n], Q[..., :n, n:], Q[..., n:, n:]
    half = mm(Q_xu + 0.5 * mm(K.mT, Q_uu), K, plus=0.5 * Q_xx)
    v = q[..., :n] + mv(Q_xu, k) + mv(K.mT, q[..., n:] + mv(Q_uu, k))
    return half + half.mT, v  # symmetric, or rounding would grow with the open loop


def _stack(xs: list[Tensor], batch: int) -> Tensor:
    """Time goes behind the batch dimensions; the memory stays as the steps have it."""
    stacked = torch.stack([x.permute((*range(batch, x.ndim), *range(batch))) for x in xs])
    dims = stacked.ndim - batch
    return stacked.permute((*range(dims, stacked.ndim), *range(dims)))


def forward(
    F: Tensor, f: Tensor, K: Tensor, k: Tensor, x0: Tensor, noise: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The forward recursion from x0 [..., n]: x [..., T+1, n] and u [..., T, m]. noise [..., T, n] is added
    to x_{t+1}; zero K plays k as a plan, whatever happens."""
    f = f if noise is None else f + noise
    batch = np.broadcast_shapes(F.shape[:-3], f.shape[:-2], K.shape[:-3], k.shape[:-2], x0.shape[:-1])
    x, u = [x0.expand(*batch, -1)], []
    for t in range(F.shape[-3]):
        u.append(mv(K[..., t, :, :], x[-1]) + k[..., t, :])
        x.append(mv(F[..., t, :, :], torch.cat([x[-1], u[-1]], -1)) + f[..., t, :])
    return torch.stack(x, -2), torch.stack(u, -2)


def dare(A: Tensor, B: Tensor, Q: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
    """Infinite horizon, cost 1/2 sum_t x'Qx + u'Ru: P = Q + A'P(A + BK), K = -(R + B'PB)^-1 B'PA.

    A [..., n, n], B [..., n, m], Q [..., n, n], R [..., m, m] -> P [..., n, n], K [..., m, n].
    """
    return _dare(A, B, Q, R, ("A", "B", "Q", "R"))


def _dare(A: Tensor, B: Tensor, Q: Tensor, R: Tensor, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """By doubling (Chu, Fan, Lin and Wang 2004): after j rounds H is the V of horizon 2^j."""
    require(B.ndim >= 2, f"{names[1]} must be a matrix, got {list(B.shape)}")
    n, m = B.shape[-2:]
    shapes = zip((A, B, Q, R), ((n, n), (n, m), (n, n), (m, m)), strict=True)
    check(dict(zip(names, shapes, strict=True)), symmetric=names[2:])
    require(not torch.linalg.cholesky_ex(R).info.any(), f"{names[3]} must be positive definite")
    require_semidefinite(names[2], Q)

    eye = torch.eye(n, dtype=A.dtype, device=A.device)
    E, G, H = torch.broadcast_tensors(A, B @ torch.linalg.solve(R, B.mT), Q)
    for _ in range(DOUBLINGS):
        W = torch.linalg.solve_ex(eye + G @ H, torch.cat([E, G], -1)).result  # (I + GH)^-1 [E, G]
        dG, dH = E @ W[..., n:] @ E.mT, E.mT @ H @ W[..., :n]
        E, G, H = E @ W[..., :n], G + 0.5 * (dG + dG.mT), H + 0.5 * (dH + dH.mT)
        if not dH.abs().amax() > 1e-17 * H.abs().amax():  # settled, or nan
            break
    P = policy_cost(A, B, Q, R, _gain(A, B, R, H))  # one step of Newton's method removes the rounding
    K = _gain(A, B, R, P)
    ok = bool(P.isfinite().all()) and bool((torch.linalg.eigvals(A + B @ K).abs() < 1).all())
    sentence = "({0}, {1}) must be stabilisable and ({0}, {2}) detectable: no gain found stabilises"
    require(ok, sentence.format(*names))
    return P, K


def _gain(A: Tensor, B: Tensor, R: Tensor, P: Tensor) -> Tensor:
    return -torch.linalg.solve_ex(R + B.mT @ P @ B, B.mT @ P @ A).result


def policy_cost(A: Tensor, B: Tensor, Q: Tensor, R: Tensor, K: Tensor) -> Tensor:
    """P = Q + K'RK + (A + BK)'P(A + BK) for a gain that stabilises; nan or inf for another (Smith 1968)."""
    E, P = A + B @ K, Q + K.mT @ R @ K
    for _ in range(DOUBLINGS):
        dP = E.mT @ P @ E
        P, E = P + 0.5 * (dP + dP.mT), E @ E
        if not dP.abs().amax() > 1e-17 * P.abs().amax():
            break
    return P


class LQGSolution(NamedTuple):
    """u = K x^, where x^ = x- + L (y - H x-) corrects the prediction x- = A x^ + B u."""

    K: Tensor  # [..., m, n]
    L: Tensor  # [..., n, p]
    P: Tensor  # [..., n, n]; 1/2 x'Px is the cost to go of a known state
    S: Tensor  # [..., n, n] covariance of x - x-, before y is seen
    cost: Tensor  # [...] mean cost per step


def lqg(A: Tensor, B: Tensor, H: Tensor, Q: Tensor, R: Tensor, W: Tensor, N: Tensor) -> LQGSolution:
    """x' = Ax + Bu + w, y = Hx + e, w ~ N(0, W), e ~ N(0, N), mean cost 1/2 (x'Qx + u'Ru) per step.

    Separation (Wonham 1968): the regulator of the known state and the Kalman filter, its dual, each on its
    own. H [..., p, n], W [..., n, n], N [..., p, p]; the rest as in `dare`.
    """
    P, K = dare(A, B, Q, R)
    S, _ = _dare(A.mT, H.mT, W, N, ("A'", "H'", "W", "N"))
    L = S @ torch.linalg.solve(H @ S @ H.mT + N, H).mT
    unknown = S - L @ H @ S  # covariance of x - x^
    excess = K.mT @ (R + B.mT @ P @ B) @ K
    return LQGSolution(K, L, P, S, 0.5 * ((P * W).sum((-2, -1)) + (excess * unknown).sum((-2, -1))))


def check(parts: dict[str, tuple[Tensor, tuple[int, ...]]], symmetric: Iterable[str] = ()) -> tuple[int, ...]:
    """Tensors by their names, and the shape that each must end in, must fit together: the batch dimensions
    that they broadcast to."""
    first, leading = next(iter(parts)), []
    dtype = parts[first][0].dtype
    require(dtype.is_floating_point, f"{first} must be a floating tensor, got {dtype}")
    for name, (x, shape) in parts.items():
        ok = x.ndim >= len(shape) and x.shape[x.ndim - len(shape) :] == shape
        require(ok, f"{name} must end in {list(shape)}, got {list(x.shape)}")
        require(x.numel() > 0, f"{name} must hold at least one problem, got {list(x.shape)}")
        require(x.dtype == dtype, f"{name} must be {dtype} as {first} is, got {x.dtype}")
        leading.append(tuple(x.shape[: x.ndim - len(shape)]))
        x = x[tuple(slice(None if stride else 1) for stride in x.stride())]  # once where it is expanded
        require(bool(x.sum().isfinite() or x.isfinite().all()), f"{name} must be finite, got nan or inf")
        if name in symmetric:
            require_symmetric(name, x)
    try:
        return np.broadcast_shapes(*leading)
    except ValueError:
        require(False, f"{', '.join(parts)} must have batch dimensions that broadcast, got {leading}")


def require_symmetric(name: str, x: Tensor) -> None:
    """x [..., d, d] must be symmetric, but for the rounding of a product S'S."""
    if not torch.equal(x, x.mT):
        gap = float((x - x.mT).abs().max() / x.abs().max())
        require(gap < 1e-6, f"{name} must be symmetric, got a relative gap of {gap:.1g}")


def require_semidefinite(name: str, x: Tensor) -> None:
    """The symmetric x [..., d, d] must be positive semidefinite, but for rounding."""
    lowest = torch.linalg.eigvalsh(x)[..., 0] + 1e-10 * x.abs().amax((-2, -1))
    require(bool((lowest >= 0).all()), f"{name} must be positive semidefinite")
