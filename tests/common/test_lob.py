import math

import pytest
import torch

from common.envs.lob import HEIGHT, REACH, SPEED, WALL, WIDTH, G, landing, reward
from common.envs.registry import make_env


def throw(vx: float, vz: float) -> torch.Tensor:
    return torch.tensor([vx / SPEED, 2 * vz / SPEED - 1], dtype=torch.float64)


def test_a_throw_before_the_wall_lands_where_gravity_takes_it():
    assert landing(throw(2.0, 4.0)).item() == pytest.approx(2 * 2 * 4 / G)
    assert landing(throw(-2.0, 4.0)).item() == pytest.approx(-2 * 2 * 4 / G)
    assert landing(throw(5.0, 0.0)).item() == 0
    assert landing(throw(0.0, 9.0)).item() == 0


def test_only_a_high_throw_clears_the_wall():
    """Both would land at 7 m; at 4 m the flat one is below 3 m."""
    product = 7 * G / 2
    low, high = throw(7.0, product / 7), throw(product / 8.5, 8.5)
    heights = [
        vz * WALL / vx - G / 2 * (WALL / vx) ** 2 for vx, vz in ((7.0, product / 7), (product / 8.5, 8.5))
    ]
    assert heights[0] < HEIGHT < heights[1]
    assert landing(low).item() == WALL
    assert landing(high).item() == pytest.approx(7)


def test_every_step_of_the_environment_is_the_last_and_pays_by_the_miss():
    env = make_env("course/Lob-v0")
    obs, _ = env.reset(seed=0)
    target = WALL * obs[0]
    assert abs(target) <= REACH
    action = throw(3.0, 6.0)
    _, paid, terminated, truncated, _ = env.step(action.numpy())
    miss = (3 * 6 * 2 / G - target) / WIDTH
    assert paid == pytest.approx(math.exp(-0.5 * miss**2), rel=1e-4)
    assert paid == pytest.approx(reward(torch.tensor(target), action).item(), rel=1e-4)
    assert (terminated, truncated) == (True, False)
