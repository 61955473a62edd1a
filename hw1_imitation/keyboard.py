"""A human as the expert: a window shows what the car sees, and the arrow keys steer while it drives.

a = 0.5 while the left arrow is down, -0.5 the right one, twice that with shift, else 0

At DAgger's question the policy drives and the human tells what should have been done: the same keys.
"""

from __future__ import annotations

import numpy as np
import pygame

from common.envs.lane_keeping import ANGLE, DISTANCE
from common.types import require

ENV_IDS = ("course/LaneKeeping-v0",)
SCALE = 24  # pixels of the window per pixel of the camera
RATE = 10  # steps per second
STEERING = 0.5  # of a key alone
NO_WINDOW = ("dummy", "offscreen")


def frame(obs: np.ndarray) -> np.ndarray:
    """[192] -> [192, 576, 3] uint8, far above near, left on the left"""
    seen = obs.reshape(DISTANCE.size, ANGLE.size)[::-1, ::-1, None]
    return np.kron((255 * seen).astype(np.uint8), np.ones((SCALE, SCALE, 3), np.uint8))


def label(left: bool, right: bool, shift: bool) -> float:
    return STEERING * (2 if shift else 1) * (left - right)


class Keyboard:
    def __init__(self, env_id: str):
        require(env_id in ENV_IDS, f"env_id must be {', '.join(ENV_IDS)} for a human expert, got {env_id!r}")
        try:
            pygame.display.init()
        except pygame.error as error:
            require(False, f"expert keyboard needs a display: {error}")
        driver = pygame.display.get_driver()
        require(driver not in NO_WINDOW, f"expert keyboard needs a display, the video driver is {driver!r}")
        self.window = pygame.display.set_mode((ANGLE.size * SCALE, DISTANCE.size * SCALE))
        pygame.display.set_caption("steer with the arrow keys, shift for more; close to stop")
        self.clock = pygame.time.Clock()

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """[1, 192] -> [1, 1]"""
        require(len(obs) == 1, f"a human can drive 1 car at a time, got {len(obs)}")
        pygame.surfarray.blit_array(self.window, np.swapaxes(frame(obs[0]), 0, 1))
        pygame.display.flip()
        self.clock.tick(RATE)
        closed = any(event.type == pygame.QUIT for event in pygame.event.get())
        require(
            not closed,
            "the window was closed before every label was given; --resume goes on from the last whole round",
        )
        down, shift = pygame.key.get_pressed(), pygame.key.get_mods() & pygame.KMOD_SHIFT
        return np.array([[label(down[pygame.K_LEFT], down[pygame.K_RIGHT], bool(shift))]], np.float32)
