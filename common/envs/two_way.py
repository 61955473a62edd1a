"""A tree in the middle of the road: it may be passed on either side, and there are demonstrations of both.

dx = AHEAD (1 + a_0) / 2, dy = ASIDE a_1 per step, from the middle of the road. The reward is 1 for passing
the tree, so that the return is the share of successes; which side it was is told at the end.
"""

from __future__ import annotations

from itertools import pairwise

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from common.envs.drawing import BLUE, GRAY, ORANGE, Shape, picture

AHEAD, ASIDE = 0.1, 0.35  # m, the farthest in one step
TREE = 0.3  # m, its radius, around the origin
ROAD = 0.9  # m, from the middle to the edge
START, FINISH = -0.4, 0.6  # m; from the start it is too late to hesitate
LANE = 0.55  # m, from the middle, where the expert passes
UNDECIDED = 0.15  # m, from the middle, where both sides are as good
SPREAD = 0.01  # m, from the middle, of the start: no side is nearer


class TwoWayEnv(gym.Env):
    """Observation: x and y in m."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012, as Gymnasium has it

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self.observation_space = Box(-2, 2, (2,), np.float32)
        self.action_space = Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.y = START, self.np_random.uniform(-SPREAD, SPREAD)
        self.path = [(self.x, self.y)]
        return self._obs(), {}

    def step(self, action):
        a0, a1 = np.clip(np.asarray(action, np.float64), -1, 1)
        self.x += AHEAD * (1 + a0) / 2
        self.y += ASIDE * a1
        self.path.append((self.x, self.y))
        crashed = np.hypot(self.x, self.y) < TREE or abs(self.y) > ROAD
        passed = not crashed and self.x > FINISH
        told = {"episode_metrics": {"policy/left": float(passed and self.y > 0)}}
        return self._obs(), float(passed), bool(crashed or passed), False, told

    def _obs(self) -> np.ndarray:
        return np.array([self.x, self.y], np.float32)

    def render(self) -> np.ndarray:
        """The road from above, the way so far."""
        path = np.array(self.path)
        edges = [Shape(np.array([[-5.0, y], [5.0, y]]), 0.02, GRAY) for y in (-ROAD, ROAD)]
        way = [Shape(np.stack(pair), 0.02, ORANGE) for pair in pairwise(path)]
        tree, car = Shape(np.zeros((1, 2)), 2 * TREE, GRAY), Shape(path[-1:], 0.08, BLUE)
        return picture([*edges, tree, *way, car], (-0.2, 0.0), 3.0)


def expert(obs: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Passes on the left at full speed, on the right at half of it: [N, 2] -> [N, 2].

    Undecided, it draws a side, and goes there as fast as it can; then it stays on the side where it is. Its
    hand trembles by 0.05.
    """
    y = obs[:, 1].astype(np.float64)
    drawn = generator.random(len(obs)) < 0.5
    left = np.where(np.abs(y) < UNDECIDED, drawn, y > 0)
    lane = np.where(left, LANE, -LANE)
    action = np.stack([np.where(left, 1.0, 0.0), (lane - y) / ASIDE], 1)
    return (action.clip(-0.9, 0.9) + 0.05 * generator.standard_normal(action.shape)).clip(-1, 1)
