"""The control tasks as Gymnasium environments, with a picture."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box

from common.envs.control_tasks import TASKS
from common.envs.drawing import draw


class ControlEnv(gym.Env):
    """Observation = [x; t/T], action = u, reward = -cost.

    The final cost comes with the last step, and nothing after it: the end of the horizon is a termination,
    no time limit, and so the time belongs to what is observed.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012, as Gymnasium has it

    def __init__(self, env_id: str, noise: float = 0.0, render_mode: str | None = None):
        self.task, self.noise, self.render_mode = TASKS[env_id], noise, render_mode
        self.spread = self.task.spread
        self.metadata = self.metadata | {"render_fps": round(1 / self.task.dt)}
        self.observation_space = Box(-np.inf, np.inf, (self.task.n + 1,), np.float64)
        self.action_space = Box(self.task.u_low, self.task.u_high, (self.task.m,), np.float32)

    def reset(self, *, seed=None, options=None):
        """`spread` is the standard deviation of every entry of x_0."""
        super().reset(seed=seed)
        self.t = 0
        self.x = np.array(self.task.start) + self.spread * self.np_random.standard_normal(self.task.n)
        return self._obs(), {}

    def step(self, action):
        """`noise` is the standard deviation of what is added to every entry of x_{t+1}."""
        x, u = torch.from_numpy(self.x), torch.as_tensor(action, dtype=torch.float64)
        u = u.clamp(self.task.u_low, self.task.u_high)
        cost = self.task.cost(x, u)
        self.x = self.task.step(x, u).numpy() + self.noise * self.np_random.standard_normal(self.task.n)
        self.t += 1
        terminated = self.t >= self.task.horizon
        if terminated:
            cost = cost + self.task.final_cost(torch.from_numpy(self.x))
        return self._obs(), -float(cost), terminated, False, {}

    def _obs(self) -> np.ndarray:
        return np.append(self.x, self.t / self.task.horizon)

    def render(self) -> np.ndarray | None:
        """[400, 600, 3] uint8"""
        return draw(self.task.system, self.x, self.task.goal) if self.render_mode == "rgb_array" else None
