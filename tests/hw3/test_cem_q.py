"""Q-learning by search: every method finds the top of a quadratic, and the value follows."""

import dataclasses

import numpy as np
import pytest
import torch

from common.types import UsageError
from hw3_q_learning.cem_q import CEMQ, CEMQConfig, ascend, best_action
from tests.helpers import CPU
from tests.hw3.batches import CONTINUOUS, DISCRETE, noise, self_loop

SMALL = CEMQConfig(hidden=(16,))
TOP = torch.tensor([[0.5, -0.25], [-0.6, 0.1], [2.0, -0.3]])  # [B, K]; the third lies beyond the limits
NEAREST = TOP.clamp(-1, 1)
SEARCHES = {
    "shooting": (4000, 1, 0.1),
    "cem": (64, 8, 0.02),
    "cma-es": (10, 40, 0.01),
    "gradient": (16, 8, 0.1),
}
METHODS = [pytest.param(name, *budget, id=name) for name, budget in SEARCHES.items()]


def quadratic(action: torch.Tensor) -> torch.Tensor:
    """7 - |a - top|^2, [S, B, K] -> [S, B]"""
    return 7 - (action - TOP).square().sum(-1)


def agent(**options) -> CEMQ:
    return CEMQ(CONTINUOUS, dataclasses.replace(SMALL, **options), 1000, CPU, seed=0)


@pytest.mark.parametrize(("search", "samples", "iterations", "within"), METHODS)
def test_top_of_a_quadratic_is_found(search, samples, iterations, within, generator):
    found = best_action(quadratic, torch.zeros(3, 2), search, samples, iterations, generator)
    assert (found - NEAREST).abs().max() < within


def test_gradient_ascent_never_loses(generator):
    """Where a step would overshoot, the start is kept."""
    start = TOP.clamp(-1, 1)
    assert torch.equal(ascend(quadratic, start, 3)[:2], start[:2])
    assert (quadratic(ascend(quadratic, torch.zeros(3, 2), 4)[None]) > quadratic(torch.zeros(1, 3, 2))).all()


@pytest.mark.parametrize("search", SEARCHES)
def test_value_of_the_state_that_never_ends(search):
    """1 / (1 - gamma) = 5, or 2 for the slowest search, whose iterations are costly."""
    gamma, updates = (0.5, 60) if search == "cma-es" else (0.8, 200)
    made = agent(gamma=gamma, lr=0.02, tau=0.3, search=search, samples=4, iterations=1)
    batch = self_loop(CONTINUOUS, 2 if search == "cma-es" else 16)
    for _ in range(updates):
        made.update(batch)
    q = made.value(made.critic, batch.obs, batch.action[None]).detach()
    assert q.numpy() == pytest.approx(1 / (1 - gamma), rel=0.12)


def test_target_by_hand():
    """r + gamma min_i Q'_i(s', a*) at the action that the target critic's search found."""
    made, batch = agent(), noise(CONTINUOUS)
    state = made.generator.get_state()
    y = made.target(batch)
    made.generator.set_state(state)
    with torch.no_grad():
        action = made.greedy(made.critic_target, batch.next_obs, made.generator)
    q = made.critic_target(torch.cat((batch.next_obs, action), 1)).squeeze(2)
    expected = batch.reward + 0.99 * q.min(0).values * ~batch.terminated
    torch.testing.assert_close(y, expected)
    assert not y.requires_grad


def test_search_beats_random_actions():
    made, obs = agent(), noise(CONTINUOUS).obs
    with torch.no_grad():
        found = made.value(made.critic, obs, made.greedy(made.critic, obs, made.generator)[None])
        other = made.value(made.critic, obs, 2 * torch.rand(1, 32, 2, generator=made.generator) - 1)
    assert (found >= other).float().mean() > 0.9


@pytest.mark.parametrize("search", SEARCHES)
def test_actions_lie_within_the_limits_and_evaluation_draws_from_its_own(search):
    made = agent(search=search, noise=2.0, samples=4, iterations=1)
    state = made.generator.get_state()
    assert (abs(made.act(np.ones((3, 3), np.float32))) <= 1).all()
    assert torch.equal(made.generator.get_state(), state)
    explored = made.explore(np.ones((3, 3), np.float32), 0)
    assert explored.shape == (3, 2)
    assert abs(explored).max() <= 1


def test_bad_input_is_named():
    with pytest.raises(UsageError, match="search must be one of shooting, cem, cma-es, gradient, got 'grid'"):
        CEMQConfig(search="grid")
    with pytest.raises(UsageError, match="samples must be at least 4"):
        CEMQConfig(samples=1)
    with pytest.raises(UsageError, match="continuous actions for CEM-Q"):
        CEMQ(DISCRETE, SMALL, 1, CPU, seed=0)
