"""Replay of single transitions, drawn uniformly with replacement.

The memory is allocated once. Only `terminated` is stored: a time limit is no property of a transition, and
the value of what follows it counts as ever.
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
    reward: Tensor  # [B] float32
    next_obs: Tensor  # [B, D] float32
    terminated: Tensor  # [B] bool: next_obs is absorbing, its value is zero


def transitions(rollout: Rollout) -> Batch:
    """All of a rollout, B = T N; the later a step, the later it comes."""
    return Batch(*(getattr(rollout, name).flatten(0, 1) for name in Batch._fields))


class Replay:
    """A ring of the last `capacity` transitions."""

    def __init__(self, capacity: int, spec: EnvSpec, device: torch.device):
        require(0 < capacity < 2**31, f"capacity must lie in [1, 2^31), got {capacity}")
        action = ((), torch.int64) if spec.discrete else ((spec.action_dim,), torch.float32)
        obs = ((spec.obs_dim,), torch.float32)
        fields = (obs, action, ((), torch.float32), obs, ((), torch.bool))
        self.memory = Batch(*(torch.zeros(capacity, *n, dtype=dtype, device=device) for n, dtype in fields))
        self.capacity, self.added = capacity, 0

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, batch: Batch) -> None:
        """The oldest make room."""
        skipped = max(
            len(batch.reward) - self.capacity, 0
        )  # which of two writes to one row wins is left open
        self.added += skipped
        index = torch.arange(self.added, self.added + len(batch.reward) - skipped) % self.capacity
        for memory, new in zip(self.memory, batch, strict=True):
            memory[index.to(memory.device)] = new[skipped:]
        self.added += len(index)

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """`size` of them, each as likely as any other."""
        require(len(self) > 0, "replay must hold a transition before it is sampled, it is empty")
        index = torch.randint(len(self), (size,), generator=generator, device=generator.device)
        return Batch(*(memory[index] for memory in self.memory))

    def state_dict(self) -> dict:
        """What is filled, in tensors of their own."""
        rows = {name: x[: len(self)].clone() for name, x in self.memory._asdict().items()}
        return rows | {"added": self.added}

    def load_state_dict(self, state: dict) -> None:
        saved, held = len(state["reward"]), min(state["added"], self.capacity)
        require(saved == held, f"replay of capacity {self.capacity} cannot hold a saved one of {saved}")
        self.added = state["added"]
        for name, memory in self.memory._asdict().items():
            memory[:saved] = state[name]
