"""Hand numbers, and the optimality conditions of random programs."""

import torch

from hw5_planning_control.box_qp import box_qp, free_block

F64 = {"dtype": torch.float64}


def random_programs(m: int, count: int, seed: int = 0):
    """H, g, low, high of which about half of the entries end on a limit."""
    g = torch.Generator().manual_seed(seed)
    root = torch.randn(count, m, m, generator=g, **F64)
    limits = torch.rand(2, count, m, generator=g, **F64)
    linear = 3 * torch.randn(count, m, generator=g, **F64)
    return root @ root.mT + 0.05 * torch.eye(m, **F64), linear, -limits[0], limits[1]


def test_by_hand():
    """min 1/2 (x^2 + y^2) - 3x + xy/2 on [-1, 1]^2: x = 1 on its limit, then y = -1/2."""
    H = torch.tensor([[1.0, 0.5], [0.5, 1.0]], **F64)
    x, free = box_qp(H, torch.tensor([-3.0, 0.0], **F64), -torch.ones(2, **F64), torch.ones(2, **F64))
    torch.testing.assert_close(x, torch.tensor([1.0, -0.5], **F64))
    assert free.tolist() == [False, True]


def test_without_limits_it_is_newtons_step():
    H, g, *_ = random_programs(4, 3)
    far = torch.full((3, 4), torch.inf, **F64)
    x, free = box_qp(H, g, -far, far)
    torch.testing.assert_close(x, -torch.linalg.solve(H, g), rtol=1e-12, atol=1e-12)
    assert bool(free.all())


def test_optimality_of_random_programs():
    """x = clip(x - gradient), necessary and enough where H is definite; what is not free is on a limit."""
    for m in (1, 2, 3, 8):
        H, g, low, high = random_programs(m, 200)
        x, free = box_qp(H, g, low, high)
        gradient = (H @ x[..., None])[..., 0] + g
        assert float((x - (x - gradient).clamp(low, high)).abs().max()) < 1e-12
        assert bool(((x == low) | (x == high) | free).all())
        assert 0.05 < float(free.double().mean()) < 0.95


def test_a_batch_is_a_loop():
    programs = random_programs(5, 20)
    x, free = box_qp(*programs)
    for i in range(20):
        x_i, free_i = box_qp(*(part[i] for part in programs))
        torch.testing.assert_close(x[i], x_i, rtol=1e-12, atol=1e-12)
        assert torch.equal(free[i], free_i)


def test_equal_limits_fix_an_entry():
    H, g, low, high = random_programs(3, 50)
    low[:, 1] = high[:, 1] = 0.25
    x, _ = box_qp(H, g, low, high)
    assert bool((x[:, 1] == 0.25).all())


def test_free_block():
    H = torch.arange(9.0).reshape(3, 3)
    expected = [[0, 0, 2], [0, 1, 0], [6, 0, 8]]
    assert free_block(H, torch.tensor([True, False, True])).tolist() == expected
