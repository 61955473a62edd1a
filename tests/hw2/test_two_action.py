"""The algebra against the shipped estimators, over every trajectory of up to 400 stays."""

import math

import pytest
import torch

from common.types import UsageError
from hw2_policy_gradient.baselines import optimal_baseline
from hw2_policy_gradient.off_policy import first_order_weight, per_decision_weight, per_trajectory_weight
from hw2_policy_gradient.returns import gae, reward_to_go, total_return
from hw2_policy_gradient.two_action import estimates, expectation, importance_sampling, mean_and_variance

THETAS = [0.2, 0.5, 0.8]
EXACT = {theta: 1 / (1 - theta) ** 2 for theta in THETAS}


def trajectories(theta: float, longest: int = 400):
    """Column K: K stays, the stop, then nothing. Probability [N]; stays, stops and score [T, N]."""
    k = torch.arange(longest + 1)
    t = k[:, None]
    stay, stop = (t < k).to(torch.float64), (t == k).to(torch.float64)
    score = stay / theta - stop / (1 - theta)
    return theta ** k.double() * (1 - theta), stay, stop, score


def moments(p: torch.Tensor, g: torch.Tensor) -> tuple[float, float]:
    mean = (p * g).sum()
    return mean.item(), (p * (g - mean) ** 2).sum().item()


def shipped(theta: float) -> dict[str, tuple[float, float]]:
    """Mean and variance of each estimator, weights by the functions that learn."""
    p, stay, stop, score = trajectories(theta)
    v, zero = theta / (1 - theta), torch.zeros_like(stay)
    running = stay + stop
    total = total_return(stay, stop, 1.0, zero)
    to_go = reward_to_go(stay, stop, 1.0, zero)
    root = p.sqrt()[:, None]
    best = optimal_baseline((score * to_go).sum(0)[:, None] * root, score.sum(0)[:, None] * root)
    q = stay * (1 + v)  # Q(stop) = 0
    correction = (theta * (1 + v) / theta) * running  # sum_a pi(a) dlog pi(a)/dtheta Q(a)
    delta = gae(stay, v * running, v * running, stop, stop, 1.0, 0.0)
    g = {
        "total return": score * total,
        "reward-to-go": score * to_go,
        "average or V": score * (to_go - v),
        "optimal constant": score * (to_go - best),
        "Q with correction": score * (to_go - q) + correction,
        "GAE, lambda 0": score * delta,
    }
    return {name: moments(p, each.sum(0)) for name, each in g.items()}


@pytest.mark.parametrize("theta", THETAS)
def test_closed_forms_are_what_the_shipped_estimators_have(theta):
    measured = shipped(theta)
    for name, estimate in estimates(theta).items():
        assert mean_and_variance(estimate, theta) == pytest.approx(measured[name], rel=1e-9), name
        assert mean_and_variance(estimate, theta)[0] == pytest.approx(EXACT[theta]), name


@pytest.mark.parametrize("theta", THETAS)
def test_each_step_of_the_ladder_pays(theta):
    variance = {name: mean_and_variance(e, theta)[1] for name, e in estimates(theta).items()}
    assert (
        variance["total return"]
        > variance["reward-to-go"]
        > variance["average or V"]
        > variance["optimal constant"]
    )
    assert variance["average or V"] > variance["GAE, lambda 0"]
    assert variance["GAE, lambda 0"] == pytest.approx(1 / (theta * (1 - theta) ** 2))  # Var[K] / theta^2


def test_variances_at_one_half_by_hand():
    """theta = 1/2: E[K] = 1, E[K^2] = 3, E[K^3] = 13, E[K^4] = 75, score 2 K - 2, dJ = 4.
    Total 2 K^2 - 2 K: 4 E[K^4] - 8 E[K^3] + 4 E[K^2] - 16 = 192. To go K^2 + K: 75 + 26 + 3 - 16 = 88.
    Less V: K^2 - K + 2, variance of K^2 - K: 75 - 26 + 3 - 4 = 48. GAE 2 K + 2: 4 Var[K] = 8."""
    variance = {name: mean_and_variance(e, 0.5)[1] for name, e in estimates(0.5).items()}
    assert [expectation(estimates(0.5)["GAE, lambda 0"] ** n, 0.5) for n in (1, 2)] == pytest.approx([4, 24])
    names = ["total return", "reward-to-go", "average or V", "GAE, lambda 0"]
    assert [variance[name] for name in names] == pytest.approx([192, 88, 48, 8])


@pytest.mark.parametrize(("theta", "behaviour"), [(0.5, 0.5), (0.5, 0.4), (0.6, 0.5), (0.4, 0.8)])
def test_importance_sampling_is_what_the_shipped_weights_have(theta, behaviour):
    p, stay, stop, _ = trajectories(behaviour)
    *_, score = trajectories(theta)
    log_ratio = stay * math.log(theta / behaviour) + stop * math.log((1 - theta) / (1 - behaviour))
    weights = {
        "per trajectory": per_trajectory_weight,
        "per decision": per_decision_weight,
        "first order": first_order_weight,
    }
    for name, closed in importance_sampling(theta, behaviour).items():
        weight = weights[name](stay, log_ratio, stop, 1.0, torch.zeros_like(stay))
        assert moments(p, (score * weight).sum(0)) == pytest.approx(closed, rel=1e-6), name


def test_on_policy_the_ratios_change_nothing():
    on, off = estimates(0.6), importance_sampling(0.6, 0.6)
    assert off["per trajectory"] == pytest.approx(mean_and_variance(on["total return"], 0.6))
    for name in ("per decision", "first order"):
        assert off[name] == pytest.approx(mean_and_variance(on["reward-to-go"], 0.6))


@pytest.mark.parametrize("behaviour", [0.3, 0.5, 0.7])
def test_per_decision_is_below_per_trajectory(behaviour):
    variance = {name: v for name, (_, v) in importance_sampling(0.5, behaviour).items()}
    assert variance["per decision"] < variance["per trajectory"]


def test_the_variance_is_infinite_from_theta_squared_on():
    """theta = 0.8 from a policy that stays with 0.64: just below it is finite, and already huge above."""
    assert importance_sampling(0.8, 0.64)["per trajectory"][1] == math.inf
    assert importance_sampling(0.8, 0.64)["per decision"][1] == math.inf
    near = importance_sampling(0.8, 0.641)
    assert 1e8 < near["per decision"][1] < math.inf
    assert math.isfinite(importance_sampling(0.8, 0.64)["first order"][1])


def test_first_order_has_the_gradient_of_the_behaviour():
    """rho K (K + 1) / (2 theta) does not know theta: its mean is dJ/dtheta at the behaviour policy."""
    assert importance_sampling(0.5, 0.4)["first order"][0] == pytest.approx(1 / 0.6**2)


@pytest.mark.parametrize("theta", [0.0, 1.0, math.nan, -0.1])
def test_bad_input_is_named(theta):
    with pytest.raises(UsageError, match="theta must lie"):
        estimates(theta)
    with pytest.raises(UsageError, match="behaviour must lie"):
        importance_sampling(0.5, theta)
