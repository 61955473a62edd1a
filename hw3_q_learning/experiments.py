"""python -m hw3_q_learning.experiments [NAME...] --seeds 0 1 2: every curve of the networks."""

from __future__ import annotations

from pathlib import Path

from common.sweep import Experiment, main
from hw3_q_learning.run import HOMEWORK, PRESETS

FIVE, TEN = tuple(range(5)), tuple(range(10))
EXPERIMENTS = {
    "cartpole": Experiment({"dqn": ("dqn-cartpole",)}, TEN),
    # The lecture's other processes: the same agent and loop at other rates.
    "processes": Experiment({"online q": ("online-q-cartpole",), "fitted q": ("fitted-q-cartpole",)}),
    "distributional": Experiment({name: (f"{name}-cartpole",) for name in ("c51", "qr", "rainbow")}),
    "family": Experiment(
        {
            "dqn, single": ("dqn-cartpole", "--algo.no-double"),
            "duelling": ("dqn-cartpole", "--algo.duelling"),
            "prioritised": ("dqn-cartpole", "--train.priority", "0.6"),
        }
    ),
    "acrobot": Experiment({"dqn": ("dqn-acrobot",)}, FIVE),
    "mountaincar": Experiment({"dqn": ("dqn-mountaincar",)}, FIVE),
    "lunarlander": Experiment({"dqn": ("dqn-lunarlander",)}, FIVE),
    "pendulum": Experiment(
        {name: (f"{name}-pendulum",) for name in ("sac", "td3", "ddpg", "naf", "cem-q", "crossq")},
    ),
    "inverteddoublependulum": Experiment({"sac": ("sac-inverteddoublependulum",)}),
    "halfcheetah": Experiment({name: (f"{name}-halfcheetah",) for name in ("sac", "td3", "crossq")}),
    "halfcheetah-long": Experiment({"sac, 300k": ("sac-halfcheetah", "--train.total-steps", "300000")}),
    "hopper": Experiment({"sac": ("sac-hopper",)}),
}

if __name__ == "__main__":
    main(HOMEWORK, PRESETS, EXPERIMENTS, Path(__file__).parent / "results")
