"""Replay of transitions, drawn uniformly with replacement; of n steps each where n_step > 1.

The memory is allocated once: one row of numbers per transition, so that a batch is gathered at once. Only
`terminated` is stored: a time limit is no property of a transition, and the value of what follows it counts
as ever.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from common.types import EnvSpec, Rollout, require


class Batch(NamedTuple):
    """B transitions."""

    obs: Tensor  # [B, D] float32
    action: Tensor  # [B] int64, or [B, K] float32
    reward: Tensor  # [B] float32, of several steps the discounted sum
    next_obs: Tensor  # [B, D] float32
    terminated: Tensor  # [B] bool: next_obs is absorbing, its value is zero
    steps: Tensor | int = 1  # [B] float32, from obs to next_obs
    weight: Tensor | float = 1.0  # [B] float32, of the error: how much too rarely it is drawn
    index: Tensor | None = None  # [B] int64, rows of the memory where priorities are kept


def transitions(rollout: Rollout) -> Batch:
    """All of a rollout, B = T N; the later a step, the later it comes."""
    return Batch(*(getattr(rollout, name).flatten(0, 1) for name in Batch._fields[:5]))


class NStep:
    """Joins the steps of a stream to transitions of n:

    (s_t, a_t, sum_{i<k} gamma^i r_{t+i}, s_{t+k}),  k = n, or fewer where the episode ends before.

    Cut by a time limit, the value of s_{t+k} counts as after a whole transition, by gamma^k.
    """

    def __init__(self, n: int, gamma: float):
        require(n >= 1, f"n_step must be at least 1, got {n}")
        self.n, self.gamma = n, gamma
        self.pending: Rollout | None = None  # steps [n - 1, N] whose n-th successor is still to come

    def __call__(self, rollout: Rollout, last: bool = False) -> Batch:
        """The transitions complete with these steps [T, N]; all, if the stream goes on elsewhere."""
        if self.pending is not None:
            pairs = zip(self.pending, rollout, strict=True)
            rollout = Rollout(*(torch.cat(pair) for pair in pairs))
        length = len(rollout.reward)
        count = length if last else max(length - self.n + 1, 0)
        self.pending = None if last else Rollout(*(x[count:] for x in rollout))
        reward, next_obs = torch.zeros_like(rollout.reward[:count]), rollout.next_obs[:count].clone()
        terminated, goes_on = rollout.terminated[:count].clone(), torch.ones_like(reward, dtype=torch.bool)
        steps = torch.zeros_like(reward)
        for i in range(min(self.n, length)):
            row = slice(i, min(i + count, length))
            now = slice(0, row.stop - row.start)  # the others have reached the end of the stream
            mask = goes_on[now]
            reward[now] += mask * self.gamma**i * rollout.reward[row]
            steps[now] += mask
            terminated[now] |= mask & rollout.terminated[row]
            torch.where(mask[..., None], rollout.next_obs[row], next_obs[now], out=next_obs[now])
            goes_on[now] &= ~rollout.ended[row]
        fields = (rollout.obs[:count], rollout.action[:count], reward, next_obs, terminated, steps)
        return Batch(*(x.flatten(0, 1) for x in fields))


class Replay:
    """A ring of the last `capacity` transitions."""

    def __init__(
        self, capacity: int, spec: EnvSpec, device: torch.device, n_step: int = 1, gamma: float = 1.0
    ):
        require(0 < capacity < 2**31, f"capacity must lie in [1, 2^31), got {capacity}")
        self.capacity, self.added, self.spec = capacity, 0, spec
        self.n_step = NStep(n_step, gamma)
        self._widths = [spec.obs_dim, 1 if spec.discrete else spec.action_dim, spec.obs_dim, 1, 1]
        self._widths += [1] if n_step > 1 else []
        self._rows = torch.zeros(capacity, sum(self._widths), device=device)

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    @property
    def memory(self) -> Batch:
        """All rows, filled or not."""
        return self._unpack(self._rows)

    def add_rollout(self, rollout: Rollout, last: bool = False) -> None:
        """The next T steps of the stream; `last` before its environments are reset."""
        self.add(transitions(rollout) if self.n_step.n == 1 else self.n_step(rollout, last))

    def add(self, batch: Batch) -> None:
        """The oldest make room."""
        rows = self._pack(batch)
        skipped = max(len(rows) - self.capacity, 0)  # which of two writes to one row wins is left open
        self.added += skipped
        self._write(
            torch.arange(self.added, self.added + len(rows) - skipped) % self.capacity, rows[skipped:]
        )

    def _write(self, index: Tensor, rows: Tensor) -> None:
        self._rows[index.to(rows.device)] = rows
        self.added += len(index)

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """`size` of them, each as likely as any other."""
        require(len(self) > 0, "replay must hold a transition before it is sampled, it is empty")
        index = torch.randint(len(self), (size,), generator=generator, device=generator.device)
        return self._unpack(self._rows.index_select(0, index))

    def _pack(self, batch: Batch) -> Tensor:
        """[B, width]. A float32 holds actions up to 2^24 exactly."""
        parts = (batch.obs, batch.action, batch.next_obs, batch.reward, batch.terminated, batch.steps)
        columns = [x if x.ndim == 2 else x[:, None] for x, _ in zip(parts, self._widths, strict=False)]
        return torch.cat(columns, 1).to(self._rows)

    def _unpack(self, rows: Tensor) -> Batch:
        obs, action, next_obs, *columns = rows.split(self._widths, 1)
        reward, terminated, *steps = (column.squeeze(1) for column in columns)
        action = action.squeeze(1).long() if self.spec.discrete else action
        return Batch(obs, action, reward, next_obs, terminated > 0, *steps)

    def state_dict(self) -> dict:
        """What is filled. Steps that wait for their successors are not: save after the `last` of a stream."""
        return {"rows": self._rows[: len(self)].clone(), "added": self.added}

    def load_state_dict(self, state: dict) -> None:
        saved, held = len(state["rows"]), min(state["added"], self.capacity)
        require(saved == held, f"replay of capacity {self.capacity} cannot hold a saved one of {saved}")
        self.added = state["added"]
        self._rows[:saved] = state["rows"]
