"""Pictures: what is drawn is where it should be, to a fraction of a pixel; and the tasks they show."""

import gymnasium as gym
import numpy as np
import pytest

from common.envs.pixels import FRAMES, PIXEL, SIZE, PendulumPixels, PointMassPixels, X, Y, disc, enlarge, rod

TASKS = ["course/PointMassPixels-v0", "course/PendulumPixels-v0"]


def centroid(picture):
    return np.array([(picture * X).sum(), (picture * Y).sum()]) / picture.sum()


@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.31, -0.47), (-0.6, 0.6)])
@pytest.mark.parametrize("radius", [0.1, 0.2, 0.35])
def test_a_disc_covers_its_area_at_its_place(centre, radius):
    picture = disc(np.array(centre), radius)
    assert (picture.shape, picture.dtype) == ((SIZE, SIZE), np.float32)
    assert picture.sum() * PIXEL**2 == pytest.approx(np.pi * radius**2, rel=0.06)
    np.testing.assert_allclose(centroid(picture), centre, atol=0.02 * PIXEL)


def test_a_motion_of_a_tenth_of_a_pixel_is_seen():
    moved = centroid(disc(np.array([0.1 + PIXEL / 10, 0.2]), 0.2)) - centroid(disc(np.array([0.1, 0.2]), 0.2))
    np.testing.assert_allclose(moved, [PIXEL / 10, 0], atol=PIXEL / 100)


@pytest.mark.parametrize("angle", np.linspace(-3, 3, 5))
def test_a_rod_runs_from_the_middle_to_its_end(angle):
    end = 0.7 * np.array([-np.sin(angle), np.cos(angle)])
    picture = rod(end, 0.2)
    assert picture.sum() * PIXEL**2 == pytest.approx(0.7 * 0.2 + np.pi * 0.1**2, rel=0.06)
    np.testing.assert_allclose(centroid(picture), end / 2, atol=0.05 * PIXEL)


def test_up_is_up_and_right_is_right():
    assert np.argwhere(disc(np.array([0.8, 0.5]), 0.05) > 0.5).mean(0) == pytest.approx([7.5, 28.5], abs=0.6)


@pytest.mark.parametrize("env_id", TASKS)
def test_an_observation_is_the_last_pictures_the_newest_last(env_id):
    env = gym.make(env_id).unwrapped
    obs, _ = env.reset(seed=1)
    assert obs.shape == (FRAMES * SIZE * SIZE,)
    first, second = np.split(obs, FRAMES)
    np.testing.assert_array_equal(first, second)
    action = np.ones(env.action_space.shape, np.float32)
    before, now = np.split(env.step(action)[0], FRAMES)
    np.testing.assert_array_equal(before, second)
    np.testing.assert_array_equal(now, env.picture().ravel())
    assert (now != before).any()


def test_the_pendulum_is_gymnasiums_two_steps_at_a_time():
    ours, theirs = PendulumPixels(), gym.make("Pendulum-v1").unwrapped
    ours.reset(seed=0)
    theirs.reset(seed=0)
    theirs.state = np.array([ours.angle, ours.w])
    for k in range(100):
        torque = 2.5 * np.sin(k / 3)  # beyond the limits, which both keep
        reward = ours.step([torque / 2])[1]
        assert reward == pytest.approx(sum(theirs.step([torque])[1] for _ in range(2)), abs=1e-5)
    np.testing.assert_allclose([ours.angle, ours.w], theirs.state, atol=1e-5)


def test_the_point_mass_glides_and_stops_at_walls():
    env = PointMassPixels()
    env.reset(seed=0)
    env.x, env.v = np.array([0.0, 0.1]), np.zeros(2)
    assert env.step([1.0, 0.0])[1] == pytest.approx(-np.hypot(0.5, 0.3))  # of the state before
    np.testing.assert_allclose([*env.x, *env.v], [0.08, 0.1, 0.08, 0])
    env.step([0.0, -9.0])  # as -1
    np.testing.assert_allclose([*env.x, *env.v], [0.136, 0.02, 0.056, -0.08])
    for _ in range(30):
        env.step([1.0, 0.0])
    assert env.x[0] == 0.8
    env.step([0.0, 0.0])
    assert env.v[0] == 0


@pytest.mark.parametrize("env_id", TASKS)
def test_people_see_the_newest_picture(env_id):
    env = gym.make(env_id, render_mode="rgb_array").unwrapped
    env.reset(seed=0)
    np.testing.assert_array_equal(env.render(), enlarge(env.picture()))
    assert gym.make(env_id).unwrapped.render() is None
