"""Hand numbers, limits and identities; the slow loops here are the definitions."""

import pytest
import torch

from common.types import EnvSpec, UsageError
from hw2_policy_gradient.returns import (
    critic_advantage,
    discounted_return,
    explained_variance,
    gae,
    n_step_return,
    reward_to_go,
    standardize,
    total_return,
)
from tests.helpers import random_rollout

T, N = 7, 3
F64 = {"dtype": torch.float64}


def segments(seed: int = 0):
    """Rewards, V(s), V(s') and ends: column 0 terminates at row 2, column 1 is truncated at row 4."""
    g = torch.Generator().manual_seed(seed)
    reward, value, next_value = (torch.randn(T, N, generator=g, **F64) for _ in range(3))
    terminated, truncated = torch.zeros(2, T, N, dtype=torch.bool)
    terminated[2, 0] = truncated[4, 1] = True
    ended = terminated | truncated
    value[1:][~ended[:-1]] = next_value[:-1][~ended[:-1]]  # s_{t+1} is s' unless an episode ended there
    return reward, value, next_value, terminated, ended


def column(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, **F64)[:, None]


NO, END = column(0, 0, 0).bool(), column(0, 1, 0).bool()


def test_discounted_return_by_hand():
    """1 + 2/2 + 4/4 = 3, the same weight for every action of the trajectory."""
    torch.testing.assert_close(discounted_return(column(1, 2, 4), 0.5), column(3, 3, 3))


def test_reward_to_go_by_hand():
    bootstrap = column(99, 99, 8)  # used on the last row only
    torch.testing.assert_close(reward_to_go(column(1, 2, 4), NO, 0.5, bootstrap), column(4, 6, 8))


def test_reward_to_go_stops_at_an_end_and_bootstraps_there():
    """Truncated after row 1 with V(s') = 10: 2 + 5 = 7, 1 + 3.5 = 4.5; then 4 + 4 = 8."""
    bootstrap = column(99, 10, 8)
    torch.testing.assert_close(reward_to_go(column(1, 2, 4), END, 0.5, bootstrap), column(4.5, 7, 8))


def test_total_return_is_the_first_reward_to_go_of_its_segment():
    bootstrap = column(99, 10, 8)
    torch.testing.assert_close(total_return(column(1, 2, 4), END, 0.5, bootstrap), column(4.5, 4.5, 8))


def test_total_return_of_one_episode_is_the_discounted_return():
    reward, *_ = segments()
    zero, never = torch.zeros_like(reward), torch.zeros(T, N, dtype=torch.bool)
    torch.testing.assert_close(total_return(reward, never, 0.9, zero), discounted_return(reward, 0.9))


def test_both_discounts_differ_by_gamma_to_the_t():
    """gamma^{t'} (finite horizon) against gamma^{t'-t} (death model): of one episode, the rewards from t
    on are worth gamma^t times as much in the first."""
    reward, *_ = segments()
    zero, never = torch.zeros_like(reward), torch.zeros(T, N, dtype=torch.bool)
    to_go = reward_to_go(reward, never, 0.9, zero)
    for t in range(T):
        masked = reward * (torch.arange(T) >= t)[:, None]
        torch.testing.assert_close(discounted_return(masked, 0.9)[0], 0.9**t * to_go[t])


@pytest.mark.parametrize("n", [1, 2, 3, T, 50])
def test_n_step_return_is_its_definition(n):
    reward, _, next_value, terminated, ended = segments()
    expected = torch.zeros_like(reward)
    for j in range(N):
        for t in range(T):
            for k in range(n):
                expected[t, j] += 0.9**k * reward[t + k, j]
                if k == n - 1 or ended[t + k, j] or t + k == T - 1:
                    expected[t, j] += 0.9 ** (k + 1) * next_value[t + k, j] * ~terminated[t + k, j]
                    break
    torch.testing.assert_close(n_step_return(reward, next_value, terminated, ended, 0.9, n), expected)


def test_gae_is_its_definition():
    """A_t = sum_l (gamma lam)^l delta_{t+l} up to the end of the segment."""
    reward, value, next_value, terminated, ended = segments()
    delta = reward + 0.9 * next_value * ~terminated - value
    expected = torch.zeros_like(reward)
    for j in range(N):
        for t in range(T):
            for k in range(T - t):
                expected[t, j] += (0.9 * 0.8) ** k * delta[t + k, j]
                if ended[t + k, j]:
                    break
    torch.testing.assert_close(gae(reward, value, next_value, terminated, ended, 0.9, 0.8), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_gae_limits_are_td_and_monte_carlo(gamma):
    reward, value, next_value, terminated, ended = segments()
    bootstrap = next_value * ~terminated
    td = gae(reward, value, next_value, terminated, ended, gamma, 0.0)
    torch.testing.assert_close(td, reward + gamma * bootstrap - value)
    mc = gae(reward, value, next_value, terminated, ended, gamma, 1.0)
    torch.testing.assert_close(mc, reward_to_go(reward, ended, gamma, bootstrap) - value)


def test_gae_is_the_mix_of_n_step_advantages():
    """A = (1 - lam) sum_n lam^{n-1} (G^(n) - V), the tail of the sum being Monte Carlo (eq. 16's origin)."""
    reward, value, next_value, terminated, ended = segments()
    lam, mix = 0.7, 0.0
    for n in range(1, 200):
        mix += (1 - lam) * lam ** (n - 1) * n_step_return(reward, next_value, terminated, ended, 0.9, n)
    expected = gae(reward, value, next_value, terminated, ended, 0.9, lam)
    torch.testing.assert_close(mix - value, expected)


def test_n_step_limits_are_td_and_monte_carlo():
    reward, _, next_value, terminated, ended = segments()
    one = n_step_return(reward, next_value, terminated, ended, 0.9, 1)
    torch.testing.assert_close(one, reward + 0.9 * next_value * ~terminated)
    many = n_step_return(reward, next_value, terminated, ended, 0.9, T)
    torch.testing.assert_close(many, reward_to_go(reward, ended, 0.9, next_value * ~terminated))


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_gae_of_a_constant_value_in_closed_form(gamma, lam):
    """Reward 1, V = v everywhere: delta = 1 - (1 - gamma) v, and A_t is a geometric sum of it."""
    v = 3.0
    reward, value = torch.ones(T, N, **F64), torch.full((T, N), v, **F64)
    never = torch.zeros(T, N, dtype=torch.bool)
    delta = 1 - (1 - gamma) * v
    powers = sum((gamma * lam) ** k * (torch.arange(T, 0, -1) > k) for k in range(T))
    expected = (delta * powers.to(torch.float64))[:, None].expand(T, N)
    torch.testing.assert_close(gae(reward, value, value, never, never, gamma, lam), expected)


def test_true_value_has_no_advantage_at_a_time_limit_but_not_when_taken_for_an_end():
    """Constant reward 1, V = 1/(1 - gamma), limit at row 4: A = 0; taken for a termination A_4 = -gamma V."""
    reward, v = torch.ones(T, 1, **F64), torch.full((T, 1), 10.0, **F64)
    limit, never = torch.zeros(2, T, 1, dtype=torch.bool)
    limit[4] = True
    torch.testing.assert_close(gae(reward, v, v, never, limit, 0.9, 0.95), torch.zeros(T, 1, **F64))
    assert gae(reward, v, v, limit, limit, 0.9, 0.95)[4].item() == pytest.approx(-9.0)


def test_masks_may_be_numbers_and_dtype_is_kept():
    reward, value, next_value, terminated, ended = segments()
    number = gae(reward, value, next_value, terminated.double(), ended.double(), 0.9, 0.8)
    torch.testing.assert_close(number, gae(reward, value, next_value, terminated, ended, 0.9, 0.8))
    assert number.dtype == torch.float64
    single = [x.float() for x in (reward, value, next_value)]
    assert gae(*single, terminated, ended, 0.9, 0.8).dtype == torch.float32
    assert n_step_return(reward, next_value, terminated, ended, 0.9, 3).dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"gamma": 1.5}, "gamma must lie in"),
        ({"gamma": float("nan")}, "gamma must lie in"),
        ({"lam": -0.1}, "lam must lie in"),
        ({"value": torch.zeros(T, N + 1)}, "value must be"),
        ({"next_value": torch.full((T, N), float("nan"))}, "next_value must be finite"),
        ({"reward": torch.full((T, N), float("inf"))}, "reward must be finite"),
        ({"terminated": torch.zeros(T)}, "terminated must be"),
        ({"reward": torch.zeros(T)}, r"reward must be \[T, N\]"),
        ({"reward": torch.zeros(0, N)}, r"reward must be \[T, N\]"),
    ],
)
def test_bad_input_is_named(change, sentence):
    names = ("reward", "value", "next_value", "terminated", "ended")
    arguments = dict(zip(names, segments(), strict=True)) | {"gamma": 0.9, "lam": 0.9} | change
    with pytest.raises(ValueError, match=sentence):
        gae(**arguments)


def test_zero_steps_are_refused():
    reward, _, next_value, terminated, ended = segments()
    with pytest.raises(ValueError, match="n must be at least 1"):
        n_step_return(reward, next_value, terminated, ended, 0.9, 0)


def test_explained_variance_of_a_perfect_a_constant_and_a_lonely_critic():
    target = column(1, 2, 6)
    assert explained_variance(target, target) == 1
    assert explained_variance(column(3, 3, 3), target) == pytest.approx(0)
    assert explained_variance(-target, target) == pytest.approx(-3)
    assert torch.isfinite(explained_variance(column(0), column(1)))  # a rollout of one step


def test_critic_advantage_is_gae_of_the_critic_and_the_target_adds_the_value():
    rollout = random_rollout(EnvSpec(num_envs=3, obs_dim=2, action_dim=2, discrete=True), 20)
    critic = torch.nn.Linear(2, 1)
    advantage, target = critic_advantage(critic, rollout, rollout.obs, rollout.next_obs, 0.99, 0.8)
    with torch.no_grad():
        value, after = (critic(x).squeeze(-1) for x in (rollout.obs, rollout.next_obs))
    expected = gae(rollout.reward, value, after, rollout.terminated, rollout.ended, 0.99, 0.8)
    torch.testing.assert_close(advantage, expected)
    torch.testing.assert_close(target - advantage, value)
    assert not target.requires_grad


def test_standardize():
    x = standardize(torch.tensor([1.0, 2.0, 6.0]))
    assert x.mean().item() == pytest.approx(0, abs=1e-6)
    assert x.std(correction=0).item() == pytest.approx(1)
    assert standardize(torch.tensor([5.0])).tolist() == [0.0]


def test_integer_rewards_are_refused():
    """gamma would be cut to an integer with them."""
    with pytest.raises(UsageError, match="reward must be floating"):
        discounted_return(torch.ones(3, 1, dtype=torch.int64), 0.9)
