"""The loop of all lessons, in which a network learns what others know: its rounds, with exact resume."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from common import checkpoint
from common.evaluation import Act
from common.logger import RunLogger
from common.types import Metrics


class Lesson(Protocol):
    """Something to be learned in rounds."""

    parts: dict[str, object]  # all that changes, by name; each is saved as checkpoint.state_of says
    act: Act  # of what has been learned

    def round(self, k: int) -> Iterable[tuple[str, Metrics]]:
        """Round k = 1, 2, ...; its rows, each with its split."""


def teach(lesson: Lesson, logger: RunLogger, rounds: int, step: int = 0) -> str:
    """Rounds `step` + 1 to `rounds`, a checkpoint after each, but one a second is enough; "finished", or
    "interrupted" by Ctrl-C after the running round, checkpoint saved."""
    saved_s = logger.wall_s
    with checkpoint.stop_signals() as stop:
        stopping = False
        while step < rounds and not stopping:
            step += 1
            for split, row in lesson.round(step):
                logger.write(split, step, row)
            stopping = bool(stop)
            if stopping or step == rounds or logger.wall_s - saved_s >= 1.0:
                for part in lesson.parts.values():
                    checkpoint.require_finite(part, step)
                parts = {name: checkpoint.state_of(part) for name, part in lesson.parts.items()}
                saved_s = logger.wall_s
                checkpoint.save(logger.directory / "checkpoint", step, wall_s=saved_s, parts=parts)
    return "finished" if step == rounds else "interrupted"
