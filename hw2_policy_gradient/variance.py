"""How noisy is each estimator of the policy gradient? One table, one picture.

python -m hw2_policy_gradient.variance [--episodes 400] [--seed 0] [--out variance.png] [--csv ladder.csv]

The ladder measured on CartPole (ladder.py), the same in closed form on the two-action problem, on-policy and
by importance sampling (two_action.py), and what a change of the policy does to its states (bound.py).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common import device
from common.types import require
from hw2_policy_gradient.bound import PolicyChange, policy_change
from hw2_policy_gradient.ladder import ESTIMATORS, Rung, measure
from hw2_policy_gradient.two_action import estimates, importance_sampling, mean_and_variance

THETAS = (0.5, 0.7, 0.9)  # pi(stay)
BEHAVIOURS = (0.3, 0.5, 0.7)  # pi(stay) of the policy that acted, for theta = 1/2
HORIZON = 50  # steps, of the bound


def write_csv(path: Path, rungs: Sequence[Rung]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Rung._fields)
        writer.writerows(
            [k, f"{length:.1f}", name, *(f"{x:.6g}" for x in v)] for k, length, name, *v in rungs
        )


def read_csv(path: Path | str) -> list[Rung]:
    """What write_csv wrote."""
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    require(bool(rows) and tuple(rows[0]) == Rung._fields, f"path must be a CSV of {','.join(Rung._fields)}")
    return [Rung(int(k), float(n), name, *map(float, v)) for k, n, name, *v in map(dict.values, rows)]


def tightrope(eps: float) -> PolicyChange:
    """The worst case: pi never falls off, pi' with probability eps, and what has fallen stays below."""
    P = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    R, start = np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([1.0, 0.0])
    safe, fallible = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[1 - eps, eps], [1.0, 0.0]])
    return policy_change(P, R, start, safe, fallible, 1.0, HORIZON)


def walk(eps: float) -> PolicyChange:
    """A usual case: 41 places in a row, from the middle, the rightmost ten pay 1. pi goes left and right
    alike, pi' right with probability 1/2 + eps."""
    places, right = np.arange(41), np.full((41, 2), 0.5)
    P = np.stack([np.eye(41)[(places + move).clip(0, 40)] for move in (-1, 1)], 1)
    R = np.repeat(places[:, None] > 30, 2, 1).astype(float)
    return policy_change(P, R, np.eye(41)[20], right, right + np.array([-eps, eps]), 1.0, HORIZON)


def tables(rungs: Sequence[Rung]) -> str:
    """Markdown."""
    stages = sorted({(rung.updates, rung.length) for rung in rungs})
    cell = {(rung.updates, rung.estimator): rung for rung in rungs}
    heads = [f"{length:.0f} steps per episode" for _, length in stages]
    lines = _rows(["CartPole-v1, variance as share of the first row's", *heads])
    for name, what in ESTIMATORS.items():
        shares = []
        for k, _ in stages:
            rung, whole = cell[k, name], cell[k, "total return"].variance
            shares.append(f"{rung.variance / whole:.2g} [{rung.low / whole:.2g}, {rung.high / whole:.2g}]")
        lines += [f"| {name}: {what} | {' | '.join(shares)} |"]
    lines += ["", *_rows(["two-action problem, variance", *(f"theta = {theta}" for theta in THETAS)])]
    for name in estimates(0.5):
        variances = [mean_and_variance(estimates(theta)[name], theta)[1] for theta in THETAS]
        lines += [f"| {name} | {' | '.join(f'{x:,.4g}' for x in variances)} |"]
    lines += ["", *_rows(["gradient 4 at theta = 0.5, variance", *(f"from {b}" for b in BEHAVIOURS)])]
    for name in importance_sampling(0.5, 0.5):
        pairs = [importance_sampling(0.5, b)[name] for b in BEHAVIOURS]
        cells = (f"{v:,.4g}" + (f", mean {mean:.2g}" if abs(mean - 4) > 1e-9 else "") for mean, v in pairs)
        lines += [f"| {name} | {' | '.join(cells)} |"]
    lines += [
        "",
        *_rows([f"change of the policy, {HORIZON} steps", "eps", "gain", "surrogate", "gap", "bound"]),
    ]
    for name, problem in (("tightrope", tightrope), ("walk", walk)):
        for eps in (0.001, 0.01):
            c = problem(eps)
            numbers = (c.eps, c.gain, c.surrogate_gain, c.gain - c.surrogate_gain, c.gap_bound)
            lines += [f"| {name} | {' | '.join(f'{x:.3g}' for x in numbers)} |"]
    return "\n".join(lines)


def _rows(heads: list[str]) -> list[str]:
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]


def draw(rungs: Sequence[Rung]) -> Figure:
    """Everything in five panels."""
    figure = Figure(figsize=(14, 8), layout="constrained")
    panels = figure.subplot_mosaic([["ladder", "ladder", "exact"], ["importance", "drift", "gap"]])
    draw_ladder(panels["ladder"], rungs)
    draw_two_action(panels["exact"])
    draw_importance_sampling(panels["importance"])
    draw_drift(panels["drift"])
    draw_gap(panels["gap"])
    return figure


def draw_ladder(axes: Axes, rungs: Sequence[Rung]) -> None:
    names = list(ESTIMATORS)
    stages = sorted({(rung.updates, rung.length) for rung in rungs})
    for i, (k, length) in enumerate(stages):
        cell = {rung.estimator: rung for rung in rungs if rung.updates == k}
        low, middle, high = (
            np.array([getattr(cell[name], key) for name in names]) / cell["total return"].variance
            for key in ("low", "variance", "high")
        )
        x = np.arange(len(names)) + 0.08 * (i - (len(stages) - 1) / 2)
        label = f"after {k} updates, {length:.0f} steps per episode"
        axes.errorbar(x, middle, (middle - low, high - middle), fmt="o-", capsize=2, lw=1, ms=5, label=label)
    axes.set_xticks(range(len(names)), names)
    axes.set(yscale="log", ylabel="variance, total return = 1")
    axes.set_title("CartPole-v1: variance of one episode's gradient, measured (95 % intervals)")
    axes.legend()


def draw_two_action(axes: Axes) -> None:
    theta = np.linspace(0.05, 0.95, 181)
    for name in estimates(0.5):
        variance = [mean_and_variance(estimates(x)[name], x)[1] * (1 - x) ** 4 for x in theta]
        axes.plot(theta, variance, label=name, lw=1.5)
    axes.set(yscale="log", xlabel="theta = pi(stay)", ylabel="variance / gradient$^2$")
    axes.set_title("Two-action problem: closed form")
    axes.legend(fontsize=8)


def draw_importance_sampling(axes: Axes, theta: float = 0.5) -> None:
    behaviour = np.linspace(0.255, 0.9, 400)
    results = [importance_sampling(theta, b) for b in behaviour]
    for name in results[0]:
        axes.plot(behaviour, [result[name][1] for result in results], lw=1.5, label=f"{name}, variance")
    error = [(result["first order"][0] - 1 / (1 - theta) ** 2) ** 2 for result in results]
    axes.plot(behaviour, error, "--", color="C2", lw=1.5, label="first order, squared bias")
    for x, text in ((theta, "on-policy"), (theta**2, "infinite here and below")):
        axes.axvline(x, color="gray", lw=1, ls=":")
        axes.annotate(text, (x, 1.3), rotation=90, ha="right", color="gray", fontsize=9)
    axes.set(yscale="log", xlim=(0.2, 0.9), ylim=(1, 1e6), ylabel="variance, bias$^2$")
    axes.set_xlabel("pi(stay) of the policy that acted")
    axes.set_title(f"Gradient at pi(stay) = {theta:g} by importance sampling")
    axes.legend(fontsize=8)


def draw_drift(axes: Axes, eps: float = 0.05) -> None:
    t = np.arange(HORIZON)
    worst, usual = tightrope(eps), walk(eps)
    axes.plot(t, worst.drift_bound, "k--", lw=1, label=r"$2\varepsilon t$")
    axes.plot(t, worst.drift, lw=1.5, label=r"tightrope: $2(1-(1-\varepsilon)^t)$ exactly")
    axes.plot(t, usual.drift, lw=1.5, label="walk")
    axes.set(ylim=(0, 2.05), xlabel="t, steps", ylabel=r"$\sum_s\,|p'_t(s) - p_t(s)|$")
    axes.set_title(rf"Drift of the states, policies $\varepsilon$ = {eps:g} apart")
    axes.legend(fontsize=8)


def draw_gap(axes: Axes) -> None:
    eps = np.logspace(-4, -0.5, 30)
    for i, (name, problem) in enumerate((("tightrope", tightrope), ("walk", walk))):
        changes = [problem(x) for x in eps]
        gain, bound = ([abs(getattr(c, key)) for c in changes] for key in ("gain", "gap_bound"))
        gap = [abs(c.gain - c.surrogate_gain) for c in changes]
        axes.plot(eps, gain, ":", color=f"C{i}", lw=1.5, label=f"{name}: |gain|")
        axes.plot(eps, gap, "-", color=f"C{i}", lw=1.5, label=f"{name}: |gain - surrogate|")
        axes.plot(eps, bound, "--", color=f"C{i}", lw=1, label=f"{name}: its bound")
    axes.set(xscale="log", yscale="log", xlabel=r"$\varepsilon$", ylabel="return")
    axes.set_title(f"The surrogate errs in second order, {HORIZON} steps")
    axes.legend(fontsize=7)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m hw2_policy_gradient.variance", description=__doc__)
    parser.add_argument(
        "--episodes", type=int, default=400, help="measured at each moment, half to learn from"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("variance.png"), help="the picture")
    parser.add_argument("--csv", type=Path, help="the measured ladder")
    args = parser.parse_args(argv)
    device.setup("cpu", 1)
    try:
        rungs = measure(args.episodes, args.seed)
        draw(rungs).savefig(args.out, dpi=100)
        if args.csv:
            write_csv(args.csv, rungs)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(tables(rungs))
    print(args.out)


if __name__ == "__main__":
    main()
