"""python -m hw4_model_based.experiments [NAME...] --seeds 0 1 2: every curve of this homework."""

from __future__ import annotations

from pathlib import Path

from common.sweep import Experiment, main
from hw4_model_based.run import HOMEWORK, PRESETS

FIVE = tuple(range(5))
OPEN_LOOP = ("mpc-obstacles", "--algo.replan-every", "10")
EXPERIMENTS = {
    # The lecture's ladder, at equal data.
    "obstacles": Experiment(
        {
            "v0.5, random data": (*OPEN_LOOP, "--train.no-aggregate"),
            "v1.0, aggregate": OPEN_LOOP,
            "v1.5, replan": ("mpc-obstacles",),
        },
        FIVE,
    ),
    "searches": Experiment(
        {
            "random shooting": ("mpc-obstacles", "--algo.search", "random", "--algo.samples", "240"),
            "CEM": ("mpc-obstacles",),
            "MPPI": ("mpc-obstacles", "--algo.search", "mppi"),
        },
        FIVE,
    ),
    "cartpole": Experiment(
        {"TSinf": ("pets-cartpole",), "TS1": ("pets-cartpole", "--algo.propagation", "ts1")}, FIVE
    ),
    "pendulum": Experiment({"PETS": ("pets-pendulum",)}, FIVE),
    "invertedpendulum": Experiment({"PETS": ("pets-invertedpendulum",)}, FIVE),
}

if __name__ == "__main__":
    main(HOMEWORK, PRESETS, EXPERIMENTS, Path(__file__).parent / "results")
