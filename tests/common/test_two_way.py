"""The tree, the road, and an expert of two minds."""

import numpy as np
import pytest

from common.envs import registry
from common.envs.two_way import AHEAD, ASIDE, ROAD, SPREAD, START, TREE, UNDECIDED, expert
from common.evaluation import evaluate
from hw1_imitation.demonstrations import collect

ENV = "course/TwoWay-v0"


def test_steps_by_hand():
    env = registry.make_env(ENV)
    obs, _ = env.reset(seed=0)
    assert obs[0] == np.float32(START)
    after, reward, terminated, truncated, _ = env.step(np.array([0.0, -1.0]))
    assert after - obs == pytest.approx([AHEAD / 2, -ASIDE])
    assert (reward, terminated, truncated) == (0, False, False)


def test_no_side_is_nearer_at_the_start():
    env = registry.make_env(ENV)
    y = [env.reset(seed=seed)[0][1] for seed in range(200)]
    assert 0.9 * SPREAD < max(y) <= SPREAD < UNDECIDED
    assert -SPREAD <= min(y) < -0.9 * SPREAD


def play(action: list[float]) -> tuple[float, bool, bool, dict]:
    env = registry.make_env(ENV)
    env.reset(seed=0)
    while True:
        _, reward, terminated, truncated, info = env.step(np.array(action))
        if terminated or truncated:
            return reward, terminated, truncated, info


def test_straight_ahead_is_the_tree_and_aside_the_edge_of_the_road():
    for action in ([1.0, 0.0], [-1.0, 1.0]):
        assert play(action)[:3] == (0.0, True, False)


def test_who_stands_still_runs_out_of_time():
    assert play([-1.0, 0.0])[:3] == (0.0, False, True)


def test_the_mean_of_two_good_actions_is_a_bad_one():
    """All that the expert would do first is passed with, their mean is not."""
    generator = np.random.default_rng(0)
    env = registry.make_env(ENV)
    for side in (-0.9, 0.9):
        obs, _ = env.reset(seed=1)
        action = np.array([0.9, side])
        while True:
            obs, reward, terminated, _, _ = env.step(action)
            action = expert(obs[None], generator)[0]
            if terminated:
                break
        assert reward == 1
    assert play([0.9, 0.0])[0] == 0


def test_expert_always_passes_on_both_sides_and_is_labelled_by_what_it_did():
    generator = np.random.default_rng(0)

    def act(obs):
        return expert(obs, generator)

    scores = evaluate(act, registry.make_envs(ENV, 200), seed=0)
    assert scores["return_mean"] == 1
    assert 0.35 < scores["policy/left"] < 0.65  # 0.5 within four standard errors
    data = collect(act, registry.make_envs(ENV, 1), 500, seed=0)
    first = data.length.cumsum(0)[:-1]
    rows = np.setdiff1d(np.arange(len(data) - 1), first.numpy() - 1)
    aside = (data.obs[rows + 1, 1] - data.obs[rows, 1]).numpy()
    assert aside == pytest.approx(ASIDE * data.action[rows, 1].numpy(), abs=1e-5)


def test_picture_shows_tree_road_and_way():
    env = registry.make_env(ENV, "rgb_array")
    env.reset(seed=0)
    before = env.render()
    env.step(np.array([0.0, 1.0]))
    after = env.render()
    assert before.shape == (400, 600, 3)
    assert before.dtype == np.uint8
    assert 0 < (before != after).any(-1).mean() < 0.05
    assert TREE < ROAD
