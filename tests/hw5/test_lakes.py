"""Lakes small enough to be walked by hand."""

import gymnasium as gym
import numpy as np
import pytest

from common.envs.registry import make_env
from common.types import UsageError
from hw5_planning_control.lakes import (
    expected_return,
    is_ice,
    maps_of,
    mdp_of,
    observations,
    q_values,
    tried,
)

DOWN, RIGHT = 1, 2


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_maps_are_the_environments_own_and_random_ones_of_its_size():
    lakes = maps_of(make_env("FrozenLake-v1"), 3, generator())
    assert lakes[0] == ["SFFF", "FHFH", "FFFH", "HFFG"]
    assert all(len(lake) == 4 and {len(row) for row in lake} == {4} for lake in lakes)
    assert lakes[1] != lakes[2]
    assert maps_of(make_env("FrozenLake8x8-v1"), 1, generator())[0][0] == "SFFFFFFF"


def test_an_observation_tells_where_one_stands_and_where_the_holes_are():
    x = observations(["SH", "FG"])
    assert x.tolist() == [[*row, 0, 1, 0, 0] for row in np.eye(4).tolist()]
    assert is_ice(["SH", "FG"]).tolist() == [True, False, True, False]


def test_a_corridor_by_hand():
    """Without holes, 1 x 2 cells and slips to both sides: `right` reaches the goal with 1/3 per step."""
    mdp = mdp_of(["SG"])
    right = np.full(2, RIGHT)
    assert expected_return(mdp, right, 1) == pytest.approx(1 / 3)
    assert expected_return(mdp, right, 3) == pytest.approx(1 - (2 / 3) ** 3)
    gamma = 0.9  # V = 1/3 + 2/3 gamma V
    assert q_values(mdp, gamma)[0].max() == pytest.approx(1 / 3 / (1 - 2 / 3 * gamma))


def test_the_return_is_what_episodes_earn_on_average():
    """5,000 of them, within four standard errors: a return lies in [0, 1]."""
    lake, policy, random = ["SFF", "FHF", "FFG"], np.full(9, DOWN), generator()
    policy[6:8] = RIGHT
    mdp = mdp_of(lake)
    exact, earned = expected_return(mdp, policy, 8), 0.0
    for _ in range(5_000):
        state, over, t = 0, False, 0
        while not over and t < 8:
            state, reward, over = mdp.step(state, policy[state], random)
            earned, t = earned + reward, t + 1
    assert 0.1 < exact < 0.9
    assert earned / 5_000 == pytest.approx(exact, abs=4 * 0.5 / 5_000**0.5)


def test_who_tries_more_knows_more():
    """Counted probabilities stay probabilities, and their error falls as one over the root of the tries."""
    mdp = mdp_of(["SFFF", "FHFH", "FFFH", "HFFG"])
    few, many = (np.abs(tried(mdp, n, generator()).P - mdp.P).mean() for n in (10, 1000))
    assert 5 < few / many < 20
    assert set(np.unique(tried(mdp, 2, generator()).P)) <= {0, 0.5, 1}


def test_other_environments_are_refused():
    with pytest.raises(UsageError, match="env_id must be a frozen lake"):
        maps_of(gym.make("CliffWalking-v1"), 2, generator())
