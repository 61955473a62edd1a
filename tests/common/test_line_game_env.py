"""The line games as environments: who plays, who wins, what is shown."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import common.envs  # noqa: F401  registers them
from common.envs.line_game_env import decode, encode

ENV_IDS = ("course/TicTacToe-v0", "course/ConnectThree-v0")


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_gymnasium_accepts_the_environment(env_id):
    check_env(gym.make(env_id, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_the_agent_is_to_move_and_is_rewarded_for_its_own_side(env_id):
    """Games of chance: each player wins about as often from either side as the rules have it, the reward is
    the winner's, and half the games are begun by the other."""
    env = gym.make(env_id).unwrapped
    began, ends = [], []
    for seed in range(300):
        obs, _ = env.reset(seed=seed)
        rng, terminated = np.random.default_rng(seed + 1000), False
        began.append(env.side)
        while not terminated:
            state = decode(obs)
            assert env.game.player(state) == env.side
            assert (encode(env.game, state) == obs).all()
            obs, reward, terminated, *_ = env.step(rng.choice(env.game.actions(state)))
        ends.append(reward)
    assert abs(np.mean(began)) < 0.2
    assert {*ends} == {-1.0, 0.0, 1.0}
    assert (
        np.mean([e for e, b in zip(ends, began, strict=True) if b == 1]) > 0.1
    )  # who begins has more stones


def test_a_line_wins_and_a_taken_cell_loses():
    env = gym.make("course/TicTacToe-v0").unwrapped
    env.reset(seed=0)
    env.state, env.side = (0b011, 0b011000), 1
    assert env.step(2)[1:3] == (1.0, True)
    env.state, env.side = (0b011, 0b011000), 1
    assert env.step(3)[1:3] == (-1.0, True)
    env.state, env.side = (0b1001011, 0b110000), -1  # the other side has its line too
    assert env.step(3)[1:3] == (-1.0, True)


def test_the_picture_shows_stones():
    env = gym.make("course/ConnectThree-v0", render_mode="rgb_array").unwrapped
    env.reset(seed=0)
    env.state = (0b0001, 0b0010)
    frame = env.render()
    assert frame.shape == (160, 160, 3)
    assert frame[-20, 20].tolist() != frame[-20, 60].tolist()
    assert frame[20, 20].tolist() == [255, 255, 255]
    assert gym.make("course/ConnectThree-v0").unwrapped.render() is None
