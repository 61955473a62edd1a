"""Hand numbers, limits, the exact operators, and learning from another policy's trajectories."""

import math

import numpy as np
import pytest
import torch

from common.envs.finite_mdp import random_mdp
from common.types import UsageError
from hw3_q_learning.dynamic_programming import action_values, policy_evaluation
from hw3_q_learning.retrace import COEFFICIENTS, expected_update, n_step_update, off_policy_target

GAMMA, S, A = 0.9, 6, 3
F64 = {"dtype": torch.float64}


def problem(seed: int = 0):
    """P, R, target pi, behaviour mu (far from pi), Q^pi and some other Q."""
    rng = np.random.default_rng(seed)
    mdp = random_mdp(S, A, 2, rng)
    pi, mu = rng.dirichlet(np.full(A, 0.5), S), rng.dirichlet(np.full(A, 2.0), S)
    q_pi = action_values(mdp.P, mdp.R, policy_evaluation(mdp.P, mdp.R, pi, GAMMA), GAMMA)
    return mdp.P, mdp.R, pi, mu, q_pi, rng.standard_normal((S, A))


def noise(steps: int = 8, envs: int = 3):
    """q, next_value, reward, c, terminated, ended, all [T, N]."""
    g = torch.Generator().manual_seed(0)
    q, next_value, reward = torch.randn(3, steps, envs, generator=g, **F64)
    terminated = torch.rand(steps, envs, generator=g) < 0.15
    ended = terminated | (torch.rand(steps, envs, generator=g) < 0.15)
    return q, next_value, reward, torch.rand(steps, envs, generator=g, **F64), terminated, ended


def column(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, **F64)[:, None]


def test_target_by_hand():
    """gamma = 1/2. delta = (1 + 2 - 0, 1 + 1 - 4, 2 - 1) = (3, -2, 1), the last one ends; c = (., 1/2, 1).
    Corrections 1, -2 + 1/2 = -3/2, 3 + 1/4 (-3/2) = 21/8; plus Q."""
    q, value, reward = column(0, 4, 1), column(4, 2, 9), column(1, 1, 2)
    ended = torch.tensor([False, False, True])[:, None]
    target = off_policy_target(q, value, reward, column(7, 0.5, 1), ended, ended, 0.5)
    torch.testing.assert_close(target, column(21 / 8, 5 / 2, 2))


def test_target_is_the_sum_of_its_definition():
    """Q + sum_k gamma^k c_{t+1} ... c_{t+k} delta_{t+k}, up to the end of each episode."""
    q, value, reward, c, terminated, ended = noise()
    target = off_policy_target(q, value, reward, c, terminated, ended, GAMMA)
    delta = reward + GAMMA * value * ~terminated - q
    for n in range(3):
        for t in range(8):
            total, weight, k = q[t, n], 1.0, t
            while True:
                total, last = total + weight * delta[k, n], bool(ended[k, n])
                k += 1
                if last or k == 8:
                    break
                weight *= GAMMA * c[k, n]
            assert target[t, n] == pytest.approx(total.item())


def test_lambda_zero_is_one_step():
    q, value, reward, c, terminated, ended = noise()
    for name in ("Q(lambda)", "tree backup", "Retrace"):
        zero = COEFFICIENTS[name](c, c, 0.0)
        target = off_policy_target(q, value, reward, zero, terminated, ended, GAMMA)
        torch.testing.assert_close(target, reward + GAMMA * value * ~terminated)


def test_on_policy_with_lambda_one_is_monte_carlo_with_q_as_control_variate():
    """pi = mu deterministic: E_pi Q(s', .) = Q(s', a'): the sum telescopes to rewards and the last value."""
    g = torch.Generator().manual_seed(0)
    q, reward, no = (
        torch.randn(6, 2, generator=g, **F64),
        torch.randn(6, 2, generator=g, **F64),
        torch.zeros(6, 2),
    )
    last = torch.randn(1, 2, generator=g, **F64)
    c = COEFFICIENTS["Retrace"](torch.ones(6, 2, **F64), torch.ones(6, 2, **F64), 1.0)
    target = off_policy_target(q, torch.cat([q[1:], last]), reward, c, no.bool(), no.bool(), GAMMA)
    discount = GAMMA ** torch.arange(6, **F64)
    torch.testing.assert_close(target[0], discount @ reward + GAMMA**6 * last[0])


def test_retrace_with_a_greedy_policy_cuts_where_an_action_is_not_greedy():
    """pi is 1 or 0, mu is less than 1: c = 1 or 0, whatever mu is."""
    mu = torch.tensor([0.9, 0.3, 0.05])
    pi = torch.tensor([1.0, 0.0, 1.0])
    assert COEFFICIENTS["Retrace"](pi, mu, 1.0).tolist() == [1, 0, 1]
    assert COEFFICIENTS["tree backup"](pi, mu, 1.0).tolist() == [1, 0, 1]


def test_coefficients_by_hand():
    pi, mu = np.array([0.6, 0.2]), np.array([0.3, 0.4])
    values = {name: c(pi, mu, 0.5).tolist() for name, c in COEFFICIENTS.items()}
    assert values == {
        "importance sampling": [2, 0.5],
        "Q(lambda)": [0.5, 0.5],
        "tree backup": [0.3, 0.1],
        "Retrace": [0.5, 0.25],
    }


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_the_value_of_the_policy_is_a_fixed_point_of_all(name):
    P, R, pi, mu, q_pi, _ = problem()
    c = COEFFICIENTS[name](pi, mu, 0.9)
    np.testing.assert_allclose(expected_update(P, R, pi, mu, c, GAMMA, q_pi), q_pi, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["tree backup", "Retrace"])
def test_retrace_and_tree_backup_contract_by_gamma_or_better(seed, lam, name):
    """For any pi and mu; Retrace by gamma only at lambda = 0. It never cuts more than tree backup."""
    P, R, pi, mu, q_pi, Q = problem(seed)
    c = COEFFICIENTS[name](pi, mu, lam)
    after = expected_update(P, R, pi, mu, c, GAMMA, Q)
    assert np.abs(after - q_pi).max() <= GAMMA * np.abs(Q - q_pi).max() + 1e-12
    assert (COEFFICIENTS["Retrace"](pi, mu, lam) >= COEFFICIENTS["tree backup"](pi, mu, lam)).all()


def test_importance_sampling_arrives_at_once():
    P, R, pi, mu, q_pi, Q = problem()
    np.testing.assert_allclose(expected_update(P, R, pi, mu, pi / mu, GAMMA, Q), q_pi, atol=1e-11)


def test_q_lambda_diverges_where_the_policies_are_far_apart_and_retrace_does_not():
    """Two states, stay or switch: pi switches, mu stays with 0.9. On values of opposite sign P_pi is -1, P_mu
    0.8: one update of Q(1) multiplies the error by -1.8 gamma / (1 - 0.8 gamma) = -7.125 at gamma = 0.95,
    Retrace's c = mu(switch) / 1 by no more than gamma."""
    P = np.stack([np.eye(2), np.eye(2)[::-1]], 1)
    pi, mu = np.array([[0.0, 1.0]] * 2), np.array([[0.9, 0.1]] * 2)
    Q = np.array([[1.0, -1.0], [-1.0, 1.0]])  # the true Q is zero
    after = {
        name: expected_update(P, np.zeros((2, 2)), pi, mu, c(pi, mu, 1.0), 0.95, Q)
        for name, c in COEFFICIENTS.items()
    }
    np.testing.assert_allclose(after["Q(lambda)"], -7.125 * Q)
    assert np.abs(after["Retrace"]).max() <= 0.95


def test_n_steps_of_another_policy_lead_to_a_wrong_value():
    """One step is right, three are right on-policy only; hand value: pi earns 1 a step, mu 0: with n = 2
    Q = 1 + gamma 0 + gamma^2 Q of the rewarded action."""
    P, R, pi, mu, q_pi, _ = problem()
    np.testing.assert_allclose(n_step_update(P, R, pi, mu, 1, GAMMA, q_pi), q_pi, atol=1e-12)
    np.testing.assert_allclose(n_step_update(P, R, pi, pi, 3, GAMMA, q_pi), q_pi, atol=1e-12)
    assert np.abs(n_step_update(P, R, pi, mu, 3, GAMMA, q_pi) - q_pi).max() > 0.1
    one = np.ones((1, 2, 1)), np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    Q = np.zeros((1, 2))
    for _ in range(200):
        Q = n_step_update(*one, 2, 0.5, Q)
    np.testing.assert_allclose(Q, [[1 / (1 - 0.25), 0.25 / (1 - 0.25)]])  # the truth is 2 and 1


def trajectories(P, R, mu, start: tuple[int, int], episodes: int, steps: int, rng):
    """[T, N] states and actions of mu from one first (s, a)."""
    draw = lambda p: (p.cumsum(-1) < rng.random((len(p), 1))).sum(-1).clip(max=p.shape[-1] - 1)  # noqa: E731
    s, a = np.full(episodes, start[0]), np.full(episodes, start[1])
    rows = []
    for _ in range(steps):
        s_next = draw(P[s, a])
        rows.append((s, a, s_next))
        s, a = s_next, draw(mu[s_next])
    return (np.stack(x) for x in zip(*rows, strict=True))


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_the_mean_of_sampled_targets_is_the_exact_update(name):
    """4,000 trajectories of mu, 80 steps each, the mean within five standard errors."""
    P, R, pi, mu, _, Q = problem()
    mu = 0.5 * mu + 0.5 * pi  # importance sampling has a finite variance
    coefficient = COEFFICIENTS[name](pi, mu, 0.9)
    s, a, s_next = trajectories(P, R, mu, (1, 2), 4000, 80, np.random.default_rng(0))
    columns = (Q[s, a], (pi * Q).sum(1)[s_next], R[s, a], coefficient[s, a])
    no = torch.zeros(s.shape, dtype=torch.bool)
    target = off_policy_target(*map(torch.from_numpy, columns), no, no, GAMMA)[0].numpy()
    exact = expected_update(P, R, pi, mu, coefficient, GAMMA, Q)[1, 2]
    assert abs(target.mean() - exact) < 5 * target.std() / math.sqrt(4000) + 1e-3


def test_retrace_learns_the_value_of_pi_from_mu_where_n_steps_do_not():
    """20 trajectories of 200 steps of mu, again and again; Q(s, a) <- the mean of its targets. Five sets of
    them: Retrace's error 0.08 to 0.16, that of three uncorrected steps 0.82 to 0.91; Q is about 4.7."""
    P, R, pi, mu, q_pi, _ = problem()
    s, a, s_next = trajectories(P, R, mu, (0, 0), 20, 200, np.random.default_rng(0))
    no = torch.zeros(s.shape, dtype=torch.bool)
    index, errors = s * A + a, {}
    for name in ("Retrace", "three steps"):
        Q = np.zeros((S, A))
        for _ in range(30):
            value = (pi * Q).sum(1)
            if name == "Retrace":
                columns = (Q[s, a], value[s_next], R[s, a], COEFFICIENTS[name](pi, mu, 1.0)[s, a])
                y = off_policy_target(*map(torch.from_numpy, columns), no, no, GAMMA).numpy()
            else:
                r = R[s, a]
                y = r[:-2] + GAMMA * r[1:-1] + GAMMA**2 * r[2:] + GAMMA**3 * value[s_next[2:]]
            where = index[: len(y)].ravel()
            count = np.bincount(where, minlength=S * A)
            Q = (np.bincount(where, y.ravel(), S * A) / count).reshape(S, A)
        errors[name] = np.abs(Q - q_pi).max()
    assert errors["Retrace"] < 0.3
    assert errors["three steps"] > 0.6


P2, R2, HALF = np.full((2, 2, 2), 0.5), np.zeros((2, 2)), np.full((2, 2), 0.5)
ROW = torch.zeros(3, 1)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: off_policy_target(ROW[:2], ROW, ROW, ROW, ROW, ROW, 0.9), r"q and reward must be \[T, N\]"),
        (lambda: off_policy_target(ROW, ROW, ROW, ROW * math.nan, ROW, ROW, 0.9), "c must be finite"),
        (lambda: off_policy_target(ROW, ROW, ROW + math.inf, ROW, ROW, ROW, 0.9), "reward must be finite"),
        (lambda: off_policy_target(ROW, ROW, ROW, ROW, ROW[:1], ROW, 0.9), "terminated and ended must be"),
        (lambda: off_policy_target(ROW, ROW, ROW, ROW, ROW, ROW, 1.1), "gamma must lie"),
        (lambda: expected_update(P2, R2, HALF * 2, HALF, HALF, 0.9, R2), "pi must hold probabilities"),
        (lambda: expected_update(P2, R2, HALF, HALF, HALF * 6, 0.9, R2), "c must fade out"),
        (lambda: expected_update(P2, R2, HALF, HALF, HALF, 0.9, R2[:1]), r"Q must be finite and \[2, 2\]"),
        (lambda: expected_update(P2 * 2, R2, HALF, HALF, HALF, 0.9, R2), "P must hold probabilities"),
        (lambda: n_step_update(P2, R2[:1], HALF, HALF, 1, 0.9, R2), "P and R must be"),
        (lambda: n_step_update(P2, R2, HALF, HALF, 0, 0.9, R2), "n must be at least 1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(call, sentence):
    with pytest.raises(UsageError, match=sentence):
        call()
