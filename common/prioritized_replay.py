"""Prioritised replay (Schaul et al. 2016): what surprised most is drawn most.

P(i) = p_i / sum_j p_j,   p_i = (|delta_i| + 0.01)^alpha
w_i  = (N P(i))^-beta

Weighting each error by w_i undoes the preference: at beta = 1 the weighted mean is the mean over the memory,
without bias. (The paper divides by the largest w, which is a learning rate and at beta = 1 a bias.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from common.replay import Batch, Replay
from common.schedules import Linear
from common.types import EnvSpec, require

HEAD = 1024  # nodes of the level at which the search begins
FLOOR = 0.01  # added to each error, so that none is never drawn again


class SumTree:
    """Numbers p_0 ... p_{n-1} >= 0 and the sums over their binary tree: children of node k are 2k, 2k + 1."""

    def __init__(self, n: int):
        self.size = 1 << (n - 1).bit_length()
        self.nodes = np.zeros(2 * self.size)  # the root is node 1, leaves begin at `size`
        self.leaves = self.nodes[self.size :]

    @property
    def total(self) -> float:
        return self.nodes[1]

    def write(self, index: np.ndarray, value: np.ndarray | float) -> None:
        """p[index] = value. Sums are added anew, not corrected: no rounding error grows."""
        self.leaves[index] = value
        node = index + self.size
        while node[0] > 1:
            node = node >> 1
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1]

    def find(self, u: np.ndarray) -> np.ndarray:
        """The i with p_0 + ... + p_{i-1} <= u < p_0 + ... + p_i, for each u [B] in [0, total)."""
        head = min(HEAD, self.size)
        cumulative = self.nodes[head : 2 * head].cumsum()
        node = cumulative.searchsorted(u, "right").clip(max=head - 1)
        u = u - (cumulative[node] - self.nodes[head + node])
        node += head
        while node[0] < self.size:
            node = 2 * node
            left = self.nodes[node]
            right = u >= left
            u -= left * right
            node += right
        return node - self.size


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

    def _write(self, index: Tensor, rows: Tensor) -> None:
        super()._write(index, rows)
        if len(index):
            self.tree.write(index.numpy(), self.highest)

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """One of each `size`-th part of the probability, so that they differ more than by chance."""
        require(len(self) > 0, "replay must hold a transition before it is sampled, it is empty")
        noise = torch.rand(size, generator=generator, device=generator.device, dtype=torch.float64)
        u = (np.arange(size) + noise.cpu().numpy()) * (self.tree.total / size)
        index = self.tree.find(u).clip(max=len(self) - 1)  # rounding may lead one past the last
        probability = self.tree.leaves[index] / self.tree.total
        weight = (len(self) * probability) ** -self.beta(self.added)
        index, weight = (torch.from_numpy(x).to(self._rows.device) for x in (index, weight))
        return self._unpack(self._rows.index_select(0, index))._replace(weight=weight.float(), index=index)

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
