"""Return of a policy over whole episodes."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np

from common.envs.registry import step_envs
from common.types import Metrics, begin

Act = Callable[[np.ndarray], np.ndarray]  # [N, D] -> [N] or [N, K]


def evaluate(act: Act, envs: gym.vector.VectorEnv, seed: int) -> Metrics:
    """Undiscounted return of the first episode of each environment, started from `seed`.

    Beside it the means of what an environment says of an episode in the last info, under "episode_metrics".
    """
    total, length, said = first_episodes(act, envs, seed)
    return scores(total, length) | {key: float(value.mean()) for key, value in said.items()}


def scores(total: np.ndarray, length: np.ndarray) -> Metrics:
    """What an evaluation row holds, of the return [N] and the length [N] of episodes."""
    return {
        "return_mean": float(total.mean()),
        "return_std": float(total.std()),
        "return_min": float(total.min()),
        "return_max": float(total.max()),
        "length_mean": float(length.mean()),
        "episodes": len(total),
    }


def first_episodes(
    act: Act, envs: gym.vector.VectorEnv, seed: int
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Undiscounted return [N], length [N] in steps and last words [N] of each environment's first episode.

    One episode each: of all that end within some time, the short ones would be over-counted.
    """
    obs, _ = envs.reset(seed=seed)
    total, length, said = np.zeros(envs.num_envs), np.zeros(envs.num_envs), {}
    running = first = np.ones(envs.num_envs, bool)
    while running.any():
        begin(act, first)
        obs, reward, terminated, truncated, info = step_envs(envs, act(obs))
        total += reward * running
        length += running
        first = terminated | truncated
        for key, value in info.get("final_info", {}).get("episode_metrics", {}).items():
            if not key.startswith("_"):  # Gymnasium's marks of who said it
                said.setdefault(key, np.zeros(envs.num_envs))[running & first] = value[running & first]
        running = running & ~first
    return total, length, said
