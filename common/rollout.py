"""T steps of N environments at a time, with the true successor of every step."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from common.envs.registry import require_finite, step_envs
from common.seeding import child_seed, generator, seed_everything
from common.types import Metrics, Rollout, begin


class Collector:
    """Keeps N environments going from one rollout to the next. Call `reset` first."""

    def __init__(self, envs: gym.vector.VectorEnv, device: torch.device):
        mode = envs.metadata["autoreset_mode"]
        if mode is not AutoresetMode.SAME_STEP:  # NEXT_STEP slips one false transition into each episode
            raise ValueError(f"envs must have AutoresetMode.SAME_STEP, got {mode}")
        self.envs, self.device = envs, device

    def reset(self, seed: int, step: int) -> None:
        """New episodes everywhere; `step` environment steps lie behind."""
        self.obs, _ = self.envs.reset(seed=seed)
        self.step = step
        self._first = np.ones(self.envs.num_envs, bool)  # of an episode, what self.obs shows
        self._return = np.zeros(self.envs.num_envs)  # of the running episodes, undiscounted

    def collect(
        self, explore: Callable[[np.ndarray, int], np.ndarray], length: int
    ) -> tuple[Rollout, Metrics]:
        """T = `length` steps, and the mean return of the episodes that ended in them."""
        rows, finished = [], []
        for _ in range(length):
            begin(explore, self._first)
            obs, action = self.obs, explore(self.obs, self.step)
            self.obs, reward, terminated, truncated, info = step_envs(self.envs, action)
            self.step += self.envs.num_envs
            self._return += reward
            next_obs, ended = self.obs, terminated | truncated
            self._first = ended
            if ended.any():
                next_obs = self.obs.copy()
                next_obs[ended] = np.stack(list(info["final_obs"][ended]))
                require_finite("observation", next_obs)
                finished += self._return[ended].tolist()
                self._return[ended] = 0.0
            rows.append((obs, action, reward, next_obs, terminated, truncated))
        rollout = Rollout(*(self._tensor(np.stack(column)) for column in zip(*rows, strict=True)))
        return rollout, {"rollout/return_mean": float(np.mean(finished))} if finished else {}

    def _tensor(self, x: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(x)
        return tensor.to(self.device, torch.float32 if tensor.is_floating_point() else None)


def begin_stretch(collector: Collector, seed: int, step: int) -> torch.Generator:
    """Resumed or not, what follows a checkpoint starts from here; the generator of its draws."""
    seed_everything(child_seed(seed, "global", step))
    collector.reset(child_seed(seed, "env", step), step)
    return generator(seed, "replay", step)
