"""Runs -> tidy frame -> interquartile mean with a bootstrap interval -> learning curves.

python -m common.results PATH... [--out curves.png] draws and tabulates runs (folders) and results (.csv).
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.logger import read_rows
from common.types import require

COLUMNS = [
    ("algo", "U64"), ("env_id", "U64"), ("seed", np.int64), ("step", np.int64), ("return_mean", np.float64),
    ("wall_s", np.float64),
]  # fmt: skip


def load_runs(path: Path | str, algo: str | None = None, extra: tuple[str, ...] = ()) -> np.recarray:
    """Tidy frame of every run under `path`: one row per evaluation, columns as in COLUMNS and then the
    `extra` keys of its evaluations.

    A NumPy record array: frame.step, frame[frame.seed == 0]; pandas.DataFrame(frame) takes it as it is.
    `algo` is the preset without its environment (ppo-cartpole -> ppo) unless given; "ppo #2" is the second
    run of the same seed.
    """
    rows, seen = [], Counter()
    for metrics in sorted(Path(path).rglob("metrics.jsonl")):
        config = json.loads(metrics.with_name("config.json").read_text())
        name, env_id, seed = algo or config["preset"].rsplit("-", 1)[0], config["env_id"], config["seed"]
        evals = [row for row in read_rows(metrics) if row["split"] == "eval"]
        if evals:
            seen[name, env_id, seed] += 1
            if (times := seen[name, env_id, seed]) > 1:  # its settings may be other ones
                name = f"{name} #{times}"
        keys = ("step", "return_mean", "wall_s", *extra)
        rows += [(name, env_id, seed, *(row[key] for key in keys)) for row in evals]
    require(bool(rows), f"path must hold at least one run with an evaluation, got {path}")
    return np.array(rows, COLUMNS + [(key, np.float64) for key in extra]).view(np.recarray)


def write_csv(path: Path, frame: np.recarray) -> None:
    """algo,env_id,seed,step,return_mean,wall_s and extra columns; numbers rounded to a thousandth."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(frame.dtype.names)
        writer.writerows([*row[:4], *(round(number, 3) for number in row[4:])] for row in frame.tolist())


def read_csv(path: Path | str) -> np.recarray:
    """What write_csv wrote, without extra columns."""
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name, _ in COLUMNS]
    require(bool(rows) and rows[0].keys() >= {*names}, f"path must be a CSV of {','.join(names)}, got {path}")
    return np.array([tuple(row[name] for name in names) for row in rows], COLUMNS).view(np.recarray)


def iqm(scores: np.ndarray) -> np.ndarray:
    """Interquartile mean over the first axis, [R, ...] -> [...]: the lowest and highest quarter of the runs
    are left out (Agarwal et al. 2021). With three runs or fewer it is the mean."""
    from scipy.stats import trim_mean  # 1.3 s and 57 MB to import, and no training run needs it

    return trim_mean(scores, 0.25, axis=0)


def bootstrap_interval(
    strata: Sequence[np.ndarray], generator: np.random.Generator, replicates: int = 2000, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of the IQM over all runs of all tasks, [...] each.

    strata: per task its scores [R, ...]. Runs are drawn anew within each task, so that every replicate
    weighs the tasks as the sample does; a run stays whole along the other axes (Agarwal et al. 2021).
    """
    draws = np.concatenate(
        [task[generator.integers(len(task), size=(len(task), replicates))] for task in strata]
    )  # [sum R, replicates, ...]
    low, high = np.quantile(iqm(draws), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def align(frame: np.recarray) -> tuple[np.ndarray, np.ndarray]:
    """One algorithm on one environment -> the steps at which every seed was evaluated [S], returns [R, S]."""
    runs = [frame[frame.seed == seed] for seed in np.unique(frame.seed)]
    steps = runs[0].step
    for run in runs[1:]:
        steps = np.intersect1d(steps, run.step)
    label = f"{frame.algo[0]} on {frame.env_id[0]}"
    require(len(steps) > 0, f"frame: the seeds of {label} share no evaluated step")
    once = all(len(np.unique(run.step)) == len(run) for run in runs)
    require(once, f"frame: {label} holds a seed twice")
    return steps, np.stack([run.return_mean[np.isin(run.step, steps)] for run in runs])


def best_and_last(frame: np.recarray, window: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """One algorithm on one environment -> per seed its best evaluation and the mean of its last `window`,
    [R] each. The best alone would praise a run that collapsed, the last alone be a matter of luck."""
    _, scores = align(frame)
    return scores.max(1), scores[:, -window:].mean(1)


def table(frame: np.recarray) -> str:
    """Markdown, a row per algorithm and environment."""
    lines = [
        "| algorithm | environment | seeds | steps | IQM of last five [95 %] | last five, worst to best seed "
        "| best, of the worst seed | seconds per seed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for algo, env_id in dict.fromkeys(zip(frame.algo.tolist(), frame.env_id.tolist(), strict=True)):
        part = frame[(frame.algo == algo) & (frame.env_id == env_id)]
        best, last = best_and_last(part)
        low, high = bootstrap_interval([last], np.random.default_rng(0))
        seconds = np.median([part.wall_s[part.seed == seed].max() for seed in np.unique(part.seed)])
        lines.append(
            f"| {algo} | {env_id} | {len(last)} | {part.step.max():,} "
            f"| {_short(iqm(last))} [{_short(low)}, {_short(high)}] "
            f"| {_short(last.min())} to {_short(last.max())} | {_short(best.min())} | {seconds:,.0f} |"
        )
    return "\n".join(lines)


def _short(score: float) -> str:
    """Whole numbers from a hundred up, four digits below."""
    return f"{score:,.0f}" if abs(score) >= 100 else f"{score:.4g}"


def plot_curves(axes: Axes, frame: np.recarray, reference: dict[str, float] | None = None) -> None:
    """Return over environment steps of each algorithm in `frame` (one environment): IQM and 95 % interval,
    the seeds themselves as thin lines where they are few; dashed lines at the `reference` returns."""
    for algo in dict.fromkeys(frame.algo.tolist()):
        steps, scores = align(frame[frame.algo == algo])
        marker = "o" if len(steps) == 1 else ""  # a line of one point would not be seen
        label = f"{algo} ({len(scores)} seed{'s' * (len(scores) > 1)})"
        (line,) = axes.plot(steps, iqm(scores), marker=marker, label=label)
        if len(scores) <= 3:
            thin = {"linewidth": 0.6, "marker": marker, "markersize": 3, "alpha": 0.6}
            axes.plot(steps, scores.T, color=line.get_color(), **thin)
        if len(scores) > 1:
            low, high = bootstrap_interval([scores], np.random.default_rng(0))
            axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    for name, value in (reference or {}).items():
        axes.axhline(value, color="gray", linestyle="--", linewidth=1)
        axes.annotate(
            name, (0.01, value), xycoords=("axes fraction", "data"), va="bottom", fontsize=8, color="gray"
        )
    axes.set(xlabel="environment steps", ylabel="return", title=str(frame.env_id[0]))
    axes.legend(loc="lower right", fontsize=8)


def plot_all(frame: np.recarray) -> Figure:
    """One panel per environment."""
    env_ids = list(dict.fromkeys(frame.env_id.tolist()))
    columns = min(len(env_ids), 3)
    rows = -(-len(env_ids) // columns)
    figure = Figure(figsize=(5 * columns, 3.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, env_id in zip(panels, env_ids, strict=False):
        plot_curves(axes, frame[frame.env_id == env_id])
    for axes in panels[len(env_ids) :]:
        axes.remove()
    return figure


def plot_run(
    directory: Path,
    reference: dict[str, float] | None = None,
    xlabel: str = "environment steps",
    cost: bool = False,
) -> Path:
    """directory/curve.png: mean of the evaluation episodes, and the band from the worst to the best.
    `cost`: the returns are costs with their sign turned, and drawn as costs."""
    rows = [row for row in read_rows(directory / "metrics.jsonl") if row["split"] == "eval"]
    sign = -1 if cost else 1
    step = [row["step"] for row in rows]
    mean, low, high = (
        [sign * row[key] for row in rows] for key in ("return_mean", "return_min", "return_max")
    )
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    frame = load_runs(directory)
    axes.fill_between(step, low, high, alpha=0.15, linewidth=0, label="worst to best episode")
    axes.plot(step, mean, marker=".", label=f"mean of {rows[-1]['episodes']} episodes")
    for name, value in (reference or {}).items():
        axes.axhline(value, color="gray", linestyle="--", linewidth=1, label=name)
    title = f"{frame.algo[0]} on {frame.env_id[0]}, seed {frame.seed[0]}"
    axes.set(xlabel=xlabel, ylabel="cost" if cost else "return", title=title)
    axes.set_yscale("log" if cost and min(mean + low + high) > 0 else "linear")
    axes.legend(loc="upper right" if cost else "lower right", fontsize=8)
    figure.savefig(directory / "curve.png", dpi=120)
    return directory / "curve.png"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m common.results", description=__doc__.splitlines()[2])
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--out", type=Path, default=Path("curves.png"))
    args = parser.parse_args()
    try:
        frames = [read_csv(path) if path.suffix == ".csv" else load_runs(path) for path in args.paths]
        frame = np.concatenate(frames).view(np.recarray)
        plot_all(frame).savefig(args.out, dpi=100)
        text = table(frame)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    except KeyError as error:
        parser.error(f"a config.json or metrics.jsonl lacks {error}")
    print(text)
    print(args.out)


if __name__ == "__main__":
    main()
