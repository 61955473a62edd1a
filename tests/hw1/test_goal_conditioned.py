"""The maze, and goals that were reached."""

import numpy as np
import pytest
import torch

from common.envs import registry
from common.envs.point_maze import GAP, NEAR, SHAKEN, STEP, PointMazeEnv, blocked
from common.types import EnvSpec, UsageError
from hw1_imitation.demonstrations import Demonstrations
from hw1_imitation.goal_conditioned import Exploring, GoalCloning, GoalConfig, practise, relabel
from tests.helpers import CPU

MAZE = "course/PointMaze-v0"


def test_goals_were_reached_h_steps_later_in_the_same_trajectory(generator):
    """States 0 to 4 and 5 to 7: every later state of the same trajectory is a goal, and no other."""
    state = torch.arange(8.0)[:, None]
    data = Demonstrations(torch.cat([state, -torch.ones(8, 1)], 1), torch.arange(8), torch.tensor([5, 3]))
    found = relabel(data, slice(1, 2), horizon=100, copies=400, generator=generator)
    pairs = {(int(s), int(g)) for s, g in found.obs}
    assert pairs == {(s, g) for a, b in ((0, 5), (5, 8)) for s in range(a, b) for g in range(s + 1, b)}
    assert torch.equal(found.action, found.obs[:, 0].long())  # what was done there
    first = found.obs[found.obs[:, 0] == 0, 1]
    assert abs((first == 1).float().mean() - 0.25) < 4 * (0.25 * 0.75 / 400) ** 0.5


def test_horizon_bounds_the_way_to_a_goal(generator):
    state = torch.arange(20.0)[:, None]
    data = Demonstrations(
        torch.cat([state, state], 1), torch.zeros(20, dtype=torch.int64), torch.tensor([20])
    )
    found = relabel(data, slice(1, 2), horizon=3, copies=50, generator=generator).obs
    assert (found[:, 1] - found[:, 0]).unique().tolist() == [1, 2, 3]


def test_a_single_step_shows_no_way(generator):
    data = Demonstrations(torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64), torch.tensor([1, 1]))
    with pytest.raises(UsageError, match="a trajectory of two steps"):
        relabel(data, slice(1, 2), 5, 1, generator)


def test_walls_stop_the_point():
    env = PointMazeEnv()
    env.reset(seed=0)
    for start, action, moved in (((-0.1, 0.9), 0, False), ((-0.1, 0.0), 0, True), ((0.97, 0.0), 0, False)):
        env.p = np.array(start)
        env.step(action)
        step = env.p - start
        assert bool(np.abs(step).any()) == moved
        if moved:
            assert step == pytest.approx([STEP, 0], abs=5 * SHAKEN)
    assert blocked(np.array([[0.0, GAP + 0.1], [0.0, GAP - 0.1], [1.1, 0.0]])).tolist() == [True, False, True]


def test_reward_counts_the_first_goal_only_and_the_way_goes_on():
    env = PointMazeEnv()
    env.reset(seed=0)
    env.p, env.goal = np.array([0.5, 0.0]), np.array([0.5 + STEP, 0.0])
    obs, reward, terminated, truncated, _ = env.step(0)
    assert (reward, terminated, truncated) == (1, False, False)
    assert np.linalg.norm(obs[2:] - obs[:2]) >= 2 * NEAR - 1e-6
    env.goal = env.p + np.array([STEP, 0])
    assert env.step(0)[1] == 0


def test_practice_begins_at_random_and_explores_later():
    numbers = np.random.default_rng(0)
    act = Exploring(lambda obs: np.zeros(len(obs), np.int64), 5, 0.2, numbers)
    drawn = act(np.zeros((20_000, 4), np.float32))
    assert (drawn != 0).mean() == pytest.approx(0.2 * 4 / 5, abs=4 * (0.16 * 0.84 / 20_000) ** 0.5)
    envs, spec = registry.make_envs(MAZE, 10), registry.spec(registry.make_envs(MAZE, 10))
    config = GoalConfig(steps=400, relabels=1, random=0.0)
    first = practise(lambda obs: np.zeros(len(obs), np.int64), envs, spec, config, 0, seed=0)
    later = practise(lambda obs: np.zeros(len(obs), np.int64), envs, spec, config, 1, seed=0)
    assert first.action.unique().tolist() == [0, 1, 2, 3, 4]
    assert later.action.unique().tolist() == [0]


def test_acting_draws_by_its_temperature():
    agent = GoalCloning(EnvSpec(1, 4, 2, True), GoalConfig(hidden=(), temperature=0.5), CPU, 0)
    with torch.no_grad():
        agent.policy.net[0].weight.zero_()
        agent.policy.net[0].bias.copy_(torch.tensor([0.0, 1.0]))
    share = (agent.act(np.zeros((20_000, 4), np.float32)) == 1).mean()
    expected = 1 / (1 + np.exp(-2))
    assert share == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 20_000) ** 0.5)


def test_bad_settings_are_refused():
    for settings, sentence in (
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"random": 1.5}, "random must lie in"),
        ({"temperature": 0.0}, "temperature must be"),
    ):
        with pytest.raises(UsageError, match=sentence):
            GoalConfig(**settings)
    with pytest.raises(UsageError, match="discrete actions and observations"):
        GoalCloning(EnvSpec(1, 4, 2, False), GoalConfig(), CPU, 0)
