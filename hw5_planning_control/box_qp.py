"""min_x 1/2 x'Hx + g'x  s.t.  low <= x <= high, by projected Newton steps (Bertsekas 1982).

An entry on a limit whose gradient pushes outwards is held there; the free rest takes a Newton step, shortened
by Armijo's rule along its projection into the box. H must be positive definite. ... batch, m entries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hw5_planning_control.small_matrices import dot, mv

STEPS = 100  # a handful in practice: a step that meets no limit is exact
HALVINGS = 40
ARMIJO = 0.1  # share of the promised decrease that a step must keep


def box_qp(H: Tensor, g: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """H [..., m, m], g, low, high [..., m] -> the minimiser [..., m] and, bool, which entries are free."""
    newton = -torch.linalg.solve_ex(H, g).result
    x = newton.clamp(low, high)
    if torch.equal(x, newton):
        return x, torch.ones_like(x, dtype=torch.bool)
    for _ in range(STEPS):
        gradient = mv(H, x) + g
        free = ~(((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0)))
        left = torch.where(free, gradient, 0)
        rounding = 8 * torch.finfo(g.dtype).eps * (mv(H.abs(), x.abs()) + g.abs())
        active = (left.abs() > rounding).any(-1)
        step = -torch.linalg.solve_ex(free_block(H, free), left).result
        alpha = torch.ones_like(g[..., :1])
        for _ in range(HALVINGS):
            if not active.any():
                return x, free
            moved = (x + alpha * step).clamp(low, high)
            d = moved - x
            change = dot(d, gradient + 0.5 * mv(H, d))
            falls = change <= ARMIJO * dot(d, gradient)
            if falls[active].all():
                break
            alpha = torch.where(falls[..., None], alpha, 0.5 * alpha)
        x = torch.where(active[..., None], moved, x)
    return x, free


def free_block(H: Tensor, free: Tensor) -> Tensor:
    """H [..., m, m] with the identity's rows and columns where entries are not free [..., m]."""
    eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    return torch.where(free[..., None] & free[..., None, :], H, eye)
