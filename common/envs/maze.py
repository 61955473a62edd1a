"""The maze of Dyna (Sutton 1990; Sutton and Barto 2018, example 8.1): walls in a grid, a reward at the goal.

A toy-text environment with `P` and `initial_state_distrib`, as common.envs.finite_mdp takes them.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete

from common.types import require

DYNA = (
    ".......#G",
    "..#....#.",
    "S.#....#.",
    "..#......",
    ".....#...",
    ".........",
)
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left


class Maze(gym.Env):
    """State = row * width + column, walls included. Reward 1 for the step into the goal, where it ends.

    Whoever walks into a wall stays where he is.
    """

    metadata = {"render_modes": []}  # noqa: RUF012, as Gymnasium has it

    def __init__(self, plan: tuple[str, ...] = DYNA):
        text = "".join(plan)
        ok = len({len(row) for row in plan}) == 1 and text.count("S") == 1 and text.count("G") == 1
        require(
            ok and set(text) <= set(".#SG"), "plan must be rows of one length of . # S G, one S and one G"
        )
        self.height, self.width = len(plan), len(plan[0])
        self.start, self.goal = text.index("S"), text.index("G")
        self.walls = frozenset(s for s, mark in enumerate(text) if mark == "#")
        self.observation_space, self.action_space = Discrete(len(text)), Discrete(len(MOVES))
        self.initial_state_distrib = np.eye(len(text))[self.start]
        self.P = {s: {a: [(1.0, *self._outcome(s, a))] for a in range(len(MOVES))} for s in range(len(text))}

    def _outcome(self, s: int, a: int) -> tuple[int, float, bool]:
        """(next state, reward, terminated)"""
        row, column = s // self.width + MOVES[a][0], s % self.width + MOVES[a][1]
        inside = 0 <= row < self.height and 0 <= column < self.width
        to = row * self.width + column
        if not inside or to in self.walls:
            to = s
        return to, float(to == self.goal), to == self.goal

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.s = self.start
        return self.s, {}

    def step(self, action):
        ((_, self.s, reward, terminated),) = self.P[self.s][int(action)]
        return self.s, reward, terminated, False, {}
