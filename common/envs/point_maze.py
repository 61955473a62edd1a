"""A point in a square room that a wall parts but for a gap, and a goal to reach.

The five actions are steps of STEP m to the right, the left, up, down, and none; a step that would end in a
wall is not taken. The reward is 1 for coming within NEAR of the first goal, so that the return is the share
of goals reached; then another goal appears, and the way goes on until time is up.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

from common.envs.drawing import BLUE, GRAY, ORANGE, Shape, picture

MOVES = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [0, 0]])
STEP = 0.1  # m
NEAR = 0.15  # m
ROOM = 1.0  # m, half of its side
WALL, GAP = 0.06, 0.3  # m, half of the wall's thickness, and where it ends above the floor
SHAKEN = 0.01  # m, deviation of every step


def blocked(p: np.ndarray) -> np.ndarray:
    """[..., 2] -> [...] bool, in the wall or outside the room"""
    x, y = p[..., 0], p[..., 1]
    return (np.abs(p).max(-1) > ROOM) | ((np.abs(x) < WALL) & (y > GAP))


class PointMazeEnv(gym.Env):
    """Observation: the point, the goal, in m."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012, as Gymnasium has it

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self.observation_space = Box(-ROOM, ROOM, (4,), np.float32)
        self.action_space = Discrete(len(MOVES))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.p = self._free()
        self.goal, self.first = self._elsewhere(), True
        return self._obs(), {}

    def step(self, action):
        to = self.p + STEP * MOVES[int(action)] + SHAKEN * self.np_random.standard_normal(2)
        between = self.p + np.linspace(0, 1, 5)[1:, None] * (to - self.p)
        if not blocked(between).any():
            self.p = to
        reached = np.linalg.norm(self.goal - self.p) < NEAR
        reward = float(reached and self.first)
        if reached:
            self.goal, self.first = self._elsewhere(), False
        return self._obs(), reward, False, False, {}

    def _elsewhere(self) -> np.ndarray:
        while np.linalg.norm((goal := self._free()) - self.p) < 2 * NEAR:
            pass
        return goal

    def _free(self) -> np.ndarray:
        while blocked(p := self.np_random.uniform(-ROOM, ROOM, 2)):
            pass
        return p

    def _obs(self) -> np.ndarray:
        return np.concatenate([self.p, self.goal]).astype(np.float32)

    def render(self) -> np.ndarray:
        corners = ROOM * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])
        edges = [Shape(corners[k : k + 2], 0.02, GRAY) for k in range(4)]
        wall = Shape(np.array([[0, GAP], [0, ROOM]]), 2 * WALL, GRAY)
        spots = [Shape(self.goal[None], 2 * NEAR, ORANGE), Shape(self.p[None], 0.06, BLUE)]
        return picture([*edges, wall, *spots], (0.0, 0.0), 3.6)
