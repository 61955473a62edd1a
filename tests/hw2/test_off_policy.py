"""Expectations under the behaviour policy over every trajectory of a small problem."""

import math

import pytest
import torch

from common.types import UsageError
from hw2_policy_gradient.off_policy import (
    first_order_weight,
    past_ratio,
    per_decision_weight,
    per_trajectory_weight,
)
from hw2_policy_gradient.returns import reward_to_go, total_return
from tests.hw2.enumeration import F64, SmallMDP, T, moments

MDP = SmallMDP()
NEW, OLD = MDP.logits, MDP.other_logits
ALL = [per_trajectory_weight, per_decision_weight, first_order_weight]
EXACT = [per_trajectory_weight, per_decision_weight]


def estimate(weigh, new=NEW, old=OLD, gamma=1.0) -> tuple[torch.Tensor, float]:
    """Mean [S A] and variance of the gradient at `new` from trajectories of `old`."""
    log_ratio = MDP.log_prob(new) - MDP.log_prob(old)
    weight = weigh(MDP.reward, log_ratio, MDP.ended, gamma, MDP.zero)
    return moments(MDP.probability(old), (MDP.scores(new) * weight[..., None]).sum(0))


@pytest.mark.parametrize("weigh", EXACT)
def test_the_expectation_is_the_gradient_of_the_new_policy(weigh):
    torch.testing.assert_close(estimate(weigh)[0], MDP.exact_gradient(NEW, 1.0))


@pytest.mark.parametrize(("weigh", "on_policy"), [*zip(EXACT, [total_return, reward_to_go], strict=True)])
def test_with_a_discount_it_is_what_the_new_policy_would_have_estimated(weigh, on_policy):
    weight = on_policy(MDP.reward, MDP.ended, 0.7, MDP.zero)
    expected, _ = moments(MDP.probability(NEW), (MDP.scores(NEW) * weight[..., None]).sum(0))
    torch.testing.assert_close(estimate(weigh, gamma=0.7)[0], expected)


def test_per_decision_has_less_variance_than_per_trajectory():
    """34.9 against 12.7 here; first order, the biased one, has 9.6."""
    trajectory, decision, first = (estimate(weigh)[1] for weigh in ALL)
    assert first < decision < 0.5 * trajectory


def test_the_variance_grows_with_the_distance_of_the_policies():
    for weigh in EXACT:
        near, middle, far = (estimate(weigh, old=NEW + x * (OLD - NEW))[1] for x in (0.0, 1.5, 3.0))
        assert near < middle < far


def test_first_order_is_the_gradient_of_the_surrogate():
    """sum_t sum_s p_theta(s_t) sum_a grad pi'(a|s) Q^pi_theta(s, a): states and values of the old policy."""
    new = NEW.clone().requires_grad_()
    value, marginal, surrogate = MDP.value(OLD, 1.0), MDP.start, 0.0
    for t in range(T):
        q = MDP.R + MDP.P @ value[t + 1]
        surrogate = surrogate + (marginal[:, None] * new.softmax(-1) * q).sum()
        marginal = torch.einsum("s,sa,san->n", marginal, OLD.softmax(-1), MDP.P)
    (expected,) = torch.autograd.grad(surrogate, new)
    torch.testing.assert_close(estimate(first_order_weight)[0], expected.flatten())


def test_the_bias_of_first_order_vanishes_linearly():
    """Half the distance, half the error, to first order; at half of 1 % it is at least 1.9 times less."""
    errors = []
    for x in (0.01, 0.005):
        new = OLD + x * (NEW - OLD)
        errors.append((estimate(first_order_weight, new)[0] - MDP.exact_gradient(new, 1.0)).norm())
    assert 1.9 < errors[0] / errors[1] < 2.1
    assert errors[0] > 1e-4


@pytest.mark.parametrize(
    ("weigh", "on_policy"), [*zip(ALL, [total_return, reward_to_go, reward_to_go], strict=True)]
)
def test_on_policy_nothing_is_left_of_the_ratios(weigh, on_policy):
    rest = (MDP.ended, 0.9, torch.full_like(MDP.reward, 2.0))
    torch.testing.assert_close(weigh(MDP.reward, MDP.zero, *rest), on_policy(MDP.reward, *rest))


def test_weights_by_hand():
    """Ratios 2, 3, 1/2 and rewards 1, 10, 100, gamma = 1/10; an end after row 1, then V(s') = 40.

    Segment one: products 2, 6. Trajectory: 6 (1 + 1) = 12. Decision: 6 * 10 = 60 and 2 + 60 / 10 = 8.
    First order: 2 (1 + 1) = 4, 3 * 10 = 30. Segment two: (100 + 40 / 10) / 2 = 52 in all three.
    """
    reward = torch.tensor([[1.0], [10.0], [100.0]], **F64)
    log_ratio = torch.tensor([[2.0], [3.0], [0.5]], **F64).log()
    ended = torch.tensor([[False], [True], [False]])
    bootstrap = torch.tensor([[99.0], [0.0], [40.0]], **F64)
    torch.testing.assert_close(past_ratio(log_ratio, ended).flatten(), torch.tensor([2.0, 6.0, 0.5], **F64))
    for weigh, expected in zip(ALL, ([12.0, 12.0, 52.0], [8.0, 60.0, 52.0], [4.0, 30.0, 52.0]), strict=True):
        weight = weigh(reward, log_ratio, ended, 0.1, bootstrap)
        torch.testing.assert_close(weight.flatten(), torch.tensor(expected, **F64))


@pytest.mark.parametrize("weigh", ALL)
def test_no_gradient_flows_through_the_ratios(weigh):
    log_ratio = torch.zeros_like(MDP.reward, requires_grad=True)
    assert not weigh(MDP.reward, log_ratio, MDP.ended, 1.0, MDP.zero).requires_grad


@pytest.mark.parametrize("weigh", ALL)
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"log_ratio": torch.full((3, 1), 1000.0)}, "log_ratio must have sums"),
        ({"log_ratio": torch.full((3, 1), math.nan)}, "log_ratio must be finite"),
        ({"log_ratio": torch.zeros(2, 1)}, "log_ratio must be"),
        ({"log_ratio": torch.zeros(3, 2)}, "log_ratio must be"),
        ({"log_ratio": torch.zeros(0, 1), "reward": torch.zeros(0, 1)}, "log_ratio must be"),
        ({"gamma": 1.5}, "gamma must lie"),
        ({"reward": torch.zeros(3)}, "reward"),
        ({"bootstrap": torch.zeros(3, 2)}, "bootstrap must be"),
    ],
)
def test_bad_input_is_named(weigh, change, sentence):
    ones = torch.ones(3, 1)
    good = {"reward": ones, "log_ratio": 0 * ones, "ended": ones > 1, "gamma": 0.9, "bootstrap": ones}
    weigh(**good)
    with pytest.raises(UsageError, match=sentence):
        weigh(**good | change)
