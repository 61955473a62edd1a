"""python -m hw5_planning_control.experiments [NAME...] --seeds 0 1 2: every curve of this homework."""

from __future__ import annotations

from pathlib import Path

from common.sweep import Experiment, main
from hw5_planning_control.run import HOMEWORK, PRESETS

DOUBLE = ("lqr-doubleintegrator",)
LAKES = ("distill-frozenlake",)
SMALL = ("--algo.student.hidden", "16", "--algo.student.epochs", "100")
EXPERIMENTS = {
    # The seed draws the first controls.
    "swingup": Experiment({"ilqr": ("ilqr-cartpole",)}),
    # Linear against quadratic convergence; the start is the same for all seeds but for its noise.
    "acrobot": Experiment(
        {
            "ilqr": ("ilqr-acrobot", "--train.start-std", "0.01"),
            "ddp": ("ddp-acrobot", "--train.start-std", "0.01"),
        },
        extra=("plan/log10_excess",),
    ),
    # What feedback and replanning are worth under noise; on this task both are the optimum.
    "noise": Experiment(
        {
            "open loop": (*DOUBLE, "--train.no-feedback"),
            "feedback": DOUBLE,
            "replanning": (*DOUBLE, "--train.no-feedback", "--train.replan-every", "1"),
        }
    ),
    # Planners that teach: do they bend towards the policy, or is it left to clone them?
    "teaching": Experiment(
        {"guided policy search": ("gps-pendulum",), "cloning": ("gps-pendulum", "--algo.no-adapt")},
        extra=("policy/residual",),
    ),
    # Who drives while data are collected; the returns are the pupil's alone.
    "plato": Experiment(
        {name: ("plato-car", "--algo.plays", name) for name in ("plato", "dagger", "teacher")},
        seeds=(0, 1, 2, 3, 4),
        extra=("policy/crashes",),
    ),
    # A policy of pixels beside the policy of states that taught it.
    "remapping": Experiment({"pixels": ("remap-pendulum",)}, extra=("teacher/return_mean",)),
    # Networks that answer at once what tree search or MPC would find.
    "breakout": Experiment({"MCTS, imitated": ("imitate-mcts-breakout",)}),
    "imitation": Experiment({"MPC, imitated": ("imitate-mpc-pendulum",)}),
    # One network for eight lakes: too small a one learns more from odds than from choices.
    "distillation": Experiment(
        {"64 x 64 units": LAKES, "soft": (*LAKES, *SMALL), "hard": (*LAKES, *SMALL, "--algo.student.hard")},
        seeds=(0, 1, 2, 3, 4),
        extra=("teacher/return_mean",),
    ),
    # Equal samples: local policies for four kinds of starts, or one policy for all.
    "division": Experiment(
        {
            "divide and conquer": ("divide-lob",),
            "one policy": ("divide-lob", "--algo.regions", "1"),
        },
        seeds=(0, 1, 2, 3, 4),
    ),
    "pendulum": Experiment({"cem": ("cem-pendulum",), "mppi": ("mppi-pendulum",)}),
    # The simulator is the model: contact is no obstacle to a search.
    "mujoco": Experiment({"cem": ("cem-halfcheetah",)}),
}

if __name__ == "__main__":
    main(HOMEWORK, PRESETS, EXPERIMENTS, Path(__file__).parent / "results")
