"""python -m hw2_policy_gradient.experiments [NAME...] --seeds 0 1 2: every curve of this homework."""

from __future__ import annotations

from pathlib import Path

from common.sweep import Experiment, main
from hw2_policy_gradient.run import HOMEWORK, PRESETS

FIVE, TEN = tuple(range(5)), tuple(range(10))
EXPERIMENTS = {
    "cartpole": Experiment(
        {
            "ppo": ("ppo-cartpole",),
            "actor-critic": ("actor-critic-cartpole",),
            "reinforce": ("reinforce-cartpole",),
        },
        TEN,
    ),
    "trustregion": Experiment(
        {
            "npg": ("npg-cartpole",),
            "trpo": ("trpo-cartpole",),
            "ppo-penalty": ("ppo-penalty-cartpole",),
        },
        FIVE,
    ),
    "parallel": Experiment({"a2c": ("a2c-cartpole",), "a3c": ("a3c-cartpole",)}, FIVE),
    "online": Experiment(
        {
            "online actor-critic": ("online-actor-critic-cartpole",),
            # As V's errors are large beside log pi's, they move a trunk of both too much at the usual 0.5.
            "a2c, shared trunk": ("a2c-cartpole", "--algo.shared", "--algo.value-weight", "0.1"),
        }
    ),
    # What a second worker brings: seconds to compare, so run it with --jobs 1 and on idle cores.
    "workers": Experiment(
        {
            "a3c, 1 worker": ("a3c-cartpole", "--algo.workers", "1"),
            "a3c, 2 workers": ("a3c-cartpole", "--algo.workers", "2"),
        },
    ),
    # One step of the lecture at a time: nothing, causality, the average as baseline, V as baseline.
    "baselines": Experiment(
        {
            "total return": (
                "reinforce-cartpole",
                "--algo.weight",
                "total-return",
                "--algo.baseline",
                "none",
            ),
            "reward-to-go": ("reinforce-cartpole", "--algo.baseline", "none"),
            "average baseline": ("reinforce-cartpole", "--algo.baseline", "average"),
            "optimal baseline": ("reinforce-cartpole", "--algo.baseline", "optimal"),
            "learned baseline": ("reinforce-cartpole",),
            "GAE": ("actor-critic-cartpole",),
        },
        FIVE,
    ),
    # The velocities are hidden: a policy of the last observation cannot know them, one that remembers can.
    "memory": Experiment(
        {
            "recurrent ppo": ("recurrent-ppo-cartpole",),
            "ppo": ("ppo-cartpole", "--env-id", "course/CartPoleNoVelocity-v0"),
        },
        FIVE,
    ),
    "evolution": Experiment({"es": ("es-cartpole",), "cma-es": ("cma-es-cartpole",)}, FIVE),
    "offpolicy": Experiment({"off-policy actor-critic": ("off-policy-actor-critic-cartpole",)}),
    "invertedpendulum": Experiment({"actor-critic": ("actor-critic-invertedpendulum",)}, FIVE),
    "pendulum": Experiment({"ppo": ("ppo-pendulum",)}, FIVE),
    "acrobot": Experiment({"trpo": ("trpo-acrobot",)}, FIVE),
    "lunarlander": Experiment(
        {"ppo": ("ppo-lunarlander",), "trpo": ("trpo-lunarlander",), "a2c": ("a2c-lunarlander",)}
    ),
    "halfcheetah": Experiment({"ppo": ("ppo-halfcheetah",), "trpo": ("trpo-halfcheetah",)}, FIVE),
    "hopper": Experiment({"ppo": ("ppo-hopper",), "trpo": ("trpo-hopper",)}),
    # The trap: with the usual discount the return of a whole stroke is out of sight.
    "swimmer": Experiment(
        {
            "ppo": ("ppo-swimmer",),
            "gamma 0.99": ("ppo-swimmer", "--algo.gamma", "0.99", "--train.total-steps", "300000"),
            "cma-es": ("cma-es-swimmer",),
        }
    ),
}

if __name__ == "__main__":
    main(HOMEWORK, PRESETS, EXPERIMENTS, Path(__file__).parent / "results")
