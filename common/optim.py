"""Gradient steps, averages of parameters, and linear systems that are known by their products only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from common.types import require


class Adam(torch.optim.Adam):
    """torch.optim.Adam's fused step (Kingma and Ba 2015): the same numbers bit for bit, the same state.

    It lacks closures, hooks and marks for the profiler, which take longer than the step of a small network.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(parameters, lr, betas, eps, weight_decay, fused=True)

    def zero_grad(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            states = [self.state[p] or self.begin(p) for p in parameters]
            steps = [s["step"] for s in states]
            torch._foreach_add_(steps, 1)
            torch._fused_adam_(
                parameters,
                [p.grad for p in parameters],
                [s["exp_avg"] for s in states],
                [s["exp_avg_sq"] for s in states],
                [],
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                eps=group["eps"],
                weight_decay=group["weight_decay"],
                amsgrad=False,
                maximize=False,
            )

    step.hooked = True  # says that it needs no wrapper

    def begin(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        self.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
        return self.state[parameter]


def gradient_step(
    loss: Tensor, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], max_norm: float
) -> Tensor:
    """Descend `loss` once, the gradient's norm cut to `max_norm`. Returns the norm before the cut.

    The norm stays on the device; log it. A loss or gradient that is not finite makes it so, and the logger
    stops the run there, before anything is saved.
    """
    optimizer.zero_grad()
    loss.backward()
    norm = clip_gradient(parameters, max_norm)
    optimizer.step()
    return norm


@torch.no_grad()
def clip_gradient(parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
    """torch's clip_grad_norm_ bit for bit, without sorting by device: returns the norm before the cut."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1))
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
