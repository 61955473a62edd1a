"""Sequences out of transitions: which rows follow each other, and what is cut."""

import pytest
import torch

from common.replay import Batch
from common.types import UsageError
from hw4_model_based.sequences import cut, starts


def batch(obs, next_obs, terminated=None):
    """Rows of states [rows] -> observations [rows, 1], action = -obs, reward = 10 obs."""
    obs, next_obs = torch.tensor(obs).float()[:, None], torch.tensor(next_obs).float()[:, None]
    ended = torch.zeros(len(obs), dtype=torch.bool) if terminated is None else torch.tensor(terminated)
    return Batch(obs, -obs, 10 * obs[:, 0], next_obs, ended)


# Two environments side by side: 1 2 3 | 4 5 and 10 11 | 20 21 22, each state one step after the other.
TWO = batch([1, 10, 2, 11, 3, 20, 5, 21], [2, 11, 3, 12, 4, 21, 6, 22])


def test_rows_follow_each_other_within_an_episode_only():
    assert starts(TWO, 2, 1).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert starts(TWO, 2, 2).tolist() == [0, 1, 2, 5]
    assert starts(TWO, 2, 3).tolist() == [0]


def test_a_terminal_state_is_followed_by_nothing():
    same = batch([1, 1, 1], [1, 1, 1], [False, True, False])  # all look alike
    assert starts(same, 1, 2).tolist() == [0]


def test_what_is_cut():
    found = cut(TWO, torch.tensor([0, 5]), 2, 2)
    assert found.obs[..., 0].tolist() == [[1, 20], [2, 21], [3, 22]]
    assert found.action[..., 0].tolist() == [[-1, -20], [-2, -21]]
    assert found.reward.tolist() == [[10, 200], [20, 210]]


def test_episodes_that_are_too_short_are_refused():
    with pytest.raises(UsageError, match="batch must hold an episode of at least 4 steps"):
        starts(TWO, 2, 4)
    with pytest.raises(UsageError, match="batch must hold at least 5 steps of 2 environments, got 8 rows"):
        starts(TWO, 2, 5)
    with pytest.raises(UsageError, match="length must be at least 1, got 0"):
        starts(TWO, 2, 0)
