"""Products of thousands of small matrices, quicker than a batched matrix product on a CPU.

For 4 x 4 matrices torch.bmm spends its time on bookkeeping. With the batch innermost in memory, A B is the
sum of the outer products of A's columns and B's rows, each one long vectorised multiplication. Shapes stay
[..., i, j] throughout; only the strides know.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Matrix = Tensor | np.ndarray
MANY = 256  # matrices from which the sum of outer products is worth it
SMALL = 16  # and its most terms


def batch_innermost(x: Tensor, dims: int) -> Tensor:
    """The same tensor, its last `dims` dimensions outermost in memory."""
    batch = x.ndim - dims
    if batch == 0 or x.permute(*range(batch, x.ndim), *range(batch)).is_contiguous():
        return x
    rows = x.flatten(0, batch - 1).flatten(1).contiguous()  # torch transposes a matrix in blocks, and quickly
    inner = rows.t().contiguous().reshape(*x.shape[batch:], *x.shape[:batch])
    return inner.permute(*range(dims, x.ndim), *range(dims))


def mm(A: Tensor, B: Tensor, plus: Tensor | None = None) -> Tensor:
    """A B + plus: [..., i, j], [..., j, k], [..., i, k] -> [..., i, k]"""
    if A.shape[-1] > SMALL or A[..., 0, 0].numel() < MANY:
        return A @ B if plus is None else plus + A @ B
    for column, row in zip(A.split(1, -1), B.split(1, -2), strict=True):
        plus = column * row if plus is None else torch.addcmul(plus, column, row)
    return plus


def mv(A: Tensor, x: Tensor) -> Tensor:
    """A x: [..., i, j], [..., j] -> [..., i]"""
    return torch.mv(A, x) if A.ndim == 2 and x.ndim == 1 else mm(A, x[..., None])[..., 0]


def dot(x: Tensor, y: Tensor) -> Tensor:
    """x'y: [..., n], [..., n] -> [...]"""
    return (x * y).sum(-1)


def eliminate(Q_u: Matrix) -> tuple[Matrix, Matrix]:
    """G = -Q_uu^-1 Q_uy [..., m, j] of Q_u = [Q_uy, Q_uu] [..., m, j+m], by Gauss-Jordan elimination; and
    bool [...]: is Q_uu positive definite? It is where all pivots are. Where it is not, G is of no use."""
    m, rows, definite = Q_u.shape[-2], Q_u, True
    for i in range(m):
        pivot = rows[..., i : i + 1, i - m, None]
        definite = definite & (pivot > 0)
        row = rows[..., i : i + 1, :] / pivot
        rows = rows - rows[..., i - m, None] * row
        rows[..., i : i + 1, :] = row
    return -rows[..., :-m], definite[..., 0, 0]
