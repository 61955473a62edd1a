"""Taylor expansions of a problem along a trajectory, and derivatives of functions of one state, at N states
at once: by the function's program where it has one (hw5_planning_control.recorder), else by torch, one vmap
forward, then reverse mode.

Row i of a Jacobian is the gradient of output i. So every state is copied once per row, copy i answers for
row i, and one backward pass through the sum of the answers gives all rows of all N; the same again for
Hessians. (vmap of torch.func.jacrev gives the same numbers, three times slower on small systems.)
n state, m control, d = n+m, z = [x; u]. Each of `args` is [N, *], a further argument of the function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from hw5_planning_control.problem import TrajectoryProblem, over_batch
from hw5_planning_control.recorder import Recorded, played
from hw5_planning_control.small_matrices import mv
from hw5_planning_control.tape import Program

Function = Callable[..., Tensor]


class Expansion(NamedTuple):
    """Of dynamics and cost around a trajectory; ... batch dimensions."""

    F: Tensor  # [..., T, n, d] df/dz
    C: Tensor  # [..., T, d, d] d2c/dz2
    c: Tensor  # [..., T, d] dc/dz
    C_final: Tensor  # [..., n, n]
    c_final: Tensor  # [..., n]
    f_zz: Tensor | None = None  # [..., T, n, d, d] d2f/dz2

    def gradient(self) -> Tensor:
        """dJ/du = c_u + F_u' l_{t+1} [..., T, m] by the costates l_T = c_final, l_t = c_x + F_x' l_{t+1}."""
        n = self.F.shape[-2]
        before = torch.cat([self.c[..., 1:, :n], self.c_final[..., None, :]], -2).flip(-2)
        costate = affine_scan(self.F[..., :n].mT.roll(-1, -3).flip(-3), before).flip(-2)
        return self.c[..., n:] + mv(self.F[..., n:].mT, costate)


def expand(problem: TrajectoryProblem, x: Tensor, u: Tensor, second_order: bool = False) -> Expansion:
    """Along x [..., T+1, n], u [..., T, m], all steps of all problems together; f_zz on demand."""
    lead = u.shape[:-1]
    z = [part.flatten(0, len(lead) - 1) for part in (x[..., :-1, :], u, *problem.running_args())]
    F = over_batch(problem.jacobian, 1)(*z) if problem.jacobian else jacobian(problem.dynamics, *z)
    c, C = gradient_and_hessian(problem.cost, *z)
    f_zz = second_derivatives(problem.dynamics, *z).unflatten(0, lead) if second_order else None

    def final_cost(x: Tensor, no_control: Tensor, *args: Tensor) -> Tensor:
        return problem.final_cost(x, *args)

    if isinstance(problem.final_cost, Recorded):
        final_cost = problem.final_cost._replace(function=final_cost)
    batch = lead[:-1]
    last = [
        part.reshape(-1, *part.shape[len(batch) :])
        for part in (x[..., -1, :], *problem.args_at(problem.horizon))
    ]
    c_final, C_final = gradient_and_hessian(final_cost, last[0], last[0][:, :0], *last[1:])
    F, C, c = (part.unflatten(0, lead) for part in (F, C, c))
    return Expansion(F, C, c, C_final.reshape(*batch, *C_final.shape[1:]), c_final.reshape(*batch, -1), f_zz)


def affine_scan(A: Tensor, b: Tensor) -> Tensor:
    """y_t = A_t y_{t-1} + b_t from y = 0: A [..., T, n, n], b [..., T, n] -> [..., T, n]; A_0 is not used."""
    A, b = np.moveaxis(A.numpy(), -3, 0), np.moveaxis(b.numpy(), -2, 0)[..., None]
    y = [b[0]]
    for A_t, b_t in zip(A[1:], b[1:], strict=True):
        y.append(A_t @ y[-1] + b_t)
    return torch.from_numpy(np.stack(y, -3)[..., 0])


@torch.enable_grad()
def jacobian(f: Function, x: Tensor, u: Tensor, *args: Tensor) -> Tensor:
    """df/dz [N, n, d] of f(x [n], u [m], *args) -> [n], at x [N, n], u [N, m]."""
    if programs := _programs(f, 1, x, u):
        return played(programs[0], x, u, *args)
    z, y = _at_copies(x.shape[-1], f, x, u, args)  # [n, N, d], [n, N, n]
    return _gradient(y.diagonal(dim1=0, dim2=2), z).movedim(0, 1)


@torch.enable_grad()
def gradient_and_hessian(c: Function, x: Tensor, u: Tensor, *args: Tensor) -> tuple[Tensor, Tensor]:
    """dc/dz [N, d] and d2c/dz2 [N, d, d] of c(x [n], u [m], *args) -> []."""
    if programs := _programs(c, 2, x, u):
        return tuple(played(program, x, u, *args) for program in programs)
    z, y = _at_copies(x.shape[-1] + u.shape[-1], c, x, u, args)  # [d, N, d], [d, N]
    g = _gradient(y, z, twice=True)  # [d, N, d]
    return g[0].detach(), _gradient(g.diagonal(dim1=0, dim2=2), z).movedim(0, 1)


@torch.enable_grad()
def second_derivatives(f: Function, x: Tensor, u: Tensor, *args: Tensor) -> Tensor:
    """d2f_i/dz2 [N, n, d, d] of f(x [n], u [m], *args) -> [n]; copy (i, j) answers for row j of output i."""
    if programs := _programs(f, 2, x, u):
        return played(programs[1], x, u, *args)
    n, d = x.shape[-1], x.shape[-1] + u.shape[-1]
    z, y = _at_copies(n * d, f, x, u, args)  # [n*d, N, d], [n*d, N, n]
    g = _gradient(y.unflatten(0, (n, d)).diagonal(dim1=0, dim2=3), z, twice=True).unflatten(0, (n, d))
    return _gradient(g.diagonal(dim1=1, dim2=3), z).unflatten(0, (n, d)).movedim(2, 0)


def _programs(f: Function, order: int, x: Tensor, u: Tensor) -> list[Program]:
    """Those of the derivatives by z up to `order`; none where f or one of them has none."""
    found = [f.program] if isinstance(f, Recorded) else []
    while found and found[-1] and len(found) <= order:
        found.append(found[-1].jacobian(x.shape[-1] + u.shape[-1]))
    return found[1:] if found and found[-1] else []


def _at_copies(
    copies: int, f: Function, x: Tensor, u: Tensor, args: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """z [copies, N, d], to differentiate by, and f there [copies, N, *]."""
    z = torch.cat([x, u], -1).detach().repeat(copies, 1, 1).requires_grad_()
    flat = z.flatten(0, 1)
    repeated = (arg.repeat(copies, *[1] * (arg.ndim - 1)) for arg in args)
    y = vmap(f)(flat[:, : x.shape[-1]], flat[:, x.shape[-1] :], *repeated)
    return z, y.unflatten(0, (copies, len(x)))


def _gradient(y: Tensor, z: Tensor, twice: bool = False) -> Tensor:
    """d sum(y)/dz, zero where y does not depend on z."""
    if not y.requires_grad:
        return torch.zeros_like(z)
    return torch.autograd.grad(y.sum(), z, create_graph=twice, materialize_grads=True)[0]
