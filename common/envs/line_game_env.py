"""Tic-tac-toe and Connect-3 as Gymnasium environments: an opponent that plays by chance answers every move.

Who begins is drawn. The reward is the end of the game: 1 won, -1 lost, 0 drawn. A move that the rules forbid
loses. What is shown is the whole state, and the agent is always the one to move.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

from common.envs.drawing import BLUE, GRAY, ORANGE, WHITE
from common.envs.games import LineGame, Stones, connect_three, tic_tac_toe

GAMES = {"tic-tac-toe": tic_tac_toe, "connect-three": connect_three}
CELL = 40  # pixels


class LineGameEnv(gym.Env):
    """Observation: a bit per cell for the stones of who began, then for the other's. [2 cells]"""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012, as Gymnasium has it

    def __init__(self, game: str, render_mode: str | None = None):
        self.game, self.render_mode = GAMES[game](), render_mode
        cells = self.game.height * self.game.width
        self.observation_space = Box(0, 1, (2 * cells,), np.float32)
        self.action_space = Discrete(self.game.width if self.game.gravity else cells)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.side = self.game.start, 1
        if self.np_random.integers(2):
            self.side = -1
            self._answer()
        return encode(self.game, self.state), {}

    def step(self, action):
        if int(action) not in self.game.actions(self.state):
            return encode(self.game, self.state), -1.0, True, False, {}
        self.state, reward, terminated = self.game.step(self.state, int(action))
        if not terminated:
            reward, terminated = self._answer()
        return encode(self.game, self.state), self.side * reward, terminated, False, {}

    def _answer(self) -> tuple[float, bool]:
        choice = self.np_random.choice(self.game.actions(self.state))
        self.state, reward, terminated = self.game.step(self.state, int(choice))
        return reward, terminated

    def render(self) -> np.ndarray | None:
        """[height, width, 3] uint8: blue began, row 0 below."""
        if self.render_mode != "rgb_array":
            return None
        game = self.game
        plus, minus = encode(game, self.state).reshape(2, game.height, game.width)
        cells = np.full((game.height, game.width, 3), WHITE, np.uint8)
        cells[plus == 1], cells[minus == 1] = BLUE, ORANGE
        frame = cells[::-1].repeat(CELL, 0).repeat(CELL, 1)
        frame[::CELL], frame[:, ::CELL] = GRAY, GRAY
        return frame


def encode(game: LineGame, state: Stones) -> np.ndarray:
    """[2 cells] float32"""
    cells = range(game.height * game.width)
    return np.array([stones >> cell & 1 for stones in state for cell in cells], np.float32)


def decode(obs: np.ndarray) -> Stones:
    """The inverse of `encode`."""
    plus, minus = (sum(1 << int(cell) for cell in part.nonzero()[0]) for part in np.split(obs, 2))
    return plus, minus
