"""The gradient on the two-action problem: action 1 stays (reward 1), action 0 stops (reward 0).

pi(stay) = theta in the one state; gamma = 1, at most H steps. J = theta + theta^2 + ... + theta^H.
"""

import itertools
import math

import pytest
import torch

from common.types import EnvSpec, Rollout, UsageError
from hw2_policy_gradient.reinforce import Reinforce, ReinforceConfig, policy_gradient_loss
from hw2_policy_gradient.returns import reward_to_go, total_return
from tests.helpers import CPU, random_rollout

H = 6
SPEC = EnvSpec(num_envs=3, obs_dim=2, action_dim=2, discrete=True)


def trajectories(theta: float):
    """Every trajectory: its probability, actions [T], rewards [T, 1]."""
    for length in range(H + 1):  # number of times it stays
        actions = [1] * length + ([0] if length < H else [])
        reward = torch.tensor([[float(a)] for a in actions], dtype=torch.float64)
        yield theta**length * (1 - theta if length < H else 1), torch.tensor(actions), reward


def gradient(logit: torch.Tensor, actions: torch.Tensor, weight: torch.Tensor) -> float:
    """sum_t d log pi(a_t) / d logit times the weight, through the shipped loss."""
    log_prob = torch.stack((torch.nn.functional.logsigmoid(-logit), torch.nn.functional.logsigmoid(logit)))
    loss = policy_gradient_loss(log_prob[actions][:, None], weight)
    return -torch.autograd.grad(loss, logit)[0].item() * len(actions)


def moments(theta: float, weigh, baseline: float = 0.0) -> tuple[float, float]:
    """Mean and variance of the estimate over all trajectories, exact."""
    logit = torch.tensor(math.log(theta / (1 - theta)), dtype=torch.float64, requires_grad=True)
    mean = square = 0.0
    for p, actions, reward in trajectories(theta):
        ended = torch.zeros_like(reward, dtype=torch.bool)
        weight = weigh(reward, ended, 1.0, torch.zeros_like(reward)) - baseline
        g = gradient(logit, actions, weight)
        mean, square = mean + p * g, square + p * g * g
    return mean, square - mean**2


@pytest.mark.parametrize("theta", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("weigh", [total_return, reward_to_go])
@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_expected_gradient_is_exact(theta, weigh, baseline):
    """d J / d logit = theta (1 - theta) d J / d theta; no constant baseline changes it."""
    exact = theta * (1 - theta) * sum(k * theta ** (k - 1) for k in range(1, H + 1))
    assert moments(theta, weigh, baseline)[0] == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("theta", [0.2, 0.5, 0.8])
def test_causality_lowers_the_variance(theta):
    assert moments(theta, reward_to_go)[1] < moments(theta, total_return)[1]


def test_variances_at_one_half_by_hand():
    """theta = 1/2, length L of stays: each stay has score 1/2, the stop -1/2, total return L.
    Total: g = L (L - 1) / 2 if stopped, L^2 / 2 at L = H. Causal: g = L (L + 1) / 4."""
    p = [0.5 ** (k + 1) for k in range(H)] + [0.5**H]
    total = [k * (k - 1) / 2 for k in range(H)] + [H * H / 2]
    causal = [k * (k + 1) / 4 for k in range(H + 1)]
    for weigh, g in ((total_return, total), (reward_to_go, causal)):
        mean = sum(a * b for a, b in zip(p, g, strict=True))
        variance = sum(a * b * b for a, b in zip(p, g, strict=True)) - mean**2
        assert moments(0.5, weigh) == pytest.approx((mean, variance), rel=1e-12)


def test_loss_lets_no_gradient_into_the_weight():
    weight = torch.ones(2, 1, requires_grad=True)
    log_prob = torch.zeros(2, 1, requires_grad=True)
    policy_gradient_loss(log_prob, weight).backward()
    assert weight.grad is None
    torch.testing.assert_close(log_prob.grad, torch.full((2, 1), -0.5))


def agent(**config) -> Reinforce:
    return Reinforce(SPEC, ReinforceConfig(**config), total_updates=10, device=CPU, seed=0)


def squared_scores(learner: Reinforce, rollout: Rollout) -> torch.Tensor:
    """|grad log pi(a_t|s_t)|^2, one backward pass each: [T, N]"""
    parameters, squares = [*learner.policy.parameters()], []
    for obs, action in zip(rollout.obs.flatten(0, 1), rollout.action.flatten(), strict=True):
        g = torch.autograd.grad(learner.policy(obs[None]).log_prob(action[None]).sum(), parameters)
        squares.append(sum(each.square().sum() for each in g))
    return torch.stack(squares).view(rollout.action.shape)


@pytest.mark.parametrize("weight", ["total-return", "reward-to-go"])
@pytest.mark.parametrize("baseline", ["none", "average", "optimal", "learned"])
def test_weights_of_every_variant(weight, baseline):
    learner, rollout = agent(weight=weight, baseline=baseline, normalize=False), random_rollout(SPEC, 20)
    to_go, advantage = learner.advantage(rollout)
    with torch.no_grad():
        value, after = (learner.value(x).squeeze(-1) for x in (rollout.obs, rollout.next_obs))
    segment = (rollout.reward, rollout.ended, 0.99, after * ~rollout.terminated)
    expected = (total_return if weight == "total-return" else reward_to_go)(*segment)
    g = squared_scores(learner, rollout)
    subtract = {
        "none": torch.tensor(0.0),
        "average": expected.mean(),
        "optimal": (g * expected).sum() / g.sum(),
        "learned": value,
    }[baseline]
    torch.testing.assert_close(advantage, expected - subtract)
    torch.testing.assert_close(to_go, reward_to_go(*segment))


def test_normalised_weights_have_deviation_one():
    _, advantage = agent().advantage(random_rollout(SPEC, 50))
    assert advantage.std(correction=0).item() == pytest.approx(1, rel=1e-5)


def test_update_raises_the_probability_of_what_paid():
    """One state, action 1 pays 1 and action 0 nothing."""
    learner = agent(baseline="average")
    obs = torch.ones(50, 3, 2)
    action = torch.arange(50)[:, None].expand(50, 3) % 2
    over = torch.ones(50, 3, dtype=torch.bool)
    rollout = Rollout(obs, action, action.float(), obs, over, ~over)
    before = learner.policy(obs[0]).log_p[0, 1].item()
    for _ in range(5):
        learner.update(rollout)
    assert learner.policy(obs[0]).log_p[0, 1].item() > before + 0.1


@pytest.mark.parametrize("spec", [SPEC, EnvSpec(3, 2, 4, False)], ids=["discrete", "continuous"])
@pytest.mark.parametrize("baseline", ["optimal", "learned"])
def test_update_reports_finite_numbers(spec, baseline):
    learner = Reinforce(spec, ReinforceConfig(baseline=baseline), total_updates=2, device=CPU, seed=0)
    for k in range(2):
        metrics = learner.update(random_rollout(spec, 10, seed=k))
    assert all(math.isfinite(value) for value in metrics.values())
    assert learner.updates == 2


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 1.1}, {"gamma": math.nan}, {"lr": 0.0}, {"lr": math.inf}, {"value_steps": 0},
        {"hidden": (0,)}, {"log_std": math.nan}, {"max_grad_norm": -1.0}, {"value_lr": math.nan},
    ],
)  # fmt: skip
def test_bad_settings_are_named(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        ReinforceConfig(**change)


def test_all_trajectories_are_enumerated():
    assert sum(p for p, *_ in trajectories(0.3)) == pytest.approx(1)
    assert len(list(itertools.chain(trajectories(0.3)))) == H + 1


@pytest.mark.parametrize("decay", [True, False])
def test_learning_rate_falls_to_zero_over_the_run_if_asked(decay):
    """The rate of update k of 10 is lr (1 - k / 10)."""
    learner, rollout = agent(lr=1e-2, lr_decay=decay), random_rollout(SPEC, 8)
    rates = []
    for _ in range(3):
        learner.update(rollout)
        rates.append(learner.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-2, 0.9e-2, 0.8e-2] if decay else [1e-2] * 3)
