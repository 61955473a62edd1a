import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import common.envs  # noqa: F401  registers course/...
from common.envs.finite_mdp import from_gymnasium
from common.envs.maze import Maze
from common.types import UsageError


def test_the_environment_keeps_gymnasiums_rules():
    check_env(gym.make("course/DynaMaze-v0").unwrapped, skip_render_check=True)


def test_the_shortest_way_takes_fourteen_steps():
    """As in the book; by sweeps of value iteration over the arrays, whose last state is the end."""
    mdp = from_gymnasium(gym.make("course/DynaMaze-v0"))
    V = np.zeros(len(mdp.R))
    for _ in range(60):
        V = (mdp.R + 0.95 * mdp.P @ V).max(1)
    assert mdp.start @ V == pytest.approx(0.95**13, abs=1e-12)


def test_walls_and_borders_hold_and_the_goal_ends():
    env = Maze(("S#", ".G"))
    assert [env.P[0][a] for a in range(4)] == [
        [(1.0, 0, 0.0, False)], [(1.0, 0, 0.0, False)], [(1.0, 2, 0.0, False)], [(1.0, 0, 0.0, False)],
    ]  # fmt: skip
    env.reset()
    assert env.step(2)[:4] == (2, 0.0, False, False)
    assert env.step(1)[:4] == (3, 1.0, True, False)


@pytest.mark.parametrize("plan", [("S.", "G"), ("S.", ".."), ("SG", "S."), ("SG", "x.")])
def test_a_broken_plan_is_refused(plan):
    with pytest.raises(UsageError, match="plan must be rows of one length"):
        Maze(plan)
