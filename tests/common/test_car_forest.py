import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch.func import jacrev

import common.envs  # noqa: F401
from common.envs.car_forest import FOREST, CarForest, trees
from common.envs.systems import Car

F64 = {"dtype": torch.float64}
ONE = CarForest(car=Car(obstacles=((2.0, 0.0, 0.5),)))  # a single tree, 1.5 m ahead of the origin


def state(east: float = 0.0, north: float = 0.0, heading: float = 0.0) -> torch.Tensor:
    return torch.tensor([east, north, heading, ONE.speed], **F64)


def some_states(count: int = 40) -> torch.Tensor:
    return FOREST.starts(count, torch.Generator().manual_seed(0))


def test_beams_end_at_the_tree():
    lidar = ONE.lidar(state())
    assert lidar[3].item() == pytest.approx(1.5)  # the one in the middle looks straight ahead
    assert lidar[[0, 1, 5, 6]].tolist() == [ONE.reach] * 4
    torch.testing.assert_close(lidar, lidar.flip(0))


def test_beams_count_from_the_right():
    """Seen from the south of it the tree stands to the left, from a car that turned left straight ahead."""
    lidar = ONE.lidar(state(north=-1.0))
    assert lidar[:4].tolist() == [ONE.reach] * 4
    assert lidar[4:].min() < ONE.reach
    assert ONE.lidar(state(2.0, -1.0, math.pi / 2))[3].item() == pytest.approx(0.5)


def test_what_lies_behind_or_far_ahead_is_not_seen():
    for x in (state(4.0), state(heading=math.pi), state(-2.0)):
        assert ONE.lidar(x).tolist() == [ONE.reach] * ONE.beams


def test_lidar_is_where_a_walk_along_the_beam_first_meets_a_tree():
    x = some_states(10)
    walk = torch.linspace(0, FOREST.reach, 2501, **F64)
    angle = x[:, 2:3] + torch.linspace(-FOREST.field, FOREST.field, FOREST.beams, **F64)
    ray = torch.stack([angle.cos(), angle.sin()], -1)[..., None, :] * walk[:, None]
    free = FOREST.car.clearance(x[:, None, None, :2] + ray).amin(-1) > 0  # [10, beams, 2501]
    first = torch.where(free.all(-1), FOREST.reach, walk[free.logical_not().int().argmax(-1)])
    torch.testing.assert_close(FOREST.lidar(x), first, atol=2e-3, rtol=0)


def test_driver_sees_nearness_north_and_heading():
    obs = ONE.observe(state(0.0, 0.0, 0.0) + torch.tensor([0.0, 0.0, 0.1, 0.0], **F64))
    assert obs.shape == (ONE.beams + 2,)
    assert obs[-2:].tolist() == [0.0, 0.1]
    assert 0 < obs[:-2].max() <= 1 - 1.5 / ONE.reach


def test_step_is_a_bicycle_at_constant_speed():
    """One step of 0.24 m ahead, heading turned by speed tan(u) / wheelbase."""
    x = ONE.step(state(heading=math.pi / 2), torch.tensor([0.3], **F64))
    turn = 0.15 * 1.6 * math.tan(0.3) / 0.5
    assert x.tolist() == pytest.approx([0, 0.24, math.pi / 2 + turn, 1.6])


def test_jacobian_is_that_of_the_step():
    for x in some_states(3):
        u = torch.tensor([0.2], **F64)
        expected = torch.cat(jacrev(FOREST.step, (0, 1))(x, u), -1)
        torch.testing.assert_close(FOREST.jacobian(x, u), expected)


def test_cost_by_hand():
    """Clearance 0.1 m costs 3, and 8 m beyond nothing."""
    near, far = state(2.0, 0.6), state(10.0, 1.0, 0.5)
    assert ONE.cost(near, torch.zeros(1, **F64)).item() == pytest.approx(3 + 0.15 * 0.36)
    u = torch.tensor([0.4], **F64)
    assert ONE.cost(far, u).item() == pytest.approx(0.5 * (0.3 + 0.5 * 0.25 + 0.2 * 0.16))
    assert ONE.final_cost(far).item() == pytest.approx(0.5 * (1 + 0.25))


def test_crashed_is_inside_a_tree_or_beside_the_forest():
    x = torch.stack([state(1.49), state(1.51), state(0, 2.9), state(0, -3.1)])
    assert ONE.crashed(x).tolist() == [False, True, False, True]


def test_starts_are_as_many_as_asked_and_have_room():
    x = some_states(200)
    assert x.shape == (200, 4)
    assert (FOREST.lidar(x) > 1).all()
    assert not FOREST.crashed(x).any()
    assert x[:, 0].min() < 2
    assert x[:, 0].max() > 18
    torch.testing.assert_close(x, some_states(200))


def test_forest_is_always_the_same():
    assert trees() == FOREST.car.obstacles
    assert len(set(trees())) == 31


def test_gymnasium_accepts_the_environment():
    check_env(gym.make("course/CarForest-v0").unwrapped, skip_render_check=True)


def test_return_is_the_time_to_failure():
    """Played beside it by the equations, until the car that never steers crashes or 32 steps are over."""
    env, lengths = gym.make("course/CarForest-v0"), []
    for seed in range(8):
        obs, _ = env.reset(seed=seed)
        x, total, ended = env.unwrapped.x, 0.0, False
        while not ended:
            assert obs == pytest.approx(FOREST.observe(x).numpy())
            x = FOREST.step(x, torch.zeros(1, **F64))
            obs, reward, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
            total, ended = total + reward, terminated or truncated
            assert terminated == bool(FOREST.crashed(x))
        lengths.append(total)
    assert min(lengths) < 32
    assert max(lengths) <= 32


def test_picture_shows_the_car_and_the_trees():
    env = gym.make("course/CarForest-v0", render_mode="rgb_array").unwrapped
    env.reset(seed=0)
    east, north, _ = FOREST.car.obstacles[10]
    env.x = torch.tensor([east - 2.0, 0.0, 0.0, 1.6], **F64)
    picture = env.render()
    assert picture.shape == (400, 600, 3)
    assert picture[200, 150].tolist() == [38, 84, 124]  # the car, 3 m left of the middle, 50 pixels a metre
    row, column = round(200 - 50 * north), 150 + 2 * 50
    assert picture[row, column].tolist() == [180, 184, 190]
