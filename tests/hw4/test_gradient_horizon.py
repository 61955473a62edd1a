"""Growth of the gradient through the pendulum, true and learned."""

import math

import pytest
import torch

from hw4_model_based.gradient_horizon import DT, cases, gradients, growth, norms
from hw4_model_based.policy_backprop import adjoint, differentiate


@pytest.fixture(scope="module")
def found():
    return {case.name: norms(case, 40) for case in cases(seed=0)}


def test_it_explodes_as_the_unstable_equilibrium_does(found):
    """w' = 9.81 angle - 2 w: the root -1 + sqrt(10.81) = 2.288 per second."""
    rate = math.exp((math.sqrt(10.81) - 1) * DT)
    assert growth(found["upright"].state) == pytest.approx(rate, abs=2e-3)
    assert found["upright"].state[-1] > 30 * found["upright"].state[0]
    assert found["upright"].policy[-1] > 1e3 * found["upright"].policy[9]


def test_it_vanishes_where_the_closed_loop_is_stable(found):
    for name in ("hanging", "upright, LQR"):
        assert found[name].state[-1] < 0.2 * found[name].state[0]
        assert found[name].policy[-1] < 3 * found[name].policy[9]


def test_a_learned_model_explodes_and_vanishes_as_the_world_does(found):
    """Growth a step, seeds 0 to 4: 1.093 to 1.100 where the world has 1.121."""
    assert growth(found["upright, learned"].state) == pytest.approx(1.1, abs=0.03)
    for name in ("hanging", "upright, LQR"):
        assert found[f"{name}, learned"].state[-1] < 0.3 * found[name].state[0]
    torch.testing.assert_close(
        found["upright, learned"].state[:8], found["upright"].state[:8], rtol=0.2, atol=0
    )


def test_forward_and_backward_give_the_same_gradient():
    """At every horizon, of a cubic world under a sine."""
    theta = torch.tensor([0.4, -0.7], dtype=torch.float64)

    def step(s, a):
        return torch.stack([s[0] + 0.3 * s[1], 0.9 * s[1] - 0.1 * s[0] ** 3 + 0.5 * a[0]])

    def policy(theta, s):
        return (theta * s).sum(0, keepdim=True).sin()

    def reward(s, a, next_s):
        return -next_s.square().sum() - 0.1 * a.square().sum()

    start = torch.tensor([1.0, -0.5], dtype=torch.float64)
    found = gradients(differentiate(step, reward, policy, theta, start, 9))
    for horizon in (1, 4, 9):
        backward, _ = adjoint(differentiate(step, reward, policy, theta, start, horizon))
        torch.testing.assert_close(found[horizon - 1], backward, rtol=1e-12, atol=0)
