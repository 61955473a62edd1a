"""The pushing task: contacts by hand, what is never possible, and when it is solved."""

import gymnasium as gym
import numpy as np
import pytest

from common.envs.pixels import PIXEL, SIZE
from common.envs.pushing import BLOCK, COLOURS, FINGER, REACHED, STRIDE, TABLE, PushPixels, push

TOUCH = BLOCK + FINGER


def test_what_is_not_touched_stays():
    finger, block = push(np.array([-0.5, 0.0]), np.array([0.5, 0.0]), np.array([0.5, -1.0]))
    np.testing.assert_allclose(finger, [-0.5 + STRIDE / 2, -STRIDE])
    np.testing.assert_array_equal(block, [0.5, 0.0])


def test_a_central_push_moves_the_block_as_far_as_the_finger_goes_in_contact():
    gap = STRIDE / 4
    finger, block = push(np.array([-TOUCH - gap, 0.0]), np.zeros(2), np.array([9.0, 0.0]))  # as 1
    np.testing.assert_allclose(finger, [-TOUCH - gap + STRIDE, 0], atol=1e-12)
    np.testing.assert_allclose(block, [STRIDE - gap, 0], atol=1e-12)


def test_a_push_beside_the_centre_slides_along_the_line_between_the_centres():
    finger, block = push(np.array([-TOUCH + 0.01, 0.08]), np.zeros(2), np.array([1e-9, 0.0]))
    arm = np.array([TOUCH - 0.01, -0.08])
    np.testing.assert_allclose(block - finger, TOUCH * arm / np.linalg.norm(arm), atol=1e-6)
    assert block[1] < 0 < block[0]


def test_a_block_at_the_edge_stops_the_finger():
    finger, block = push(np.array([TABLE - TOUCH, 0.0]), np.array([TABLE, 0.0]), np.array([1.0, 0.0]))
    np.testing.assert_allclose([*finger, *block], [TABLE - TOUCH, 0, TABLE, 0], atol=1e-12)


def test_finger_and_block_never_overlap_and_stay_on_the_table():
    rng = np.random.default_rng(0)
    finger, block = np.array([-0.5, 0.0]), np.zeros(2)
    for _ in range(3000):
        towards = (block - finger) * rng.uniform(-0.5, 4)
        finger, block = push(finger, block, towards + rng.normal(size=2))
        assert np.linalg.norm(finger - block) >= TOUCH - 1e-9
        assert np.abs(block).max() <= TABLE
        assert np.abs(finger).max() <= TABLE + TOUCH


def test_every_start_is_a_task():
    env = PushPixels()
    for seed in range(200):
        obs, _ = env.reset(seed=seed)
        assert 5 - 1e-9 <= env.distance() <= 8 + 1e-9
        assert np.abs(env.points[1] - env.offset).max() <= TABLE  # the block can be there
        assert np.linalg.norm(env.finger - env.block) > TOUCH
        assert np.linalg.norm(env.points[0] - env.block) < BLOCK
        np.testing.assert_allclose(obs[-4:], (env.points.ravel() + 1) / 2, atol=1e-6)


def test_the_end_is_within_two_pixels_and_pays_once():
    env = PushPixels()
    obs, _ = env.reset(seed=0)
    env.points[1] = env.block + env.offset + [(REACHED + 0.5) * PIXEL, 0]
    env.finger = env.block - np.array([TOUCH, 0])
    _, reward, terminated, *_ = env.step(np.array([PIXEL * 0.3 / STRIDE, 0.0]))
    assert (reward, terminated) == (0.0, False)
    after, reward, terminated, *_ = env.step(np.array([PIXEL * 0.3 / STRIDE, 0.0]))
    assert (reward, terminated) == (1.0, True)
    assert env.distance() == pytest.approx(REACHED - 0.1)
    np.testing.assert_array_equal(obs[-4:-2], after[-4:-2])  # designated in the first picture


def test_the_picture_has_the_block_and_the_finger_in_their_colours():
    env = gym.make("course/PushPixels-v0", render_mode="rgb_array").unwrapped
    obs, _ = env.reset(seed=3)
    block, finger = obs[:-4].reshape(COLOURS, SIZE, SIZE)
    for colour, radius in ((block, BLOCK), (finger, FINGER)):
        assert colour.sum() * PIXEL**2 == pytest.approx(np.pi * radius**2, rel=0.1)
    assert ((block > 0.9) & (finger > 0.9)).sum() == 0
    assert env.render().shape[2] == 3
    assert gym.make("course/PushPixels-v0").unwrapped.render() is None
