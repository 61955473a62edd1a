"""Prioritised replay (Schaul et al. 2016): what surprised most is drawn most.

P(i) = p_i / sum_j p_j,   p_i = (|delta_i| + 0.01)^alpha
w_i  = (N P(i))^-beta

Weighting each error by w_i undoes the preference: at beta = 1 the weighted mean is the mean over the memory,
without bias. (The paper divides by the largest w, which is a learning rate and at beta = 1 a bias.)
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from common.replay import Batch, Replay
from common.schedules import Linear
from common.types import EnvSpec, require

FAN = 16  # nodes added up to one of the level above
TOP = 4096  # nodes at most of the highest level
FLOOR = 0.01  # added to each error, so that none is never drawn again


class SumTree:
    """Numbers p_0 ... p_{n-1} >= 0, and level upon level the sums of each FAN of them."""

    def __init__(self, n: int):
        self.levels, self.total = [], 0.0
        while n > TOP:
            n = -(-n // FAN)
            self.levels.append(np.zeros((n, FAN)))
        self.levels.append(np.zeros(n))
        self.leaves = self.levels[0].reshape(-1)

    def write(self, index: np.ndarray, value: np.ndarray | float) -> None:
        """p[index] = value. Sums are added anew, not corrected: no rounding error grows."""
        self.leaves[index] = value
        for below, level in pairwise(self.levels):
            index = index // FAN
            level.reshape(-1)[index] = below.take(index, 0, mode="clip").sum(1)
        self.total = float(self.levels[-1].sum())

    def find(self, u: np.ndarray) -> np.ndarray:
        """The i with p_0 + ... + p_{i-1} <= u < p_0 + ... + p_i, for each u [B] in [0, total)."""
        *below, top = self.levels
        before = top.cumsum() - top
        node = before.searchsorted(u, "right") - 1
        u = u - before[node]
        while below:
            p = below.pop().take(node, 0, mode="clip")  # [B, FAN]
            after = torch.from_numpy(p).cumsum(1).numpy()  # twice as fast as numpy's
            child = (after > u[:, None]).argmax(1)
            if below:
                u = u - (after - p)[np.arange(len(u)), child]
            node = FAN * node + child
        return node


class PrioritizedReplay(Replay):
    """As Replay, but drawn by P(i); the trainer hands the errors back. `beta` runs with what was added."""

    def __init__(
        self,
        capacity: int,
        spec: EnvSpec,
        device: torch.device,
        alpha: float,
        beta: Linear,
        n_step: int = 1,
        gamma: float = 1.0,
    ):
        super().__init__(capacity, spec, device, n_step, gamma)
        require(alpha > 0, f"alpha must be positive, got {alpha}")
        self.alpha, self.beta, self.tree = alpha, beta, SumTree(capacity)
        self.highest = 1.0  # p so far; a new transition gets it, so that each is soon drawn once

    def _write(self, index: np.ndarray, rows: np.ndarray) -> None:
        super()._write(index, rows)
        self.tree.write(index, self.highest)

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """One of each `size`-th part of the probability, so that they differ more than by chance."""
        require(len(self) > 0, "replay must hold a transition before it is sampled, it is empty")
        noise = torch.rand(size, generator=generator, dtype=torch.float64).numpy()
        u = (np.arange(size) + noise) * (self.tree.total / size)
        index = np.minimum(self.tree.find(u), len(self) - 1)  # rounding may lead one past the last
        weight = (self.tree.leaves.take(index) * (len(self) / self.tree.total)) ** -self.beta(self.added)
        weight = torch.from_numpy(weight.astype(np.float32)).to(self.device)
        return self._batch(self._take(index), weight=weight, index=torch.from_numpy(index))

    def reprioritize(self, index: Tensor, error: Tensor) -> None:
        """`error` [B]: delta of the transitions drawn with this `index` [B]."""
        priority = (error.abs().double().cpu().numpy() + FLOOR) ** self.alpha
        self.tree.write(index.cpu().numpy(), priority)
        self.highest = max(self.highest, float(priority.max()))

    def state_dict(self) -> dict:
        leaves = torch.from_numpy(self.tree.leaves[: len(self)].copy())
        return super().state_dict() | {"priority": leaves, "highest": self.highest}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.tree.write(np.arange(len(self)), state["priority"].numpy())
        self.highest = state["highest"]
