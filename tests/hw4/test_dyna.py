"""Dyna: Q-learning without planning, fewer episodes with it, and a model that counts."""

import gymnasium as gym
import numpy as np
import pytest

import common.envs  # noqa: F401  registers course/...
from common.envs.finite_mdp import from_gymnasium
from common.envs.maze import Maze
from common.types import UsageError
from hw3_q_learning.dynamic_programming import value_iteration
from hw3_q_learning.tabular import q_learning
from hw4_model_based import dyna_maze
from hw4_model_based.dyna import TabularModel, dyna_q
from hw4_model_based.dyna_maze import episodes_to_optimum, lengths

MAZE = {"alpha": 0.1, "gamma": 0.95, "epsilon": 0.1}


@pytest.mark.parametrize("env_id", ["course/DynaMaze-v0", "FrozenLake-v1"])
def test_without_planning_it_is_q_learning_bit_for_bit(env_id):
    env = gym.make(env_id)
    expected = q_learning(env, episodes=5, seed=3, **MAZE)
    assert (dyna_q(env, episodes=5, planning=0, seed=3, **MAZE) == expected).all()
    assert (dyna_q(env, episodes=5, planning=1, seed=3, **MAZE) != expected).any() or env_id[0] == "F"


def test_planning_finds_the_way_in_fewer_episodes():
    found = {k: [episodes_to_optimum(lengths(k, seed)) for seed in range(5)] for k in (0, 5, 50)}
    medians = {planning: np.median(counts) for planning, counts in found.items()}
    assert medians[0] > 2 * medians[5]
    assert medians[5] > medians[50]
    assert max(found[50]) < 10


def test_episodes_are_counted_to_the_first_that_is_nearly_shortest():
    assert episodes_to_optimum([99, 19, 18, 14]) == 3
    assert episodes_to_optimum([99, 19]) == 2


def test_the_maze_is_drawn_and_tabulated(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["dyna_maze", "--seeds", "2", "--out", str(tmp_path / "maze.png")])
    dyna_maze.main()
    table = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:-1]]
    assert [line[0] for line in table] == ["| 0", "| 5", "| 50"]
    assert float(table[0][1]) > float(table[2][1])
    assert (tmp_path / "maze.png").stat().st_size > 10_000
    for argv in (["--seeds", "0"], ["--out", str(tmp_path / "no" / "maze.png")]):
        monkeypatch.setattr("sys.argv", ["dyna_maze", *argv])
        with pytest.raises(SystemExit, match="2"):
            dyna_maze.main()


def test_a_remembered_world_is_solved_without_another_step():
    """One step of the maze per episode, thousands of planning steps: Q* of all that was tried."""
    env = Maze(("S..", "#.G"))
    Q = dyna_q(env, 30, 300, alpha=0.5, gamma=0.9, epsilon=0.5, seed=0)
    assert Q[0].max() == pytest.approx(0.9**2, abs=1e-9)
    assert Q[5].max() == 0  # the goal: nothing follows


def test_the_fixed_point_is_that_of_dynamic_programming():
    env = Maze(("S.", ".G"))
    mdp = from_gymnasium(env)
    V, _ = value_iteration(mdp.P, mdp.R, 0.9)
    Q = dyna_q(env, 200, 50, alpha=0.5, gamma=0.9, epsilon=0.9, seed=1)
    np.testing.assert_allclose(Q[:3].max(1), V[:3], atol=1e-9)


def test_the_model_draws_what_it_saw_as_often_as_it_saw_it():
    model, rng = TabularModel(), np.random.default_rng(0)
    for outcome in [(0.0, 1, False)] * 3 + [(1.0, 2, True)]:
        model.add(0, 1, outcome)
    model.add(2, 0, (0.5, 0, False))
    drawn = [model.draw(rng) for _ in range(8000)]
    pairs = [(s, a) for s, a, _ in drawn]
    assert pairs.count((2, 0)) / 8000 == pytest.approx(1 / 2, abs=0.02)  # pairs count alike
    outcomes = [outcome for s, _, outcome in drawn if s == 0]
    assert outcomes.count((1.0, 2, True)) / len(outcomes) == pytest.approx(1 / 4, abs=0.03)


class Pays(gym.Env):
    """Reward 1 per step, in the only state."""

    observation_space, action_space = gym.spaces.Discrete(1), gym.spaces.Discrete(1)

    def __init__(self, limit, terminates):
        self.limit, self.terminates = limit, terminates

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return 0, {}

    def step(self, action):
        self.t += 1
        return 0, 1.0, self.terminates, self.t == self.limit, {}


def test_a_time_limit_is_no_end():
    """Reward 1 for ever, episodes of 8 steps: Q goes to 1 / (1 - gamma), not to the sum of eight."""
    Q = dyna_q(Pays(limit=8, terminates=False), 30, 10, alpha=0.5, gamma=0.9, epsilon=0.0, seed=0)
    assert Q[0, 0] == pytest.approx(10, abs=1e-6)


@pytest.mark.parametrize("planning", [0, 10])
def test_an_end_is_one_even_where_the_next_episode_begins(planning):
    """Episodes of one step: Q = 1, the value of the state that follows is that of another episode."""
    Q = dyna_q(Pays(limit=8, terminates=True), 30, planning, alpha=0.5, gamma=0.9, epsilon=0.0, seed=0)
    assert Q[0, 0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"planning": -1}, "planning must be at least 0, got -1"),
        ({"gamma": 1.5}, r"gamma must lie in \[0, 1\], got 1.5"),
        ({"alpha": float("nan")}, r"alpha must lie in \[0, 1\], got nan"),
        ({"episodes": -1}, "episodes must be at least 0, got -1"),
    ],
)
def test_bad_input_is_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        dyna_q(Maze(), **({"episodes": 1, "planning": 0, "seed": 0} | MAZE | settings))


def test_an_environment_of_numbers_is_refused():
    with pytest.raises(UsageError, match="env must have states and actions that count from 0"):
        dyna_q(gym.make("CartPole-v1"), 1, 0, seed=0, **MAZE)
