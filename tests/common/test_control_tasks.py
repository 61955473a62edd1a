"""Control tasks: their equations, their environments and their pictures."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

import common.envs  # noqa: F401  registers course/...
from common.envs.control_tasks import TASKS, task_of
from common.envs.drawing import BLUE, HEIGHT, ORANGE, WIDTH
from common.types import UsageError

OWN = [env_id for env_id in TASKS if env_id.startswith("course/")]


@pytest.mark.parametrize("env_id", OWN)
def test_rest_at_the_goal_costs_nothing_and_stays(env_id):
    """Unless it can be at rest there, a goal could not be kept."""
    task = TASKS[env_id]
    x, u = torch.tensor(task.goal, dtype=torch.float64), torch.full((task.m,), task.rest, dtype=torch.float64)
    assert task.cost(x, u) == task.final_cost(x) == 0
    torch.testing.assert_close(task.step(x, u), x, rtol=0, atol=1e-9)


def test_costs_by_hand():
    task = TASKS["course/AcrobotSwingUp-v0"]  # 1/2 (0.1 |x - goal|^2 + 0.01 u^2), 1/2 1000 |x - goal|^2
    x, u = torch.tensor([math.pi, 2.0, 0.0, 1.0]).double(), torch.tensor([3.0]).double()
    assert task.cost(x, u).item() == pytest.approx(0.5 * (0.1 * 5 + 0.01 * 9))
    assert task.final_cost(x).item() == pytest.approx(500 * 5)
    pendulum = TASKS["Pendulum-v1"]
    x = torch.tensor([[math.pi + 0.1, 2.0], [2 * math.pi + 0.1, 0.0]]).double()
    u = torch.tensor([[2.0], [0.0]]).double()
    expected = [(math.pi - 0.1) ** 2 + 0.1 * 4 + 0.001 * 4, 0.01]
    assert pendulum.cost(x, u).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("env_id", OWN)
def test_jacobian_agrees_with_autograd(env_id):
    task, generator = TASKS[env_id], torch.Generator().manual_seed(0)
    x, u = (torch.randn(size, generator=generator).double() for size in (task.n, task.m))
    expected = torch.cat(torch.autograd.functional.jacobian(task.step, (x, u)), -1)
    torch.testing.assert_close(task.jacobian(x, u), expected, rtol=1e-10, atol=1e-12)


def test_actions_are_scaled_to_one():
    task = TASKS["course/Quadrotor-v0"]  # takes [0, 5] N
    assert task.action(torch.tensor([[0.0, 2.5], [5.0, 1.25]])).tolist() == [[-1, 0], [1, -0.5]]


def test_the_end_of_the_horizon_is_a_termination_and_pays_the_final_cost():
    env = gym.make("course/PendulumSwingUp-v0")
    task, (obs, _) = TASKS["course/PendulumSwingUp-v0"], env.reset(seed=0)
    rewards, terminated = [], False
    while not terminated:
        obs, reward, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
        rewards.append(reward)
        assert not truncated
    assert len(rewards) == task.horizon
    assert obs[-1] == 1
    final = 0.5 * task.Q_T[0] * math.pi**2  # it hangs where it hung
    assert rewards[:-1] == [0] * (task.horizon - 1)
    assert rewards[-1] == pytest.approx(-final)


def test_controls_are_held_to_their_limits():
    after = []
    for action in (3.0, 1e6):
        env = gym.make("course/PendulumSwingUp-v0").unwrapped
        env.reset(seed=0)
        after.append(env.step(np.array([action]))[0])
    np.testing.assert_array_equal(*after)


def test_starts_are_spread_by_the_seed_alone():
    env = gym.make("course/DoubleIntegrator-v0")
    starts = np.array([env.reset(seed=k)[0][:2] for k in range(300)])
    np.testing.assert_array_equal(env.reset(seed=7)[0][:2], starts[7])
    assert starts.std(0) == pytest.approx([1.0, 1.0], rel=0.17)  # 4 standard errors
    assert np.abs(starts.mean(0)).max() < 4 / 300**0.5


@pytest.mark.parametrize("env_id", OWN)
def test_the_picture_shows_the_state_and_the_goal(env_id):
    env = gym.make(env_id, render_mode="rgb_array")
    env.reset(seed=0)
    start, unwrapped = env.render(), env.unwrapped
    assert (start.shape, start.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    assert env.metadata["render_fps"] == round(1 / TASKS[env_id].dt)
    assert (start == BLUE).all(-1).sum() > 20
    unwrapped.x = np.array(TASKS[env_id].goal) + 0.2
    assert (env.render() != start).any()
    unwrapped.x = np.array(TASKS[env_id].goal)
    there = env.render()
    assert (there == BLUE).all(-1).sum() > 20
    pale = tuple(255 - (255 - c) // 5 for c in BLUE)
    assert (start == pale).all(-1).sum() > (there == pale).all(-1).sum()  # the goal is covered now


def test_the_pole_hangs_down_at_zero_and_up_at_pi():
    env = gym.make("course/CartPoleSwingUp-v0", render_mode="rgb_array")
    env.reset()
    rows = []
    for angle in (0.0, math.pi):
        env.unwrapped.x = np.array([0.5, angle, 0.0, 0.0])
        rows.append(np.nonzero((env.render() == ORANGE).all(-1))[0].mean())
    assert rows[0] > HEIGHT / 2 > rows[1]


def test_a_state_far_out_of_the_picture_is_drawn_all_the_same():
    env = gym.make("course/Quadrotor-v0", render_mode="rgb_array")
    env.reset()
    env.unwrapped.x = np.array([1e9, -1e9, 1e5, 0, 0, 0])
    assert env.render().shape == (HEIGHT, WIDTH, 3)


def test_unknown_dynamics_are_one_sentence():
    with pytest.raises(
        UsageError, match=r"env_id must have known dynamics, one of Pendulum-v1, course/.*'Ant"
    ):
        task_of("Ant-v5")
