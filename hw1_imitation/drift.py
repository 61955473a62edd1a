"""The law of the tightrope on a real road: how the mistakes of T steps grow with T (Ross et al. 2011).

python -m hw1_imitation.drift [--seeds 0 1 2] [--csv drift.csv]

c_t = 1 where the steering differs from the expert's by more than TOLERANCE, and always once off the road
cloning     sum_{t <= T} c_t grows like T^2 while few cars are off: each step may be the first mistake, none
            is taken back
DAgger      like T

Both are fitted to the same number of labels, by the same number of gradient steps; the car sees the road
through its camera (common/envs/lane_keeping.py).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch

from common import device
from common.cli import INTERRUPTED
from common.envs import registry
from common.envs.registry import step_envs
from common.seeding import child_seed, generator
from common.types import require
from hw1_imitation.behavior_cloning import BehaviorCloning
from hw1_imitation.compounding_error import slope
from hw1_imitation.dagger import DaggerConfig, ask
from hw1_imitation.demonstrations import Act, Demonstrations, collect
from hw1_imitation.experts import expert

ENV_ID = "course/LaneKeeping-v0"
TOLERANCE = 0.1  # of the sharpest curve
HORIZONS = (10, 20, 40, 80, 160, 320)  # steps
STEADY = slice(2, 5)  # of them: later than the first moves, and sooner than every car is off
CARS = 200  # episodes that are watched
ROUNDS, LABELS, UPDATES, BATCH = 10, 20, 300, 128  # of DAgger; cloning has all labels at once


class Row(NamedTuple):
    algo: str
    seed: int
    horizon: int
    cost: float


def mistakes(policy: Act, teacher: Act, envs: gym.vector.VectorEnv, steps: int, seed: int) -> np.ndarray:
    """c_t of each car: [T, N] bool"""
    obs, _ = envs.reset(seed=seed)
    off, found = np.zeros(envs.num_envs, bool), []
    for _ in range(steps):
        action = policy(obs)
        wrong = np.abs(action - teacher(obs)).max(-1) > TOLERANCE
        found.append(wrong | off)
        obs, _, terminated, _, _ = step_envs(envs, action)
        off = off | terminated
    return np.stack(found)


def fit(learner: BehaviorCloning, data: Demonstrations, updates: int, draws: torch.Generator) -> None:
    for k in range(updates):
        rows = torch.randint(len(data), (BATCH,), generator=draws)
        learner.update(data.obs[rows], data.action[rows], 1 - k / updates)


def learn(aggregate: bool, seed: int) -> BehaviorCloning:
    """A clone of ROUNDS LABELS steps of the expert, or of LABELS and what DAgger asks for."""
    envs, teacher, config = registry.make_envs(ENV_ID, 1), expert(ENV_ID), DaggerConfig(labels=LABELS)
    learner = BehaviorCloning(registry.spec(envs), config, torch.device("cpu"), seed)
    draws, shown = generator(seed, "batch"), child_seed(seed, "demonstrations")
    data = collect(teacher, envs, LABELS if aggregate else ROUNDS * LABELS, shown)
    learner.observe(data.obs)
    for i in range(1, ROUNDS + 1):
        fit(learner, data, UPDATES, draws)
        if aggregate and i < ROUNDS:
            new = ask(learner.act, teacher, envs, config, i, seed)
            learner.observe(new.obs)
            data = data.joined(new)
    return learner


def measure(seed: int) -> list[Row]:
    """Costs of both at each horizon."""
    envs, rows = registry.make_envs(ENV_ID, CARS), []
    for name, aggregate in (("cloning", False), ("dagger", True)):
        learner = learn(aggregate, seed)
        wrong = mistakes(learner.act, expert(ENV_ID), envs, max(HORIZONS), child_seed(seed, "eval"))
        cost = wrong.mean(1).cumsum()
        rows += [Row(name, seed, T, float(cost[T - 1])) for T in HORIZONS]
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m hw1_imitation.drift",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[*range(10)], help="one pair of policies each"
    )
    default = Path(__file__).parent / "results" / "laws" / "drift.csv"
    parser.add_argument("--csv", type=Path, default=default, help="where the numbers go")
    args = parser.parse_args(argv)
    device.setup("cpu", threads=1)
    try:
        require(min(args.seeds) >= 0, f"seeds must not be negative, got {min(args.seeds)}")
        rows = [row for seed in args.seeds for row in measure(seed)]
        args.csv.parent.mkdir(parents=True, exist_ok=True)
        with args.csv.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(Row._fields)
            writer.writerows((*row[:3], f"{row.cost:.4f}") for row in rows)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    print("| mistakes in | " + " | ".join(f"T = {T}" for T in HORIZONS) + " | power of T, 40 to 160 |")
    print("|---" * (len(HORIZONS) + 2) + "|")
    for name in ("cloning", "dagger"):
        costs = np.array([[r.cost for r in rows if (r.algo, r.seed) == (name, k)] for k in args.seeds])
        mean = costs.mean(0)  # [T] over seeds
        power = slope(np.array(HORIZONS[STEADY]), mean[STEADY])
        print(f"| {name} | " + " | ".join(f"{x:.2f}" for x in mean) + f" | {power:.2f} |")
    print(args.csv)


if __name__ == "__main__":
    main()
