"""The environment plays the game's own rules, and shows its whole state."""

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env

import common.envs  # noqa: F401  registers course/Breakout-v0
from common.envs.breakout_env import BreakoutEnv, decode, encode
from common.envs.games import Ball


def test_gymnasium_accepts_it():
    check_env(gym.make("course/Breakout-v0", render_mode="rgb_array").unwrapped)
    assert gym.spec("course/Breakout-v0").max_episode_steps == 200


def test_an_observation_holds_the_state():
    """Along random games, and by hand: row 4, column 1, down, to the left, paddle 5, the first brick gone."""
    env = BreakoutEnv()
    bricks = env.game.bricks ^ 1 << 6
    obs = encode(env.game, Ball(4, 1, 1, -1, 5, bricks, 2))
    assert obs.nonzero()[0].tolist() == [4, 9, 19, 22, 23, *range(26, 43)]
    generator = np.random.default_rng(0)
    for seed in range(5):
        obs, terminated = env.reset(seed=seed)[0], False
        while not terminated:
            assert decode(env.game, obs) == env.state
            obs, _, terminated, *_ = env.step(generator.integers(3))


def test_a_picture_shows_ball_paddle_and_bricks():
    env = BreakoutEnv(render_mode="rgb_array")
    env.reset(seed=0)
    env.state = Ball(5, 1, 1, -1, 5, env.game.bricks ^ 1 << 6, 2)
    colours = env.render()[::24, ::24].astype(int).sum(-1)
    assert colours.shape == (8, 6)
    assert colours[5, 1] == 3 * 255
    assert colours[7, 5] == 3 * 160
    assert (colours == 320).sum() == 17
    assert colours[1, 0] == 0
