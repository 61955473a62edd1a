"""Environments that show pixels: small grey pictures, drawn with numpy in well under a millisecond.

An observation is the last FRAMES pictures, the oldest first, as one vector [FRAMES * SIZE * SIZE] in [0, 1]:
one picture shows where things are, two show how fast they move. Edges are smooth, so that a motion of less
than a pixel is seen. The picture shows the square [-1, 1]^2, right and up.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

SIZE = 32  # pixels, along each side
FRAMES = 2
PIXEL = 2 / SIZE  # its side, in the units of the square
X = ((np.arange(SIZE) + 0.5) * PIXEL - 1).astype(np.float32)  # of the columns
Y = -X[:, None]  # of the rows, from the top
ZOOM = 12  # of the picture for people


def disc(centre: np.ndarray, radius: float) -> np.ndarray:
    """Which share of each pixel it covers: [SIZE, SIZE]."""
    return _cover((X - np.float32(centre[0])) ** 2 + (Y - np.float32(centre[1])) ** 2, radius)


def rod(end: np.ndarray, width: float) -> np.ndarray:
    """From the origin, with round ends: [SIZE, SIZE]."""
    x, y = np.float32(end)
    share = ((X * x + Y * y) / (x * x + y * y)).clip(0, 1)
    return _cover((X - share * x) ** 2 + (Y - share * y) ** 2, width / 2)


def _cover(square: np.ndarray, radius: float) -> np.ndarray:
    """Of squared distances."""
    return (np.float32(radius / PIXEL + 0.5) - np.sqrt(square) * np.float32(1 / PIXEL)).clip(0, 1)


def enlarge(picture: np.ndarray) -> np.ndarray:
    """[SIZE, SIZE] or [SIZE, SIZE, 3] in [0, 1] -> [ZOOM SIZE, ZOOM SIZE, 3] uint8, for people."""
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, 2)
    return (255 * picture + 0.5).astype(np.uint8).repeat(ZOOM, 0).repeat(ZOOM, 1)


class PixelEnv(gym.Env):
    """A task says how it starts, moves and looks. r_t = R(s_t), the reward of the state in which a_t is
    chosen, as in the lecture's p(r_t | s_t). The start is at rest, so that nothing is hidden."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012, as Gymnasium has it
    observation_space = Box(0, 1, (FRAMES * SIZE * SIZE,), np.float32)

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def start(self) -> None:
        """Draw the first state with self.np_random."""
        raise NotImplementedError

    def advance(self, action: np.ndarray) -> float:
        """The next state; the reward."""
        raise NotImplementedError

    def picture(self) -> np.ndarray:
        """[SIZE, SIZE] float32 in [0, 1] of the state."""
        raise NotImplementedError

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start()
        self.frames = [self.picture()] * FRAMES
        return self._obs(), {}

    def step(self, action):
        reward = self.advance(np.asarray(action, np.float64))
        self.frames = [*self.frames[1:], self.picture()]
        return self._obs(), float(reward), False, False, {}

    def _obs(self) -> np.ndarray:
        return np.concatenate(self.frames, axis=None)

    def render(self) -> np.ndarray | None:
        """[ZOOM SIZE, ZOOM SIZE, 3] uint8"""
        return enlarge(self.frames[-1]) if self.render_mode == "rgb_array" else None


class PointMassPixels(PixelEnv):
    """A disc with inertia is pushed to a place that the picture does not show: only the reward tells.

    v' = DRAG v + FORCE a, x' = x + v'; walls stop it. Reward: minus the distance from the goal.
    """

    DRAG, FORCE, RADIUS, GOAL = 0.7, 0.08, 0.2, (0.5, 0.4)
    action_space = Box(-1, 1, (2,), np.float32)

    def start(self):
        self.x, self.v = self.np_random.uniform(-0.8, 0.8, 2), np.zeros(2)

    def advance(self, action):
        reward = -np.linalg.norm(self.x - self.GOAL)
        v = self.DRAG * self.v + self.FORCE * np.clip(action, -1, 1)
        x = np.clip(self.x + v, -0.8, 0.8)
        self.x, self.v = x, x - self.x
        return reward

    def picture(self):
        return disc(self.x, self.RADIUS)


class PendulumPixels(PixelEnv):
    """Pendulum-v1 (the torque is too weak to lift it at once), each action held for two of its steps, from
    rest at any angle. Reward: the sum over both."""

    REPEAT, DT, LENGTH = 2, 0.05, 0.75  # s of each step of Pendulum-v1; length in the picture
    TORQUE = 2.0  # of a full action
    action_space = Box(-1, 1, (1,), np.float32)

    def start(self):
        self.angle, self.w = self.np_random.uniform(-np.pi, np.pi), 0.0

    def advance(self, action):
        torque, reward = self.TORQUE * float(np.clip(action[0], -1, 1)), 0.0
        for _ in range(self.REPEAT):
            off = (self.angle + np.pi) % (2 * np.pi) - np.pi  # from upright
            reward -= off**2 + 0.1 * self.w**2 + 0.001 * torque**2
            self.w = np.clip(self.w + (15 * np.sin(self.angle) + 3 * torque) * self.DT, -8, 8)
            self.angle += self.w * self.DT
        return reward

    def picture(self):
        tip = self.LENGTH * np.array([-np.sin(self.angle), np.cos(self.angle)])
        return rod(tip, 0.25)
