"""An episode as a row of pictures, evenly spread over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

COLUMNS = 9  # pictures in a row


class Thinned:
    """The frames of an episode of unknown length: at most 2 `limit` + 1, with the first and the last."""

    def __init__(self, limit: int = 4 * COLUMNS):
        self.limit, self.stride, self.count = limit, 1, 0
        self.kept: list[np.ndarray] = []  # frames 0, stride, 2 stride, ...

    def add(self, frame: np.ndarray) -> None:
        if self.count % self.stride == 0:
            self.kept.append(frame)
        self.last = frame
        self.count += 1
        if len(self.kept) > 2 * self.limit:
            self.kept, self.stride = self.kept[::2], 2 * self.stride

    def frames(self) -> dict[int, np.ndarray]:
        """Step -> frame."""
        steps = range(0, self.count, self.stride)
        return dict(zip(steps, self.kept, strict=True)) | {self.count - 1: self.last}


def spread(count: int, columns: int = COLUMNS) -> list[int]:
    """At most `columns` of 0 .. count - 1, evenly spread, both ends among them."""
    return [int(i) for i in np.unique(np.linspace(0, count - 1, columns).round())]


def draw(rows: Mapping[str, Sequence[np.ndarray]], steps: Sequence[int]) -> Figure:
    """Each row's pictures, [H, W] or [H, W, 3], as many as `steps`, which are written above them."""
    height, width = next(iter(rows.values()))[0].shape[:2]
    size = (1.1 * len(steps), (1.1 * height / width + 0.1) * len(rows) + 0.2)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), len(steps), squeeze=False)
    for axes, (name, pictures) in zip(grid, rows.items(), strict=True):
        for axis, shown in zip(axes, pictures, strict=True):
            axis.imshow(shown, cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        axes[0].set_ylabel(name, fontsize=8)
    for axis, step in zip(grid[0], steps, strict=True):
        axis.set_title(f"step {step}", fontsize=8)
    return figure
