"""The lane, its expert, and the two ways to show it how to come back."""

import numpy as np
import pytest
import torch

from common.envs import registry
from common.envs.lane_keeping import (
    AHEAD,
    BENDS,
    DISTANCE,
    HALF,
    SPEED,
    STEERING,
    LaneKeepingEnv,
    expert,
    steer_back,
)
from common.evaluation import evaluate
from common.types import UsageError
from hw1_imitation.corrective_data import Shaken, three_cameras
from hw1_imitation.demonstrations import collect
from hw1_imitation.trainer import TrainConfig

LANE = "course/LaneKeeping-v0"


def lane(e: float = 0.0, psi: float = 0.0, seed: int = 0) -> LaneKeepingEnv:
    env = LaneKeepingEnv()
    env.reset(seed=seed)
    env.e, env.psi = e, psi
    return env


def test_middle_of_the_road_is_the_integral_of_its_direction():
    """By the trapezium rule over 10^4 pieces; a car aside or turned sees it shifted or turned."""
    env = lane(e=0.3, psi=0.1)
    r = np.linspace(0, DISTANCE[-1], 10_001)
    theta = sum(a * np.sin(w * (env.s + r) + p) for (a, w), p in zip(BENDS, env.phase, strict=True))
    expected = -0.3 + np.trapezoid(theta - theta[0] - 0.1, r)
    assert env.middle(DISTANCE)[-1] == pytest.approx(expected, abs=1e-6)


def test_steering_as_the_road_bends_keeps_the_car_on_it():
    """psi' = 0 where u = kappa; twice the curvature leaves it."""
    for factor, stays in ((1.0, True), (2.0, False)):
        env = lane()
        for _ in range(100):
            bends = zip(BENDS, env.phase, strict=True)
            curvature = sum(a * w * np.cos(w * env.s + p) for (a, w), p in bends)
            _, reward, terminated, _, _ = env.step(np.array([factor * curvature / STEERING]))
            if terminated:
                break
        assert terminated != stays
        assert reward <= SPEED


def test_side_camera_sees_what_a_car_would_see_there():
    for shift in (-0.4, 0.4):
        assert lane(e=0.1).camera(shift) == pytest.approx(lane(e=0.1 + shift).camera(), abs=1e-6)


def test_correction_is_what_the_expert_does_there():
    """To first order in the shift, on a road that is nearly straight ahead."""
    env = lane()
    env.phase = np.full(len(BENDS), np.pi / 2)  # the direction is stationary here
    here = expert(env.camera()[None])[0, 0]
    for shift in (-0.2, 0.2):
        there = expert(env.camera(shift)[None])[0, 0]
        assert there - here == pytest.approx(steer_back(shift), rel=0.1)
    assert steer_back(0.2) < 0  # back to the right
    assert steer_back(0.5) == pytest.approx(-2 * 0.5 / DISTANCE[AHEAD] ** 2 / STEERING)


def test_expert_drives_to_the_end_in_the_middle():
    scores = evaluate(expert, registry.make_envs(LANE, 10), seed=3)
    assert scores["return_min"] > 199  # m of 400 steps
    env = lane(seed=1)
    obs = env.camera()
    for _ in range(400):
        obs, *_ = env.step(expert(obs[None])[0])
        assert abs(env.e) < 0.5 * HALF


def test_noise_shakes_the_way_and_not_the_labels():
    shaken = Shaken(0.3, np.random.default_rng(0))
    data = collect(expert, registry.make_envs(LANE, 1), 200, seed=0, play=shaken)
    clean = collect(expert, registry.make_envs(LANE, 1), 200, seed=0)
    assert data.action.numpy() == pytest.approx(expert(data.obs.numpy()), abs=1e-6)
    assert data.obs.std(0).mean() > 1.15 * clean.obs.std(0).mean()
    label = data.action.numpy()
    assert np.array_equal(Shaken(0.0, np.random.default_rng(0))(data.obs.numpy(), label), label)


def test_noise_has_its_deviation():
    drawn = Shaken(0.3, np.random.default_rng(0))(np.zeros((20_000, 1)), np.full((20_000, 1), 0.7)) - 0.7
    assert drawn.std() == pytest.approx(0.3, rel=0.03)
    assert abs(drawn.mean()) < 4 * 0.3 / np.sqrt(20_000)


def test_three_cameras_give_three_trajectories_of_every_one():
    data = three_cameras(expert, registry.make_envs(LANE, 1), 450, 0.4, steer_back, seed=0)
    plain = collect(expert, registry.make_envs(LANE, 1), 450, seed=0)
    assert data.length.tolist() == [400, 50] * 3
    middle, left, right = data.obs.split(450)
    assert torch.equal(middle, plain.obs)
    for obs, action, shift in ((left, data.action[450:900], 0.4), (right, data.action[900:], -0.4)):
        expected = (plain.action + steer_back(shift)).clamp(-1, 1)
        torch.testing.assert_close(action, expected)
        told = torch.from_numpy(expert(obs.numpy())).float()
        missed = (told - action).abs().mean()  # of what the expert does where it stands there
        assert missed < 0.2 * (told - plain.action).abs().mean()


def test_bad_settings_are_refused():
    with pytest.raises(UsageError, match="sigma must be finite and at least 0, got -1"):
        Shaken(-1, np.random.default_rng(0))
    with pytest.raises(UsageError, match="shift must be positive"):
        three_cameras(expert, registry.make_envs(LANE, 1), 5, 0.0, steer_back, seed=0)
    with pytest.raises(UsageError, match="envs must be one environment, got 2"):
        three_cameras(expert, registry.make_envs(LANE, 2), 5, 0.4, steer_back, seed=0)
    with pytest.raises(UsageError, match="noise must lie in"):
        TrainConfig(noise=-1.0)


def test_picture_shows_the_road_and_what_the_car_sees():
    env = registry.make_env(LANE, "rgb_array")
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (400, 600, 3)
    seen = frame[5:80:10, 5:240:10, 0] / 255  # one pixel of every block, far above near, left to the left
    expected = env.unwrapped.camera().reshape(8, 24)[::-1, ::-1]
    assert seen == pytest.approx(expected, abs=1 / 255)
