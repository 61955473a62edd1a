"""A small finger pushes a block over a table: what a robot sees, and where a pixel of it should go.

Both are discs and move without inertia. The finger moves by STRIDE a, in small steps; a block that it would
lie in slides away along the line between the centres, and stops it at the wall.

A picture has two colours, the block's and the finger's. One point on the block is designated at the start,
and a goal for it. The reward is 1 where the point comes within two pixels of its goal, which is the end: the
return of an episode is its success.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from common.envs.pixels import PIXEL, SIZE, disc, enlarge

COLOURS = 2  # block, finger
STRIDE, SUBSTEPS = 0.2, 4  # of a full action along each axis, in the square [-1, 1]^2
BLOCK, FINGER = 0.24, 0.12  # radii
TABLE = 0.72  # the block's centre stays within
REACHED = 2.0  # pixels


def push(finger: np.ndarray, block: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres [2] after an action [2] in [-1, 1]."""
    for _ in range(SUBSTEPS):
        finger = np.clip(finger + STRIDE / SUBSTEPS * np.clip(action, -1, 1), -0.9, 0.9)
        arm = block - finger
        distance = max(np.hypot(*arm), 1e-9)
        if distance < BLOCK + FINGER:
            arm = arm / distance * (BLOCK + FINGER)
            block = np.clip(finger + arm, -TABLE, TABLE)
            finger = block - arm
    return finger, block


class PushPixels(gym.Env):
    """Observation = [picture; designated point of the first picture; goal], in [0, 1]: the picture is
    [COLOURS, SIZE, SIZE], the points are (right, up) with 0 and 1 at the edges."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012, as Gymnasium has it
    observation_space = Box(0, 1, (COLOURS * SIZE * SIZE + 4,), np.float32)
    action_space = Box(-1, 1, (2,), np.float32)

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        """The goal is 5 to 8 pixels away from the point, the finger beside the block, on any side."""
        super().reset(seed=seed)
        random = self.np_random
        self.block = random.uniform(-0.4, 0.4, 2)
        self.finger = self.block + self._arm(BLOCK + FINGER + 0.1)
        self.offset = self._arm(random.uniform(0, 0.6 * BLOCK))  # of the point from the centre
        way = self._arm(random.uniform(5, 8) * PIXEL)
        centre = self.block + way
        way = np.where(np.abs(centre) > TABLE, -way, way)  # turned back from the edge
        self.points = np.stack([self.block + self.offset, self.block + way + self.offset])
        return self._obs(), {}

    def _arm(self, length: float) -> np.ndarray:
        angle = self.np_random.uniform(-np.pi, np.pi)
        return length * np.array([np.cos(angle), np.sin(angle)])

    def step(self, action):
        self.finger, self.block = push(self.finger, self.block, np.asarray(action, np.float64))
        reached = self.distance() <= REACHED
        return self._obs(), float(reached), bool(reached), False, {}

    def distance(self) -> float:
        """From the designated point to its goal, in pixels."""
        return float(np.hypot(*(self.block + self.offset - self.points[1])) / PIXEL)

    def picture(self) -> np.ndarray:
        """[COLOURS, SIZE, SIZE] float32"""
        return np.stack([disc(self.block, BLOCK), disc(self.finger, FINGER)])

    def _obs(self) -> np.ndarray:
        return np.concatenate([self.picture(), (self.points + 1) / 2], axis=None, dtype=np.float32)

    def render(self) -> np.ndarray | None:
        """[ZOOM SIZE, ZOOM SIZE, 3] uint8: block red, finger blue, the point white, its goal green."""
        if self.render_mode != "rgb_array":
            return None
        block, finger = self.picture()
        point, goal = disc(self.block + self.offset, PIXEL), disc(self.points[1], PIXEL)
        colours = np.stack([block + point, goal + point, finger + point], -1)
        return enlarge(colours.clip(0, 1))
