"""python -m hw4_model_based.experiments [NAME...] --seeds 0 1 2: every curve of this homework."""

from __future__ import annotations

from pathlib import Path

from common.sweep import Experiment, main
from hw4_model_based.run import HOMEWORK, PRESETS

THREE, FIVE = tuple(range(3)), tuple(range(5))
OPEN_LOOP = ("mpc-obstacles", "--algo.replan-every", "10")
BALANCE, HOP, CHEETAH = "mbpo-invertedpendulum", "mbpo-hopper", "mbpo-cheetah"
REAL = ("--algo.real-ratio", "1")  # nothing imagined: the model-free agent in the same loop
SAC = (*REAL, "--train.updates", "1")
SWING = (
    *(BALANCE, *SAC, "--env-id", "course/CartPoleSwingUpDense-v0", "--learner.gamma", "0.99"),
    *("--learner.hidden", "128", "128", "--train.total-steps", "20000", "--train.eval-every", "1000"),
)
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
    "reacher": Experiment(
        {
            "random shooting": ("mpc-reacher", "--algo.search", "random", "--algo.samples", "300"),
            "CEM": ("mpc-reacher",),
        }
    ),
    "cheetah": Experiment(
        {
            "random shooting": ("mpc-cheetah", "--algo.search", "random", "--algo.samples", "300"),
            "CEM": ("mpc-cheetah",),
            "MBPO": (CHEETAH,),
        }
    ),
    "cartpole": Experiment(
        {
            "TSinf": ("pets-cartpole",),
            "TS1": ("pets-cartpole", "--algo.propagation", "ts1"),
            "PDDM": ("pddm-cartpole",),
            "SAC": SWING,  # ten times the steps
        },
        FIVE,
    ),
    "finetune": Experiment(
        {
            "MPC, then PPO": ("finetune-pendulum",),
            "PPO from scratch": ("finetune-pendulum", "--algo.trials", "0"),
        },
        (0, 1, 2),
    ),
    "pendulum": Experiment({"PETS": ("pets-pendulum",)}, FIVE),
    "backprop": Experiment({"backpropagation into the policy": ("backprop-pendulum",)}, THREE),
    "pilco": Experiment({"PILCO": ("pilco-pendulum",)}, THREE),
    "pixels": Experiment(
        {
            "deterministic encoder": ("latent-pointmass",),
            "E2C": ("e2c-pointmass",),
            "SOLAR": ("solar-pointmass",),
            "RSSM": ("rssm-pointmass",),
        }
    ),
    "foresight": Experiment({"visual foresight": ("foresight-push",)}),
    "invertedpendulum": Experiment({"PETS": ("pets-invertedpendulum",)}, FIVE),
    # To learn from more than what was seen, beside the same agent without a model.
    "mbpo": Experiment(
        {
            "MBPO": (BALANCE,),
            "SAC": (BALANCE, *SAC, "--train.total-steps", "5000"),
            "SAC, as many updates": (BALANCE, *REAL),
        }
    ),
    "mbpo-hopper": Experiment({"MBPO": (HOP,)}),
    "expansion": Experiment(
        {
            "MVE": ("mve-pendulum",),
            "STEVE": ("steve-pendulum",),
            "DDPG": ("mve-pendulum", "--algo.horizon", "0", "--train.total-steps", "5000"),
        }
    ),
    "imagined-naf": Experiment(
        {"imagined": ("imagined-naf-pendulum",), "NAF": ("imagined-naf-pendulum", *REAL)}
    ),
}

if __name__ == "__main__":
    main(HOMEWORK, PRESETS, EXPERIMENTS, Path(__file__).parent / "results")
