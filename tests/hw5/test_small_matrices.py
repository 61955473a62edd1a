"""Whatever the layout in memory and the number of matrices, the product is the product."""

import numpy as np
import pytest
import torch

from hw5_planning_control.small_matrices import MANY, SMALL, batch_innermost, dot, eliminate, mm, mv

F64 = {"dtype": torch.float64}


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), **F64)


@pytest.mark.parametrize("batch", [(), (3,), (MANY,), (2, MANY), (MANY, 1)])
@pytest.mark.parametrize("inner", [1, 4, SMALL, SMALL + 1])
def test_products_are_matmuls(batch, inner):
    A, B = normal(*batch, 3, inner), normal(*batch, inner, 2)
    expected = torch.matmul(A, B)
    for left, right in ((A, B), (batch_innermost(A, 2), batch_innermost(B, 2)), (A, batch_innermost(B, 2))):
        torch.testing.assert_close(mm(left, right), expected, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(mm(left, right, plus=expected), 2 * expected, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(mv(left, right[..., 1]), expected[..., 1], rtol=1e-13, atol=1e-13)
    assert torch.equal(A, normal(*batch, 3, inner))  # added up elsewhere


def test_a_vector_is_not_taken_for_a_batch():
    """Many matrices, one vector; and one matrix, many vectors."""
    A, x = normal(MANY, 3, 3), normal(MANY, 3)
    torch.testing.assert_close(mv(A, x[0]), A @ x[0], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(mv(A[0], x), x @ A[0].mT, rtol=1e-13, atol=1e-13)


def test_batch_innermost_moves_memory_not_meaning():
    x = normal(5, 6, 3, 2)
    y = batch_innermost(x, 2)
    assert torch.equal(x, y)
    assert y.stride() == (6, 1, 60, 30)
    assert torch.equal(batch_innermost(x, 1), x)


def test_dot():
    assert dot(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([5.0, 6.0])).tolist() == [17, 39]


@pytest.mark.parametrize("m", [1, 2, 5])
def test_elimination_solves_and_knows_what_is_definite(m):
    """Against numpy's solution and its smallest eigenvalue, three problems at once."""
    random = np.random.default_rng(m)
    Q_uy, Q_uu = random.normal(size=(3, m, 4)), random.normal(size=(3, m, m))
    Q_uu = Q_uu @ Q_uu.mT + 0.1 * np.eye(m)
    Q_uu[1] -= (np.linalg.eigvalsh(Q_uu[1])[0] + 0.01) * np.eye(m)
    Q_u = np.concatenate([Q_uy, Q_uu], -1)
    G, definite = eliminate(Q_u)
    assert definite.tolist() == [True, False, True]
    np.testing.assert_allclose(G[::2], -np.linalg.solve(Q_uu, Q_uy)[::2], rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(eliminate(Q_u[0])[0], G[0])
    np.testing.assert_array_equal(eliminate(torch.from_numpy(Q_u))[0], G)
    assert not eliminate(np.full((m, 2 * m), np.nan))[1]
