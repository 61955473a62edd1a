"""Stretches of consecutive steps, cut from all transitions that the loop has collected.

The loop hands over its transitions the oldest first, N environments side by side: row i is followed by row
i + N, unless an episode ended between the two. Then what row i led to is not what row i + N began with.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from common.replay import Batch
from common.types import require


class Sequences(NamedTuple):
    """T steps of B episodes."""

    obs: Tensor  # [T+1, B, D]
    action: Tensor  # [T, B, K]
    reward: Tensor  # [T, B], of obs_t and action_t


def starts(batch: Batch, num_envs: int, length: int) -> Tensor:
    """Rows from which `length` steps of one episode follow: [M] int64."""
    N, rows = num_envs, len(batch.reward)
    require(length >= 1, f"length must be at least 1, got {length}")
    count = rows - (length - 1) * N
    require(count >= 1, f"batch must hold at least {length} steps of {N} environments, got {rows} rows")
    follows = (batch.next_obs[:-N] == batch.obs[N:]).all(1) & ~batch.terminated[:-N]  # [rows - N]
    ok = torch.ones(count, dtype=torch.bool)
    for k in range(length - 1):
        ok &= follows[k * N : k * N + count]
    found = ok.nonzero().squeeze(1)
    require(len(found) > 0, f"batch must hold an episode of at least {length} steps")
    return found


def cut(batch: Batch, start: Tensor, num_envs: int, length: int) -> Sequences:
    """The sequences that begin at the rows start [B]."""
    index = start + num_envs * torch.arange(length)[:, None]  # [T, B]
    obs = torch.cat([batch.obs[index], batch.next_obs[index[-1:]]])
    return Sequences(obs, batch.action[index], batch.reward[index])
