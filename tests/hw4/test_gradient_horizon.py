"""Growth of the gradient through the pendulum, true and learned."""

import math

import pytest
import torch

from hw4_model_based.gradient_horizon import DT, cases, growth, norms


@pytest.fixture(scope="module")
def found():
    return {case.name: norms(case, 40) for case in cases(seed=0)}


def test_it_explodes_as_the_unstable_equilibrium_does(found):
    """w' = 9.81 angle - 2 w: the root -1 + sqrt(10.81) = 2.288 per second."""
    rate = math.exp((math.sqrt(10.81) - 1) * DT)
    assert growth(found["upright"].state) == pytest.approx(rate, abs=2e-3)
    assert found["upright"].state[-1] > 30 * found["upright"].state[0]
    assert found["upright"].policy[-1] > 1e4 * found["upright"].policy[9]


def test_it_vanishes_where_the_closed_loop_is_stable(found):
    for name in ("hanging", "upright, LQR"):
        assert found[name].state[-1] < 0.2 * found[name].state[0]
        assert found[name].policy[-1] < 3 * found[name].policy[9]


def test_a_learned_model_explodes_and_vanishes_as_the_world_does(found):
    """Growth a step, seeds 0 to 4: 1.094 to 1.104 where the world has 1.121."""
    assert growth(found["upright, learned"].state) == pytest.approx(1.1, abs=0.03)
    for name in ("hanging", "upright, LQR"):
        assert found[f"{name}, learned"].state[-1] < 0.3 * found[name].state[0]
    torch.testing.assert_close(
        found["upright, learned"].state[:8], found["upright"].state[:8], rtol=0.2, atol=0
    )
