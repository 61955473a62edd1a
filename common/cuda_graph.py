"""A whole update in one launch: the kernels of `agent.update`, recorded as a CUDA graph and replayed."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from common.replay import Batch
from common.types import require

WARMUP = 3  # periods of plain updates first, in which the optimisers take their memory


class Learner(Protocol):
    device: torch.device
    generator: torch.Generator  # of that device
    updates: int  # so far

    def update(self, batch: Batch) -> dict[str, Tensor]: ...


class CapturedUpdate:
    """agent.update(batch), from the fourth period on by replaying the kernels that it launches in that one.

    An update of small networks is some hundred kernels of a few microseconds, launched one by one by Python;
    a graph launches them together. It stays in its memory: batches are copied to one place, and what an
    update returns holds until the next. It stays with its numbers: an agent whose settings change over the
    run, such as a learning rate, must not be captured.
    """

    def __init__(self, agent: Learner, period: int):
        """`period`: updates after which the agent does the same again, such as the actor's every second."""
        require(agent.device.type == "cuda", f"capture must run on device cuda, got {agent.device}")
        require(period >= 1, f"period must be at least 1, got {period}")
        self.agent, self.period, self.plain = agent, period, WARMUP * period
        self.batch: Batch | None = None
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]] = {}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        self.place(batch)
        if self.plain:
            self.plain -= 1
            return self.beside()
        phase = self.agent.updates % self.period
        if phase in self.graphs:
            self.agent.updates += 1
        else:
            self.graphs[phase] = self.record()
        graph, metrics = self.graphs[phase]
        graph.replay()
        return metrics

    def place(self, batch: Batch) -> None:
        """Where the graphs read it."""
        if self.batch is None:
            self.batch = Batch(*(torch.empty_like(x) if isinstance(x, Tensor) else x for x in batch))
        for place, x in zip(self.batch, batch, strict=True):
            if isinstance(x, Tensor):
                place.copy_(x)

    def beside(self) -> dict[str, Tensor]:
        """One update on a stream of its own, as recording does: CUDA asks for it."""
        main, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            metrics = self.agent.update(self.batch)
        main.wait_stream(side)
        return metrics

    def record(self) -> tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]:
        """Counts as an update, but computes nothing yet."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.agent.generator)  # else every replay would draw the same noise
        with torch.cuda.graph(graph):
            metrics = self.agent.update(self.batch)
        return graph, metrics
