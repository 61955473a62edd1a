"""python -m hw1_imitation.experiments [NAME...] --seeds 0 1 2: every curve of this homework."""

from __future__ import annotations

from pathlib import Path

from common.sweep import Experiment, main
from hw1_imitation.run import HOMEWORK, PRESETS

FIVE = tuple(range(5))
DAGGER = ("dagger-inverteddoublependulum", "--train.no-compare")
EXPERIMENTS = {
    # The same 30 labels to begin with, the same gradient steps.
    "inverteddoublependulum": Experiment({"dagger": DAGGER, "cloning": ("bc-inverteddoublependulum",)}, FIVE),
    # How many demonstrations would cloning need instead?
    "demonstrations": Experiment(
        {
            f"cloning, {n:,} labels": ("bc-inverteddoublependulum", "--train.demonstrations", str(n))
            for n in (100, 300, 1_000, 3_000)
        },
        FIVE,
    ),
    "beta": Experiment({f"dagger, beta = {p}^i": (*DAGGER, "--algo.beta", p) for p in ("0.5", "0.8")}, FIVE),
    "losses": Experiment(
        {"gaussian": (*DAGGER, "--algo.loss", "gaussian")},
        FIVE,
    ),
    # An expert that remembers, and pupils that do or do not.
    "memory": Experiment(
        {
            "one observation": ("bc-cartpolenovelocity",),
            "history": ("history-cartpolenovelocity",),
            "GRU": ("recurrent-cartpolenovelocity",),
        },
        FIVE,
    ),
    # As many steps of the expert in all three.
    "corrections": Experiment(
        {
            "cloning": ("bc-lanekeeping",),
            "noise injection": ("noise-lanekeeping",),
            "three cameras": ("cameras-lanekeeping",),
        },
        FIVE,
    ),
    # Whatever was done leads somewhere; the first row is cloned from random actions alone.
    "goals": Experiment({"gcsl": ("gcsl-pointmaze",)}, FIVE),
    # Two good ways, and a bad one between them; policy/left is the share that passed on the left.
    "twoway": Experiment(
        {
            "squared error": ("bc-twoway",),
            "mixture": ("mixture-twoway",),
            "cvae": ("cvae-twoway",),
            "autoregressive": ("autoregressive-twoway",),
            "flow matching": ("flow-twoway",),
        },
        FIVE,
        extra=("policy/left",),
    ),
    # Experts that homework 2 trained. How many steps of them does cloning need?
    "halfcheetah": Experiment(
        {
            f"cloning, {n:,} labels": ("bc-halfcheetah", "--train.demonstrations", str(n))
            for n in (1_000, 3_000, 10_000)
        }
    ),
    "ant": Experiment(
        {f"cloning, {n:,} labels": ("bc-ant", "--train.demonstrations", str(n)) for n in (1_000, 10_000)}
    ),
    # From 200 steps of the expert; what DAgger asks for afterwards is counted in data/labels.
    "hopper": Experiment({"dagger": ("dagger-hopper",), "cloning": ("bc-hopper",)}, extra=("data/labels",)),
    "walker2d": Experiment(
        {"dagger": ("dagger-walker2d",), "cloning": ("bc-walker2d",)}, extra=("data/labels",)
    ),
    "cartpole": Experiment({"dagger": ("dagger-cartpole",), "cloning": ("bc-cartpole",)}, FIVE),
}

if __name__ == "__main__":
    main(HOMEWORK, PRESETS, EXPERIMENTS, Path(__file__).parent / "results")
