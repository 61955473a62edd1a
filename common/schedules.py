"""Numbers that change over a run, as functions of progress: settings, not state."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Constant:
    value: float

    def __call__(self, progress: int) -> float:
        return self.value


@dataclass(frozen=True)
class Linear:
    """From `start` at progress 0 to `end` at `duration`, and `end` ever after."""

    start: float
    end: float
    duration: int

    def __call__(self, progress: int) -> float:
        return self.start + (self.end - self.start) * min(progress / self.duration, 1.0)
