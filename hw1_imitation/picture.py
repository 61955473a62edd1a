"""curve.png of a run: the return over the labels that an expert gave, or over gradient steps."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from common.logger import read_rows


def draw(directory: Path, title: str, learner: str, pairs: str, expert_return: float | None) -> Path:
    """The learner with its worst and best episode, the clone beside it where there is one, the expert.

    `learner` and `pairs`: what is written of the curve, and of its axis where the data grow."""
    rows = [row for row in read_rows(directory / "metrics.jsonl") if row["split"] == "eval"]
    labels = [row["data/labels"] for row in rows]
    asked = labels[-1] > labels[0]
    x = labels if asked else [row["step"] for row in rows]
    column = {name: [row.get(name) for row in rows] for name in rows[0]}
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(x, column["return_min"], column["return_max"], alpha=0.15, linewidth=0)
    axes.plot(x, column["return_mean"], marker=".", label=learner)
    if "policy/clone_return" in column:
        told = f"cloning, {labels[0]:.0f} labels, as many gradient steps"
        axes.plot(x, column["policy/clone_return"], marker=".", label=told)
    if expert_return is not None:
        axes.axhline(expert_return, color="gray", linestyle="--", linewidth=1, label="expert")
    axes.set(xlabel=pairs if asked else "gradient steps", ylabel="return", title=title)
    axes.legend(fontsize=8)
    figure.savefig(directory / "curve.png", dpi=120)
    return directory / "curve.png"
