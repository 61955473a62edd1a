"""Rewards and ends for planners, against the environments; and two environments made for learned models."""

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from common.envs.cartpole_dense import FORCE, STEP, SYSTEM, observe
from common.envs.model_tasks import MODEL_TASKS, model_task
from common.envs.obstacles import DISCS, STRIDE, move
from common.envs.registry import make_env
from common.types import UsageError


def random_steps(env_id: str) -> list[np.ndarray]:
    """obs, action, next_obs, reward and terminated of 300 of them."""
    env, rows = make_env(env_id), []
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    for _ in range(300):
        action = env.action_space.sample()
        next_obs, reward, terminated, truncated, _ = env.step(action)
        rows.append((obs, action, next_obs, reward, terminated))
        obs = env.reset()[0] if terminated or truncated else next_obs
    return [np.stack(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("env_id", MODEL_TASKS)
def test_reward_and_end_are_those_of_the_environment(env_id):
    """All transitions in one call. Hopper's reward is the way gone, which is not observed: see below."""
    task, (obs, action, next_obs, reward, terminated) = model_task(env_id), random_steps(env_id)
    found = task.reward(*(torch.from_numpy(x.astype(np.float64)) for x in (obs, action, next_obs)))
    if env_id != "Hopper-v5":
        np.testing.assert_allclose(found, reward, atol=2e-5)  # observations are float32 mostly
    assert (task.terminated(torch.from_numpy(next_obs)).numpy() == terminated).all()
    assert terminated.any() == (env_id in ("InvertedPendulum-v5", "Hopper-v5"))


def test_hoppers_reward_is_told_from_its_velocities():
    """Within .01 in the mean square root, where one of both velocities alone is off by more than .03; and
    without the 1 of the healthy where it falls."""
    obs, action, next_obs, reward, terminated = map(torch.from_numpy, random_steps("Hopper-v5"))
    found = MODEL_TASKS["Hopper-v5"].reward(obs, action, next_obs)
    assert (found - reward).square().mean().sqrt() < 0.01
    late = found + 0.5 * (next_obs - obs)[:, 5]
    assert (late - reward).square().mean().sqrt() > 0.03
    assert (found - reward)[terminated].abs().max() < 0.1


@pytest.mark.parametrize(
    ("index", "value"), [(0, 0.69), (1, 0.21), (1, -0.21), (4, 101.0), (7, -101.0), (9, torch.nan)]
)
def test_hopper_falls_where_it_is_not_healthy(index, value):
    obs = torch.zeros(11)
    obs[0] = 1.25
    fell = MODEL_TASKS["Hopper-v5"].terminated
    assert not fell(obs)
    obs[index] = value
    assert fell(obs)


def test_an_unknown_reward_is_refused():
    with pytest.raises(UsageError, match="env_id must have a known reward function, one of Pendulum-v1, "):
        model_task("Ant-v5")


@pytest.mark.parametrize(
    "env_id", ["course/Obstacles-v0", "course/CartPoleSwingUpDense-v0", "course/PendulumSwingUpDense-v0"]
)
def test_environment_keeps_gymnasiums_rules_and_can_be_seen(env_id):
    check_env(gym.make(env_id).unwrapped, skip_render_check=True)
    env = gym.make(env_id, render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    for _ in range(10):
        env.step(np.ones(env.action_space.shape, np.float32))
    assert before.dtype == np.uint8
    assert (env.render() != before).any()
    assert gym.make(env_id).unwrapped.render() is None


def test_the_point_moves_slides_along_discs_and_stops_at_walls():
    start = np.array([[-0.6, -0.6], [-0.26, 0.0], [-0.26, 0.0], [0.98, 0.0], [-0.2, -0.15]])
    action = np.array([[1.0, -0.5], [1.0, 0.0], [-5.0, 0.0], [1.0, 0.0], [0.8, 0.0]])
    # The last would come to (-0.12, -0.15), 0.192 from the middle of a disc of radius 0.25.
    slid = 0.25 / np.hypot(0.12, 0.15) * np.array([-0.12, -0.15])
    expected = np.array([[-0.5, -0.65], [-0.25, 0.0], [-0.36, 0.0], [1.0, 0.0], slid])
    np.testing.assert_allclose(move(start, action), expected, atol=1e-12)


def test_no_walk_ever_enters_a_disc():
    rng, x = np.random.default_rng(0), np.full((50, 2), -0.6)
    for _ in range(400):
        x = move(x, rng.uniform(-1, 1, (50, 2)) + 0.2)
        assert (np.linalg.norm(x[:, None] - DISCS[:, :2], axis=-1) >= DISCS[:, 2] - 1e-12).all()
        assert np.abs(x).max() <= 1


def test_the_straight_way_to_the_goal_is_blocked():
    x = np.full(2, -0.6)
    for _ in range(100):
        x = move(x, np.ones(2))
    assert np.linalg.norm(x) < DISCS[0, 2] + 2 * STRIDE


def test_the_pole_stands_at_the_goal_and_hangs_at_the_start():
    up = observe(torch.tensor([0.0, torch.pi, 0.0, 0.0], dtype=torch.float64))
    reward = MODEL_TASKS["course/CartPoleSwingUpDense-v0"].reward
    assert reward(up, torch.zeros(1), up) == pytest.approx(1)
    assert reward(up, torch.ones(1), up) == pytest.approx(0.99)
    hanging = observe(torch.zeros(4).double())
    assert reward(up, torch.zeros(1), hanging) == pytest.approx(np.exp(-4))
    beside = observe(torch.tensor([SYSTEM.length, torch.pi, 0.0, 0.0], dtype=torch.float64))
    assert reward(up, torch.zeros(1), beside) == pytest.approx(np.exp(-1))


def test_the_cart_moves_as_its_equations_say():
    env = gym.make("course/CartPoleSwingUpDense-v0").unwrapped
    env.reset(seed=1)
    x = env.x
    obs, *_ = env.step(np.array([0.3], np.float32))
    action = torch.tensor([0.3], dtype=torch.float32).double()
    np.testing.assert_allclose(obs, observe(STEP(x, FORCE * action)), atol=1e-6)


def test_the_pendulum_needs_more_than_one_push():
    """Full torque from rest lifts it to 50 degrees at most: the swing turns where work meets weight,
    4 x = 9.81 (1 - cos x)."""
    env = gym.make("course/PendulumSwingUpDense-v0").unwrapped
    env.x = torch.zeros(2, dtype=torch.float64)
    cosines = [env.step(np.ones(1, np.float32))[0][0] for _ in range(40)]
    turn = 0.8688  # rad, where both are equal
    assert min(cosines) == pytest.approx(np.cos(turn), abs=0.02)
    reward = MODEL_TASKS["course/PendulumSwingUpDense-v0"].reward
    up, down = torch.tensor([[-1.0, 0.0, 3.0], [1.0, 0.0, 0.0]])
    assert reward(down, torch.zeros(1), up) == 1
    assert reward(up, torch.zeros(1), down) == pytest.approx(np.exp(-4))


def reach(env: gym.Env, seed: int) -> float:
    """Distance left after 200 steps of torques J' (target - fingertip), J by mujoco, against some damping."""
    obs, _ = env.reset(seed=seed)
    model, data = env.unwrapped.model, env.unwrapped.data
    for _ in range(200):
        jacobian = np.zeros((3, 7))
        mujoco.mj_jacSite(model, data, jacobian, None, model.site("finger").id)
        torque = 150 * jacobian.T @ (obs[17:] - obs[14:17]) - 3 * data.qvel
        obs, reward, _, truncated, _ = env.step(np.clip(torque / model.actuator_gear[:, 0], -1, 1))
    assert truncated
    assert -reward / 10 == pytest.approx(np.linalg.norm(obs[17:] - obs[14:17]))
    return -reward / 10


def test_the_arm_can_reach_its_targets():
    """All of twenty within 10 cm, though nothing was planned; the fingertip is seen where it is by then."""
    env = make_env("course/Reacher-v0")
    assert max(reach(env, seed) for seed in range(20)) < 0.1
    obs, _ = env.reset(seed=5)
    other, _ = env.reset(seed=6)
    assert (obs[17:] != other[17:]).all()
    data, model = env.unwrapped.data, env.unwrapped.model
    obs, *_ = env.step(np.ones(7))
    mujoco.mj_forward(model, data)
    np.testing.assert_array_equal(obs[14:17], data.site("finger").xpos)
    np.testing.assert_array_equal(obs[7:14], 0.1 * data.qvel)


def test_the_cheetah_pays_for_a_front_leg_that_is_too_high():
    obs = torch.zeros(4, 17)
    obs[:, 8] = 1.5
    obs[1, 5], obs[2, 6], obs[3, 5:8] = 0.3, 0.1, 0.3
    reward = MODEL_TASKS["course/CheetahRun-v0"].reward
    assert reward(obs, torch.zeros(4, 6), obs).tolist() == [1.5, -8.5, -8.5, -28.5]
    env = make_env("course/CheetahRun-v0").unwrapped
    env.reset(seed=0)
    before = env.data.qpos[0]
    _, reward, *_ = env.step(np.zeros(6))
    assert env.dt == 0.01
    assert (env.data.qpos[0] - before) / env.dt == pytest.approx(env.data.qvel[0], abs=0.05)
