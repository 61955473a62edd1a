"""What planning saves: episodes on a maze for 0, 5 and 50 planning steps (Sutton and Barto 2018, figure 8.2).

python -m hw4_model_based.dyna_maze [--out dyna_maze.png] [--seeds 30]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np
from matplotlib.figure import Figure

import common.envs  # noqa: F401  registers course/...
from common.types import require
from hw4_model_based.dyna import dyna_q

PLANNING, EPISODES = (0, 5, 50), 40
NEARLY = 18  # steps: the shortest way has 14, and a tenth of them explore


def lengths(planning: int, seed: int) -> list[int]:
    """Steps of each episode: [EPISODES]"""
    found: list[int] = []
    env = gym.make("course/DynaMaze-v0")
    dyna_q(env, EPISODES, planning, alpha=0.1, gamma=0.95, epsilon=0.1, seed=seed, lengths=found)
    return found


def episodes_to_optimum(steps: list[int]) -> int:
    """Episodes until one has at most NEARLY steps; all of them if none has."""
    return next((k for k, length in enumerate(steps, 1) if length <= NEARLY), len(steps))


def draw(steps: np.ndarray) -> Figure:
    """Means over seeds of steps [len(PLANNING), seeds, EPISODES]."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for planning, mean in zip(PLANNING, steps.mean(1), strict=True):
        axes.plot(range(2, EPISODES + 1), mean[1:], label=f"{planning} planning steps")
    axes.axhline(14, color="gray", lw=1, ls="--", label="the shortest way")
    axes.set(xlabel="episode, from the second on", ylabel="steps", yscale="log", title="Dyna-Q on the maze")
    axes.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hw4_model_based.dyna_maze", allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("dyna_maze.png"), help="where the picture goes")
    parser.add_argument("--seeds", type=int, default=30, help="runs of each, seeds 0, 1, ..")
    args = parser.parse_args()
    try:
        require(args.seeds >= 1, f"seeds must be at least 1, got {args.seeds}")
        args.out.touch()
        steps = np.array([[lengths(planning, seed) for seed in range(args.seeds)] for planning in PLANNING])
        draw(steps).savefig(args.out, dpi=120)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print("| planning steps | episodes to the optimum, median | range |\n|---|---|---|")
    for planning, runs in zip(PLANNING, steps.tolist(), strict=True):
        found = [episodes_to_optimum(run) for run in runs]
        print(f"| {planning} | {np.median(found):g} | {min(found)} to {max(found)} |")
    print(args.out)


if __name__ == "__main__":
    main()
