"""The recursion against the optimality conditions solved at once, scipy, rollouts and exact expectations."""

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu

from common.envs.linear_quadratic import LinearQuadratic, random_linear_quadratic
from hw5_planning_control.lqr import dare, forward, lqg, lqr, policy_cost

F64 = {"dtype": torch.float64}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def solve(s: LinearQuadratic):
    return lqr(*s[:6])


def kkt(s: LinearQuadratic) -> tuple[np.ndarray, np.ndarray]:
    """x [T, n] from x_1 on and u [T, m] that solve every optimality condition of the problem at once.

    Unknowns per step: u_t, the multiplier l_{t+1} of x_{t+1} = F_t z_t + f_t, and x_{t+1}.
    """
    F, f, C, c, C_final, c_final, _, x0 = (a.numpy() for a in s)
    T, n = f.shape
    m = F.shape[2] - n
    size = 2 * n + m
    rows, columns, values, right = [], [], [], np.zeros(T * size)

    def put(row: int, column: int, block: np.ndarray) -> None:
        i, j = np.indices(block.shape)
        for xs, x in zip((rows, columns, values), (row + i, column + j, block), strict=True):
            xs.append(x.ravel())

    for t in range(T):
        u, lam, x_next = t * size, t * size + m, t * size + m + n
        x = x_next - size  # of x_t
        A, B = F[t, :, :n], F[t, :, n:]
        put(u, u, C[t, n:, n:])
        put(u, lam, B.T)
        put(lam, u, B)
        put(lam, x_next, -np.eye(n))
        put(x_next, lam, -np.eye(n))
        put(x_next, x_next, C_final if t == T - 1 else C[t + 1, :n, :n])
        right[u:lam] = -c[t, n:]
        right[lam:x_next] = -f[t]
        right[x_next : x_next + n] = -(c_final if t == T - 1 else c[t + 1, :n])
        if t == 0:
            right[u:lam] -= C[0, n:, :n] @ x0
            right[lam:x_next] -= A @ x0
        else:
            put(u, x, C[t, n:, :n])
            put(x, u, C[t, :n, n:])
            put(lam, x, A)
            put(x, lam, A.T)
    place = np.concatenate(rows), np.concatenate(columns)
    matrix = coo_array((np.concatenate(values), place)).tocsc()
    factors = splu(matrix, permc_spec="NATURAL")
    z = factors.solve(right)
    z = (z + factors.solve(right - matrix @ z)).reshape(T, size)
    return z[:, m + n :], z[:, :m]


def one(s: LinearQuadratic, i: int) -> LinearQuadratic:
    return LinearQuadratic(*(part[i] for part in s))


def assert_close(actual: torch.Tensor, expected: torch.Tensor, relative: float) -> None:
    assert float((actual - expected).abs().max()) <= relative * float(expected.abs().max())


@pytest.mark.parametrize("seed", range(20))
def test_the_recursion_solves_every_optimality_condition_at_once(seed):
    """Ten problems of one random size; 200 in all, half of them unstable: growth 0.5 to 1.5 per step."""
    rng = np.random.default_rng(seed)
    T, n, m = (int(rng.integers(1, most + 1)) for most in (100, 20, 8))
    s = random_linear_quadratic(T, n, m, seeded(seed), growth=0.5 + seed / 19, batch=(10,))
    solution = solve(s)
    x, u = forward(s.F, s.f, solution.K, solution.k, s.x0)
    for i in range(10):
        x_exact, u_exact = map(torch.from_numpy, kkt(one(s, i)))
        assert_close(x[i, 1:], x_exact, 1e-10)
        assert_close(u[i], u_exact, 1e-10)


def test_one_step_by_hand():
    """x' = x + u, cost 1/2 x^2 + 1/2 u^2 + 1/2 x'^2 from x = 4: u = -x/2, cost 1/2 (16 + 4 + 4) = 12."""
    F, f = torch.ones(1, 1, 2, **F64), torch.zeros(1, 1, **F64)
    C, c, C_final = torch.eye(2, **F64)[None], torch.zeros(1, 2, **F64), torch.ones(1, 1, **F64)
    solution = lqr(F, f, C, c, C_final)
    assert float(solution.K) == -0.5
    assert float(solution.k) == 0
    assert float(solution.Q_uu) == 2
    assert float(solution.cost_to_go(torch.tensor([4.0], **F64))) == 12


@pytest.mark.parametrize("growth", [0.8, 1.3])
def test_cost_to_go_is_the_cost_of_the_rollout(growth):
    """From every step on, affine terms included."""
    s = random_linear_quadratic(60, 6, 2, seeded(0), growth)
    solution = solve(s)
    x, u = forward(s.F, s.f, solution.K, solution.k, s.x0)
    for t in (0, 1, 30, 59):
        rest = LinearQuadratic(*(part[t:] for part in s[:4]), *s[4:])
        cost = rest.cost(x[t:], u[t:])
        assert_close(solution.cost_to_go(x[t], t), cost, 1e-12)


def test_no_other_control_costs_less():
    s = random_linear_quadratic(10, 3, 2, seeded(1))
    solution = solve(s)
    x, u = forward(s.F, s.f, solution.K, solution.k, s.x0)
    other_u = u + 0.1 * torch.randn(50, *u.shape, generator=seeded(2), **F64)
    other_x, _ = forward(s.F, s.f, 0 * solution.K, other_u, s.x0)
    assert bool((s.cost(other_x, other_u) > s.cost(x, u)).all())


def test_a_batch_is_a_loop():
    """Also where only some of the arguments have batch dimensions."""
    s = random_linear_quadratic(7, 3, 2, seeded(3), batch=(2, 3))
    shared = s._replace(C=s.C[0, 0], c_final=s.c_final[0, 0])
    together = solve(shared)
    for i in range(2):
        for j in range(3):
            alone = lqr(s.F[i, j], s.f[i, j], shared.C, s.c[i, j], s.C_final[i, j], shared.c_final)
            for ours, expected in zip(together, alone, strict=True):
                torch.testing.assert_close(ours[i, j], expected, rtol=1e-12, atol=1e-12)


def test_hundreds_of_problems_are_a_loop():
    """Where the products take another way through memory."""
    s = random_linear_quadratic(5, 4, 2, seeded(9), batch=(300,))
    together = solve(s)
    for i in (0, 150, 299):
        for ours, expected in zip(together, solve(one(s, i)), strict=True):
            torch.testing.assert_close(ours[i], expected, rtol=1e-12, atol=1e-12)


def test_what_is_the_same_at_every_step_may_be_expanded():
    """Three problems whose matrices are expanded over time, or written out."""
    s = random_linear_quadratic(7, 3, 2, seeded(0), batch=(3,))
    once = [part[:, :1].expand_as(part) for part in s[:4]]
    found, expected = lqr(*once, *s[4:6]), lqr(*(part.contiguous() for part in once), *s[4:6])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


def test_noise_changes_the_cost_but_not_the_policy():
    """Certainty equivalence: lqr never sees W, and its policy stays a minimum of the exact mean cost."""
    s = random_linear_quadratic(8, 3, 2, seeded(4))
    K, k, V, *_ = solution = solve(s)
    expected = solution.cost_to_go(s.x0) + 0.5 * (V[1:] * s.W).sum()
    assert_close(s.expected_cost(K, k), expected, 1e-12)
    K, k = K.clone().requires_grad_(), k.clone().requires_grad_()
    for gradient in torch.autograd.grad(s.expected_cost(K, k), (K, k)):
        assert float(gradient.abs().max()) < 1e-12 * float(expected)


def test_a_plan_costs_more_than_feedback_by_the_exact_amount():
    """1/2 sum_t tr((S_{t+1} - V_{t+1}) W_t), S = C_xx + A'SA being what noise costs that nobody corrects."""
    s = random_linear_quadratic(12, 3, 2, seeded(5), growth=1.1)
    K, k, V, *_ = solve(s)
    _, plan = forward(s.F, s.f, K, k, s.x0)
    gap, S = 0.0, s.C_final
    for t in reversed(range(12)):
        gap += 0.5 * float(((S - V[t + 1]) * s.W[t]).sum())
        S = s.C[t, :3, :3] + s.F[t, :, :3].mT @ S @ s.F[t, :, :3]
    difference = s.expected_cost(torch.zeros_like(K), plan) - s.expected_cost(K, k)
    assert gap > 0
    assert float(difference) == pytest.approx(gap, rel=1e-12)


@pytest.mark.parametrize("feedback", [True, False])
def test_the_exact_mean_cost_is_the_mean_of_sampled_costs(feedback):
    """20,000 noisy rollouts, within four standard errors."""
    s = random_linear_quadratic(6, 2, 1, seeded(6))
    K, k, *_ = solve(s)
    if not feedback:
        k, K = forward(s.F, s.f, K, k, s.x0)[1], torch.zeros_like(K)
    x, u = forward(s.F, s.f, K, k, s.x0, s.noise(20_000, seeded(7)))
    costs = s.cost(x, u)
    error = float(costs.mean() - s.expected_cost(K, k))
    assert abs(error) < 4 * float(costs.std()) / 20_000**0.5


def system(n: int, m: int, seed: int, growth: float = 1.0) -> tuple[torch.Tensor, ...]:
    """A, B, Q, R"""
    s = random_linear_quadratic(1, n, m, seeded(seed), growth)
    return s.F[0, :, :n], s.F[0, :, n:], s.C[0, :n, :n], s.C[0, n:, n:]


def test_dare_is_scipys():
    """100 random systems, half of them unstable; and P solves its equation."""
    rng = np.random.default_rng(0)
    for seed in range(100):
        A, B, Q, R = system(
            *(int(rng.integers(1, most + 1)) for most in (20, 8)), seed, rng.uniform(0.3, 1.5)
        )
        P, K = dare(A, B, Q, R)
        expected = torch.from_numpy(scipy.linalg.solve_discrete_are(*(a.numpy() for a in (A, B, Q, R))))
        assert_close(P, expected, 1e-10)
        assert_close(Q + A.mT @ P @ (A + B @ K), P, 1e-12)
        assert_close(-torch.linalg.solve(R + B.mT @ P @ B, B.mT @ P @ A), K, 1e-12)


def test_dare_of_the_double_integrator_and_of_the_golden_ratio():
    """dt = 1, Q = I, R = 1: the published digits. a = b = q = r = 1: P = 1 + P / (1 + P), the golden
    ratio."""
    A, B = torch.tensor([[1.0, 1.0], [0.0, 1.0]], **F64), torch.tensor([[0.0], [1.0]], **F64)
    P, K = dare(A, B, torch.eye(2, **F64), torch.eye(1, **F64))
    torch.testing.assert_close(
        P, torch.tensor([[2.94712297, 2.36920541], [2.36920541, 4.61313426]], **F64), rtol=0, atol=6e-9
    )
    torch.testing.assert_close(K, -torch.tensor([[0.42208244, 1.24392885]], **F64), rtol=0, atol=6e-9)
    P, _ = dare(*(torch.ones(1, 1, **F64),) * 4)
    assert float(P) == pytest.approx((1 + 5**0.5) / 2, rel=1e-15)


def test_dare_is_the_limit_of_long_horizons_and_batched():
    A, B, Q, R = map(torch.stack, zip(system(4, 2, 0), system(4, 2, 1, growth=1.3), strict=True))
    P, K = dare(A, B, Q, R)
    F = torch.cat([A, B], -1)[:, None].expand(-1, 200, -1, -1)
    C = torch.stack([torch.block_diag(*pair) for pair in zip(Q, R, strict=True)])[:, None].expand(
        -1, 200, -1, -1
    )
    long = lqr(F, 0 * F[..., 0], C, 0 * C[..., 0])
    assert_close(P, long.V[:, 0], 1e-12)
    assert_close(K, long.K[:, 0], 1e-12)


def test_policy_cost_is_the_sum_of_what_a_gain_pays():
    A, B, Q, R = system(3, 1, 2, growth=0.5)
    K = 0.1 * torch.ones(1, 3, **F64)
    expected = scipy.linalg.solve_discrete_lyapunov((A + B @ K).mT.numpy(), (Q + K.mT @ R @ K).numpy())
    assert_close(policy_cost(A, B, Q, R, K), torch.from_numpy(expected), 1e-12)


def lqg_cost(A, B, H, Q, R, W, N, K, L) -> float:
    """Mean cost per step of any gains, by the stationary covariance of the state x and the prediction x-.

    u = K x^, x^ = x- + L (H x + e - H x-), x' = A x + B u + w, x-' = A x^ + B u.
    """
    LH = L @ H
    A_plus = A + B @ K
    joint = torch.cat(
        [
            torch.cat([A + B @ K @ LH, B @ K - B @ K @ LH], 1),
            torch.cat([A_plus @ LH, A_plus - A_plus @ LH], 1),
        ]
    )
    e = torch.cat([B @ K @ L, A_plus @ L])
    noise = e @ N @ e.mT + torch.block_diag(W, 0 * W)
    S = torch.from_numpy(scipy.linalg.solve_discrete_lyapunov(joint.numpy(), noise.numpy()))
    to_u = torch.cat([K @ LH, K - K @ LH], 1)
    cov_u = to_u @ S @ to_u.mT + K @ L @ N @ (K @ L).mT
    n = len(A)
    return 0.5 * float((Q * S[:n, :n]).sum() + (R * cov_u).sum())


def lqg_system(seed: int) -> tuple[torch.Tensor, ...]:
    """A, B, H, Q, R, W, N with n = 4, m = 2, p = 2, unstable."""
    A, B, Q, R = system(4, 2, seed, growth=1.2)
    _, H, W, N = system(4, 2, seed + 100)
    return A, B, H.mT, Q, R, W, N


def test_lqg_separates():
    """The regulator knows nothing of the noise, the filter nothing of the cost; the cost is the exact one,
    and no change of either gain lowers it."""
    parts = lqg_system(0)
    A, B, H, Q, R, W, N = parts
    solution = lqg(*parts)
    assert torch.equal(solution.K, dare(A, B, Q, R)[1])
    other = lqg(A, B, H, 3 * Q, R, W, N)
    assert torch.equal(other.L, solution.L)
    best = lqg_cost(*parts, solution.K, solution.L)
    assert float(solution.cost) == pytest.approx(best, rel=1e-12)
    for seed in range(10):
        dK, dL = (
            1e-3 * torch.randn(x.shape, generator=seeded(seed), **F64) for x in (solution.K, solution.L)
        )
        assert lqg_cost(*parts, solution.K + dK, solution.L) > best
        assert lqg_cost(*parts, solution.K, solution.L + dL) > best


def test_lqg_with_everything_seen_is_the_regulator():
    """As N -> 0 with H = I the filter believes the measurement, and 1/2 tr(PW) is left."""
    A, B, _, Q, R, W, _ = lqg_system(1)
    eye = torch.eye(4, **F64)
    solution = lqg(A, B, eye, Q, R, W, 1e-9 * eye)
    torch.testing.assert_close(solution.L, eye, rtol=0, atol=1e-7)
    assert float(solution.cost) == pytest.approx(0.5 * float((solution.P * W).sum()), rel=1e-6)


def good() -> dict[str, torch.Tensor]:
    return dict(
        zip(
            ("F", "f", "C", "c", "C_final", "c_final"),
            random_linear_quadratic(3, 2, 1, seeded(8))[:6],
            strict=True,
        )
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"F": torch.ones(2, 3, **F64)}, r"F must be \[..., T, n, n\+m\]"),
        ({"F": torch.ones(3, 2, 2, **F64)}, "F must be .* at least 1"),
        ({"F": torch.ones(3, 2, 3, dtype=torch.int64)}, "F must be a floating tensor"),
        ({"f": torch.ones(3, 1, **F64)}, r"f must end in \[3, 2\]"),
        ({"c": torch.full((3, 3), torch.nan, **F64)}, "c must be finite"),
        ({"C": torch.arange(27.0, **F64).reshape(3, 3, 3)}, "C must be symmetric"),
        ({"C": -torch.eye(3, **F64).expand(3, 3, 3)}, "C must make every Q_uu positive definite"),
        ({"C_final": torch.tensor([[1.0, 2.0], [0.0, 1.0]], **F64)}, "C_final must be symmetric"),
        ({"c_final": torch.tensor([torch.inf, 0.0], **F64)}, "c_final must be finite"),
        ({"f": torch.ones(4, 3, 2, **F64), "c": torch.ones(5, 3, 3, **F64)}, "batch dimensions that"),
        ({"F": torch.full((3, 2, 3), 1e200, **F64)}, "F must be tame"),
        ({"c": torch.ones(3, 3)}, "c must be torch.float64 as F is, got torch.float32"),
        ({"C_final": torch.eye(2)}, "C_final must be torch.float64 as F is"),
        ({"f": torch.ones(0, 3, 2, **F64)}, r"f must hold at least one problem, got \[0, 3, 2\]"),
    ],
)  # fmt: skip
def test_bad_input_is_named(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        lqr(**{**good(), **change})


@pytest.mark.parametrize(
    ("i", "matrix", "sentence"),
    [
        (0, [[1.0, 2.0]], "A must end in"),
        (0, [[1.0, torch.nan], [0.0, 1.0]], "A must be finite"),
        (1, [[0.0], [0.0]], "stabilisable"),
        (2, [[1.0, 0.0], [0.0, -1.0]], "Q must be positive semidefinite"),
        (2, [[0.0, 0.0], [0.0, 0.0]], "detectable"),
        (2, [[1.0, 1.0], [0.0, 1.0]], "Q must be symmetric"),
        (3, [[0.0]], "R must be positive definite"),
    ],
)
def test_dare_refuses_what_has_no_answer(i, matrix, sentence):
    parts = [torch.tensor([[1.2, 1.0], [0.0, 1.1]], **F64), torch.tensor([[0.0], [1.0]], **F64)]
    parts += [torch.eye(2, **F64), torch.eye(1, **F64)]
    dare(*parts)
    parts[i] = torch.tensor(matrix, **F64)
    with pytest.raises(ValueError, match=sentence):
        dare(*parts)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"A": torch.ones(0, 2, 2, **F64)}, r"A must hold at least one problem, got \[0, 2, 2\]"),
        ({"R": torch.eye(1)}, "R must be torch.float64 as A is, got torch.float32"),
        ({"Q": torch.ones(3, 2, 2, **F64), "A": torch.ones(4, 2, 2, **F64)}, "batch dimensions that"),
    ],
)
def test_dare_refuses_tensors_that_do_not_fit_together(change, sentence):
    parts = {"A": torch.eye(2, **F64), "B": torch.ones(2, 1, **F64)}
    parts |= {"Q": torch.eye(2, **F64), "R": torch.eye(1, **F64)}
    with pytest.raises(ValueError, match=sentence):
        dare(**parts | change)


def test_lqg_refuses_what_the_filter_cannot_see():
    A, B, H, Q, R, W, N = lqg_system(2)
    with pytest.raises(ValueError, match=r"\(A', H'\) must be stabilisable"):
        lqg(2 * A, B, 0 * H, Q, R, W, N)
