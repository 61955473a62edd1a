"""Demonstrations of how to come back, which an expert that never strays does not give.

noise injection (DART, Laskey et al. 2017): play a + N(0, sigma^2), record (o, a). The expert's hand is shaken
and what it does against that is learned.
three cameras (Bojarski et al. 2016): record (o, a), (o left, a - c), (o right, a + c), what a car that stood
aside would see and what it would add to come back.

Both widen the data around the expert's way without asking it about the pupil's, as DAgger does. Here sigma is
chosen; DART fits it to the pupil's error.
"""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch

from common.types import require
from hw1_imitation.demonstrations import Act, Demonstrations, collect


class Shaken:
    """The expert's actions [N, K] with noise of deviation sigma."""

    def __init__(self, sigma: float, generator: np.random.Generator):
        require(0 <= sigma < np.inf, f"sigma must be finite and at least 0, got {sigma}")
        self.sigma, self.generator = sigma, generator

    def __call__(self, obs: np.ndarray, label: np.ndarray) -> np.ndarray:
        return label + self.sigma * self.generator.standard_normal(label.shape)


def three_cameras(
    expert: Act,
    envs: gym.vector.VectorEnv,
    steps: int,
    shift: float,
    steer_back: Callable[[float], float],
    seed: int,
) -> Demonstrations:
    """Three trajectories of each of the expert's: as it saw it, and from `shift` m to the left and the right.

    The environment must have a method camera(shift) that shows the present moment from there.
    """
    require(envs.num_envs == 1, f"envs must be one environment, got {envs.num_envs}")
    require(0 < shift < np.inf, f"shift must be positive, in m, got {shift}")
    aside: dict[float, list[np.ndarray]] = {shift: [], -shift: []}

    def watched(obs: np.ndarray) -> np.ndarray:
        for where, pictures in aside.items():
            pictures.append(envs.call("camera", where)[0])
        return expert(obs)

    data = collect(watched, envs, steps, seed)
    views = [
        Demonstrations(
            torch.from_numpy(np.stack(pictures)), (data.action + steer_back(where)).clamp(-1, 1), data.length
        )
        for where, pictures in aside.items()
    ]
    return data.joined(views[0]).joined(views[1])
