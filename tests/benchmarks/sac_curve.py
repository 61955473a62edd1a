"""SAC of Stable-Baselines3 on HalfCheetah-v5, with the settings of sac-halfcheetah, by the clock.

python -m tests.benchmarks.sac_curve [--seed 0] [--steps 100000] [--csv sac_of_sb3.csv]
Seconds are those of one thread, evaluations left out; nothing else should run beside it.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.callbacks import BaseCallback

from common.envs import registry
from common.evaluation import evaluate
from common.results import COLUMNS, write_csv
from common.seeding import child_seed
from hw3_q_learning.run import PRESETS

PRESET = PRESETS["sac-halfcheetah"]


class Evaluations(BaseCallback):
    def __init__(self, every: int, seed: int):
        super().__init__()
        self.every, self.seed, self.rows, self.evaluating = every, seed, [], 0.0
        self.envs = registry.make_envs(PRESET.env_id, PRESET.train.eval_episodes)
        self.begin = time.perf_counter()

    def act(self, obs: np.ndarray) -> np.ndarray:
        return self.model.predict(obs, deterministic=True)[0]

    def _on_step(self) -> bool:
        if self.num_timesteps % self.every == 0:
            before = time.perf_counter()
            seed = child_seed(self.seed, "eval", self.num_timesteps)
            found = evaluate(self.act, self.envs, seed)["return_mean"]
            wall = before - self.begin - self.evaluating
            self.rows.append(
                ("SAC of Stable-Baselines3", PRESET.env_id, self.seed, self.num_timesteps, found, wall)
            )
            self.evaluating += time.perf_counter() - before
            print(f"step {self.num_timesteps}  return {found:.1f}  {wall:.0f} s", flush=True)
        return True


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sac_curve", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=PRESET.train.total_steps)
    parser.add_argument(
        "--every", type=int, default=PRESET.train.eval_every, help="steps between evaluations"
    )
    parser.add_argument("--csv", type=Path, default=Path("sac_of_sb3.csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    algo, train = PRESET.algo, PRESET.train
    model = sb3.SAC(
        "MlpPolicy",
        PRESET.env_id,
        learning_rate=algo.lr,
        buffer_size=train.capacity,
        learning_starts=train.learning_starts,
        batch_size=train.batch_size,
        tau=algo.tau,
        gamma=algo.gamma,
        target_entropy=algo.target_entropy,
        policy_kwargs={"net_arch": list(algo.hidden)},
        device="cpu",
        seed=args.seed,
    )
    evaluations = Evaluations(args.every, args.seed)
    model.learn(args.steps, callback=evaluations)
    write_csv(args.csv, np.array(evaluations.rows, COLUMNS).view(np.recarray))


if __name__ == "__main__":
    main()
