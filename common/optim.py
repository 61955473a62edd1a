"""Gradient steps, averages of parameters, and linear systems that are known by their products only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from common.types import require


def gradient_step(
    loss: Tensor, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], max_norm: float
) -> Tensor:
    """Descend `loss` once, the gradient's norm cut to `max_norm`. Returns the norm before the cut.

    The norm stays on the device; log it. A loss or gradient that is not finite makes it so, and the logger
    stops the run there, before anything is saved.
    """
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(parameters, max_norm, foreach=True)
    optimizer.step()
    return norm


def descend(loss: Tensor, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> None:
    """Descend `loss` once, by gradients with respect to `parameters` only.

    What else the loss went through, such as the critic that an actor climbs, gets none: neither is it moved
    nor is its gradient computed, which would cost half as much again.
    """
    optimizer.zero_grad()
    loss.backward(inputs=parameters)
    optimizer.step()


@torch.no_grad()
def polyak(targets: Sequence[Tensor], sources: Sequence[Tensor], tau: float) -> None:
    """target <- (1 - tau) target + tau source, in place; tau = 1 copies."""
    torch._foreach_lerp_(targets, sources, tau)


@torch.no_grad()
def conjugate_gradient(
    product: Callable[[Tensor], Tensor], b: Tensor, iterations: int | None = None, tolerance: float = 1e-10
) -> Tensor:
    """x with A x = b, product(v) = A v, A symmetric and positive definite (Hestenes, Stiefel 1952).

    b [P] -> x [P], after at most `iterations` products (P of them unless given), sooner where the residual
    falls to `tolerance` of b. No x in the span of b, A b, ..., A^{k-1} b is nearer than the k-th iterate.
    """
    require(b.ndim == 1 and bool(torch.isfinite(b).all()), f"b must be a finite vector, got {list(b.shape)}")
    x, residual, direction = torch.zeros_like(b), b, b
    square = start = b @ b  # squared length of the residual
    for _ in range(len(b) if iterations is None else iterations):
        if square <= tolerance**2 * start:
            break
        image = product(direction)
        curvature = direction @ image
        require(bool(curvature > 0), f"product must be positive definite, got v' A v = {curvature:.3g}")
        x = x + (square / curvature) * direction
        residual = residual - (square / curvature) * image
        before, square = square, residual @ residual
        direction = residual + (square / before) * direction
    return x
