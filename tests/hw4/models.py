"""Models and tasks whose returns are known."""

from __future__ import annotations

import torch

from common.envs.model_tasks import ModelTask, never

A = torch.tensor([0.9, 1.0, 1.05], dtype=torch.float64)  # s' = a_e s, one factor per member


def last_state(obs, action, next_obs):
    return next_obs[..., 0]


def line(limit: float = float("inf")) -> ModelTask:
    """Reward: the state reached; terminated beyond the limit."""
    return ModelTask(last_state, lambda next_obs: next_obs[..., 0] > limit)


LINE = ModelTask(last_state, never)


def members(state, action):
    """s' = a_e s + u of three members: [3, B, D], [B, K] -> [3, B, D]."""
    return A.to(state)[:, None, None] * state + action
