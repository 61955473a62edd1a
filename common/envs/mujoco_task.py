"""MuJoCo tasks of Gymnasium in the form of common.envs.control_tasks: what a planner with the true dynamics
has to know.

minus the return = sum_{t<T} c(x_t, u_t) + c_T(x_T),   x = [qpos, qvel], x_{t+1} = step(x_t, u_t)

The reward for moving forward is the way from first to last, so it is all in c_T; an episode that has ended
stays where it is and earns no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from common.envs.mujoco_dynamics import MujocoDynamics
from common.types import require


class Reward(NamedTuple):
    """forward * dx/dt + alive * healthy - control * |a|^2; not healthy is the end."""

    forward: float
    control: float
    alive: float
    healthy: Callable[[Tensor, Tensor], Tensor]  # of qpos [..., nq] and qvel [..., nv]


def _hopper_is_healthy(q: Tensor, v: Tensor) -> Tensor:
    bounded = (q[..., 2:].abs() < 100).all(-1) & (v.abs() < 100).all(-1)
    return bounded & (q[..., 1] > 0.7) & (q[..., 2].abs() < 0.2)


def _walker_is_healthy(q: Tensor, v: Tensor) -> Tensor:
    return (q[..., 1] > 0.8) & (q[..., 1] < 2) & (q[..., 2].abs() < 1)


def _always(q: Tensor, v: Tensor) -> Tensor:
    return torch.ones_like(q[..., 0], dtype=torch.bool)


REWARDS = {  # of Gymnasium 1.4, those that are functions of qpos, qvel and the action
    "InvertedPendulum-v5": Reward(0, 0, 1, lambda q, v: q[..., 1].abs() <= 0.2),
    "HalfCheetah-v5": Reward(1, 0.1, 0, _always),
    "Swimmer-v5": Reward(1, 1e-4, 0, _always),
    "Hopper-v5": Reward(1, 1e-3, 1, _hopper_is_healthy),
    "Walker2d-v5": Reward(1, 1e-3, 1, _walker_is_healthy),
}


class MujocoTask:
    """Controls in [-1, 1], as common.envs.registry has them. float64."""

    u_low, u_high, rest = -1.0, 1.0, 0.0

    def __init__(self, env_id: str):
        require(env_id in REWARDS, f"env_id must be one of {', '.join(REWARDS)}, got {env_id!r}")
        self.reward, self.dynamics = REWARDS[env_id], MujocoDynamics(env_id)
        self.n, self.m, self.dt = self.dynamics.n, self.dynamics.m, self.dynamics.dt
        self.horizon = gym.spec(env_id).max_episode_steps
        low, high = self.dynamics.u_low, self.dynamics.u_high
        self.middle, self.half = (high + low) / 2, (high - low) / 2

    def healthy(self, x: Tensor) -> Tensor:
        """Does the episode go on? x [..., n] -> [...] bool"""
        return self.reward.healthy(*x.tensor_split(2, -1))

    def step(self, x: Tensor, u: Tensor) -> Tensor:
        """x_{t+1} [..., n]"""
        after = self.dynamics(x, self.middle + self.half * u)
        return torch.where(self.healthy(x)[..., None], after, x)

    def cost(self, x: Tensor, u: Tensor) -> Tensor:
        """c [...]"""
        force = self.middle + self.half * u
        return self.healthy(x) * (self.reward.control * force.square().sum(-1) - self.reward.alive)

    def final_cost(self, x: Tensor) -> Tensor:
        """c_T [...]. Health pays at x_1, ..., x_T, while the sum over c has counted x_0, ..., x_{T-1}."""
        return self.reward.alive * (~self.healthy(x)) - self.reward.forward * x[..., 0] / self.dt

    def state(self, obs: np.ndarray) -> Tensor:
        """Observations [N, D] -> x [N, n]. The place, which is not observed, counts from here.

        Hopper and Walker2d show no speed above 10; the constraint solver's own memory is never shown.
        """
        hidden = self.n - obs.shape[1]
        return torch.from_numpy(np.pad(obs.astype(np.float64), ((0, 0), (hidden, 0))))

    def action(self, u: Tensor) -> np.ndarray:
        return u.numpy()
