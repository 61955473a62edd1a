"""The small Breakout as a Gymnasium environment: what it shows is the whole state, in zeros and ones."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

from common.envs.games import Ball, Breakout

CELL = 24  # pixels


class BreakoutEnv(gym.Env):
    """Observation: row, column, paddle and last action one-hot; down, right; a bit per brick."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012, as Gymnasium has it

    def __init__(self, sticky: float = 0.1, render_mode: str | None = None):
        self.game, self.render_mode = Breakout(sticky=sticky), render_mode
        self.observation_space = Box(0, 1, (sum(sizes(self.game)),), np.float32)
        self.action_space = Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.game.start(self.np_random)
        return encode(self.game, self.state), {}

    def step(self, action):
        self.state, reward, terminated = self.game.step(self.state, int(action), self.np_random)
        return encode(self.game, self.state), reward, terminated, False, {}

    def render(self) -> np.ndarray | None:
        """[height, width, 3] uint8: bricks red, paddle grey, ball white."""
        if self.render_mode != "rgb_array":
            return None
        game, s = self.game, self.state
        cells = np.zeros((game.height, game.width, 3), np.uint8)
        bricks = [s.bricks >> i & 1 for i in range(game.height * game.width)]
        cells[np.reshape(bricks, cells.shape[:2]) == 1] = (200, 60, 60)
        cells[-1, s.paddle] = 160
        cells[s.row, s.column] = 255
        return cells.repeat(CELL, 0).repeat(CELL, 1)


def sizes(game: Breakout) -> tuple[int, ...]:
    """Of the parts of an observation."""
    return game.height, game.width, game.width, 3, 1, 1, 3 * game.width


def encode(game: Breakout, state: Ball) -> np.ndarray:
    """[D] float32"""
    one_hot = (np.arange(size) == i for size, i in zip(sizes(game), _one_hot(state), strict=False))
    bricks = [state.bricks >> game.width + i & 1 for i in range(3 * game.width)]
    return np.concatenate([*one_hot, [state.down > 0, state.right > 0], bricks], dtype=np.float32)


def decode(game: Breakout, obs: np.ndarray) -> Ball:
    """The inverse of `encode`."""
    row, column, paddle, action, down, right, bricks = np.split(obs, np.cumsum(sizes(game))[:-1])
    where = (int(part.argmax()) for part in (row, column))
    bits = sum(1 << game.width + i for i in bricks.nonzero()[0].tolist())
    signs = (2 * int(part[0]) - 1 for part in (down, right))
    return Ball(*where, *signs, int(paddle.argmax()), bits, int(action.argmax()))


def _one_hot(state: Ball) -> tuple[int, ...]:
    return state.row, state.column, state.paddle, state.action
