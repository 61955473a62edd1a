"""Replay of transitions, drawn uniformly with replacement; of n steps each where n_step > 1.

The memory is allocated once, one row per transition with its fields beside each other: a batch is gathered
in one go, its fields are views of it. Only `terminated` is stored: a time limit is no property of a
transition, and the value of what follows it counts as ever.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
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
    index: Tensor | None = None  # [B] int64 of the CPU, rows of the memory where priorities are kept


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


def row_type(spec: EnvSpec, n_step: int = 1) -> np.dtype:
    """One transition, its fields in the order of Batch."""
    fields = [
        ("obs", np.float32, (spec.obs_dim,)),
        ("action", np.int64) if spec.discrete else ("action", np.float32, (spec.action_dim,)),
        ("reward", np.float32),
        ("next_obs", np.float32, (spec.obs_dim,)),
        ("terminated", np.bool_),
    ]
    return np.dtype(fields + [("steps", np.float32)] * (n_step > 1), align=True)


class Replay:
    """A ring of the last `capacity` transitions, in the memory of the CPU; what is drawn is on `device`."""

    def __init__(
        self, capacity: int, spec: EnvSpec, device: torch.device, n_step: int = 1, gamma: float = 1.0
    ):
        require(0 < capacity < 2**31, f"capacity must lie in [1, 2^31), got {capacity}")
        self.capacity, self.added, self.spec, self.device = capacity, 0, spec, device
        self.n_step = NStep(n_step, gamma)
        # Of numpy, which asks for huge pages: to look up where a page lies would double the time of a draw.
        self._rows = np.zeros(capacity, row_type(spec, n_step))
        self._index = torch.empty(0, dtype=torch.int64)  # of the last draw

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    @property
    def memory(self) -> Batch:
        """All rows, filled or not."""
        return self._batch(self._rows)

    def everything(self) -> Batch:
        """What is remembered, the oldest first until the ring is full."""
        return Batch(*(part[: len(self)] for part in self.memory[:5]))

    def add_rollout(self, rollout: Rollout, last: bool = False) -> None:
        """The next T steps of the stream; `last` before its environments are reset."""
        self.add(transitions(rollout) if self.n_step.n == 1 else self.n_step(rollout, last))

    def add(self, batch: Batch) -> None:
        """The oldest make room."""
        rows = np.zeros(len(batch.reward), self._rows.dtype)
        for name, value in zip(rows.dtype.names, batch, strict=False):
            shape = rows[name].shape
            require(value.shape == shape, f"{name} must be {list(shape)}, got {list(value.shape)}")
            rows[name] = value.cpu()
        skipped = max(len(rows) - self.capacity, 0)  # which of two writes to one row wins is left open
        self.added += skipped
        self._write(np.arange(self.added, self.added + len(rows) - skipped) % self.capacity, rows[skipped:])

    def _write(self, index: np.ndarray, rows: np.ndarray) -> None:
        self._rows[index] = rows
        self.added += len(index)

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """`size` of them, each as likely as any other."""
        require(len(self) > 0, "replay must hold a transition before it is sampled, it is empty")
        if len(self._index) != size:
            self._index = torch.empty(size, dtype=torch.int64)
        index = self._index.random_(len(self), generator=generator)
        return self._batch(self._take(index.numpy()))

    def _take(self, index: np.ndarray) -> np.ndarray:
        """A copy of the rows. They exist: not to look for those that do not is twice as fast."""
        return self._rows.take(index, mode="clip")

    def _batch(self, rows: np.ndarray, **more: Tensor) -> Batch:
        fields = [torch.from_numpy(rows[name]) for name in rows.dtype.names]
        if self.device.type != "cpu":
            fields = [x.to(self.device) for x in fields]
        return Batch(*fields, **more)

    def state_dict(self) -> dict:
        """What is filled, as it lies there. Steps that wait for their successors are not: save after the
        `last` of a stream."""
        return {"rows": torch.from_numpy(self._rows[: len(self)].view(np.uint8)), "added": self.added}

    def load_state_dict(self, state: dict) -> None:
        rows, held = state["rows"].cpu().numpy().view(self._rows.dtype), min(state["added"], self.capacity)
        require(
            len(rows) == held, f"replay of capacity {self.capacity} cannot hold a saved one of {len(rows)}"
        )
        self.added = state["added"]
        self._rows[:held] = rows
