"""Conjugate gradient against dense solvers; gradient steps that leave others alone."""

import copy
import math

import pytest
import torch

from common.optim import Adam, clip_gradient, conjugate_gradient, descend, polyak
from common.types import UsageError
from tests.helpers import assert_same


def positive_definite(size: int, generator: torch.Generator, dtype=torch.float64) -> torch.Tensor:
    root = torch.randn(size, size, generator=generator, dtype=dtype)
    return root @ root.T / size + 0.1 * torch.eye(size, dtype=dtype)


def test_two_by_two_by_hand():
    """A = [[4, 1], [1, 3]], b = [1, 2]: x = [1, 7] / 11, and the first iterate is (b'b / b'Ab) b = b / 4."""
    matrix, b = torch.tensor([[4.0, 1.0], [1.0, 3.0]]), torch.tensor([1.0, 2.0])
    torch.testing.assert_close(conjugate_gradient(matrix.mv, b), torch.tensor([1 / 11, 7 / 11]))
    torch.testing.assert_close(conjugate_gradient(matrix.mv, b, iterations=1), b / 4)


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_agrees_with_a_dense_solver(size, generator):
    matrix, b = positive_definite(size, generator), torch.randn(size, generator=generator).double()
    x = conjugate_gradient(matrix.mv, b, iterations=10 * size)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, b), rtol=1e-8, atol=1e-10)


def test_three_eigenvalues_take_three_products(generator):
    """However large the matrix is."""
    basis, _ = torch.linalg.qr(torch.randn(30, 30, generator=generator, dtype=torch.float64))
    matrix = basis @ torch.diag(torch.tensor([1.0, 5.0, 20.0]).double().repeat(10)) @ basis.T
    b, calls = torch.randn(30, generator=generator).double(), []
    x = conjugate_gradient(lambda v: calls.append(1) or matrix @ v, b)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, b))
    assert len(calls) == 3


@pytest.mark.parametrize("iterations", [1, 3, 6])
def test_iterate_is_the_best_of_its_krylov_space(iterations, generator):
    """It minimises the energy 1/2 x'Ax - b'x there, so its residual is orthogonal to all of the space."""
    matrix, b = positive_definite(12, generator), torch.randn(12, generator=generator).double()
    x = conjugate_gradient(matrix.mv, b, iterations)
    krylov = torch.stack([torch.linalg.matrix_power(matrix, k) @ b for k in range(iterations)])
    basis = torch.linalg.qr(krylov.T).Q  # [12, iterations]
    torch.testing.assert_close(basis @ (basis.T @ x), x)
    assert (basis.T @ (b - matrix @ x)).abs().max() < 1e-9


def test_stops_at_the_tolerance(generator):
    matrix, b, calls = positive_definite(40, generator), torch.ones(40).double(), []
    x = conjugate_gradient(lambda v: calls.append(1) or matrix @ v, b, tolerance=1e-2)
    assert (b - matrix @ x).norm() <= 1.001e-2 * b.norm()
    assert len(calls) < 40


def test_zero_right_side_needs_no_product():
    assert not conjugate_gradient(lambda v: pytest.fail("called"), torch.zeros(3)).any()


def test_keeps_the_type_and_leaves_b_alone(generator):
    for dtype in (torch.float32, torch.float64):
        b = torch.ones(5, dtype=dtype)
        assert conjugate_gradient(positive_definite(5, generator, dtype).mv, b).dtype == dtype
        assert torch.equal(b, torch.ones(5, dtype=dtype))


@pytest.mark.parametrize("b", [torch.tensor([1.0, math.nan]), torch.tensor([math.inf]), torch.ones(2, 2)])
def test_bad_right_side_is_named(b):
    with pytest.raises(UsageError, match="b must be a finite vector"):
        conjugate_gradient(lambda v: v, b)


@pytest.mark.parametrize("factor", [-1.0, 0.0, math.nan])
def test_matrix_that_is_not_positive_definite_is_refused(factor):
    with pytest.raises(UsageError, match="product must be positive definite"):
        conjugate_gradient(lambda v: factor * v, torch.ones(3))


def test_descent_moves_and_differentiates_its_own_parameters_only():
    """loss = a b: a steps against b by the learning rate; b, which it goes through, gets no gradient."""
    a, b = (torch.tensor(x, requires_grad=True) for x in (2.0, 3.0))
    descend(a * b, torch.optim.SGD([a], lr=0.1), [a])
    assert a.item() == pytest.approx(2 - 0.1 * 3)
    assert b.item() == 3
    assert b.grad is None


def test_polyak_average_by_hand():
    targets, sources = [torch.tensor([0.0, 8.0])], [torch.tensor([4.0, 0.0])]
    polyak(targets, sources, 0.25)
    assert targets[0].tolist() == [1, 6]
    polyak(targets, sources, 1.0)
    assert torch.equal(targets[0], sources[0])


def test_adam_takes_torchs_steps_bit_for_bit(generator):
    """At a falling rate; no gradient reaches the bias at first; then each goes on from the other's state."""
    ours, torchs = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    torchs.load_state_dict(ours.state_dict())
    options = {"betas": (0.5, 0.9), "eps": 1e-5, "weight_decay": 0.1}
    mine = Adam(ours.parameters(), 0.1, **options)
    theirs = torch.optim.Adam(torchs.parameters(), 0.1, **options, fused=True)
    for k in range(20):
        x = torch.randn(8, 3, generator=generator)
        for net, optimizer in ((ours, mine), (torchs, theirs)):
            optimizer.param_groups[0]["lr"] = 0.1 / (k + 1)
            optimizer.zero_grad()
            out = net(x) if k > 4 else x @ net.weight.T
            out.square().sum().backward()
            optimizer.step()
        assert_same(ours.state_dict(), torchs.state_dict())
        if k == 10:
            states = copy.deepcopy(mine.state_dict()), copy.deepcopy(theirs.state_dict())
            theirs.load_state_dict(states[0])
            mine.load_state_dict(states[1])
    assert_same(mine.state_dict()["state"], theirs.state_dict()["state"])


@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_clipping_is_torchs_bit_for_bit(max_norm, generator):
    """Cut and not cut; the third parameter has no gradient."""
    ours, torchs = (
        [torch.nn.Parameter(torch.zeros(size)) for size in ((3, 2), (4,), (5,))] for _ in range(2)
    )
    for a, b in zip(ours[:2], torchs, strict=False):
        a.grad = torch.randn(a.shape, generator=generator)
        b.grad = a.grad.clone()
    norm = torch.nn.utils.clip_grad_norm_(torchs, max_norm, foreach=True)
    assert torch.equal(clip_gradient(ours, max_norm), norm)
    assert_same([p.grad for p in ours[:2]], [p.grad for p in torchs[:2]])
    assert ours[2].grad is None
