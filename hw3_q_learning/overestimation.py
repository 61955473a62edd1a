"""How much too high DQN's values are, and how much double DQN's (van Hasselt et al. 2016, figure 3).

python -m hw3_q_learning.overestimation [--steps 20000] [--seeds 0 1 2 3 4] [--csv overestimation.csv]

value    mean over states of max_a Q(s, a)
return   mean over the same states of sum_k gamma^k r_{t+k} of the greedy policy of the same Q

Pendulum-v1 with TORQUES constant torques to choose from: many actions of nearly one value, and no reward
above zero, so that a value above zero is wrong whatever the policy. The states are those of greedy episodes,
as far as HEAD steps from their start: from there to the time limit, after which nothing is counted, the
pendulum stands and gamma^k has fallen to gamma^100 = 0.13.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Discrete
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers.vector import TransformAction
from matplotlib.axes import Axes

from common import device
from common.envs import registry
from common.replay import Replay
from common.rollout import Collector
from common.seeding import child_seed, generator
from common.types import require
from hw3_q_learning.dqn import DQN, DQNConfig

CPU = torch.device("cpu")
TORQUES = 25
HEAD, LIMIT = 100, 200  # steps of an episode that are looked at, and of a whole one
EVERY, ROUND, BATCH = 2_000, 4, 128  # steps between measurements, steps per round, transitions per update
STARTS, EPISODES = 1_000, 20  # random steps at first, episodes per measurement
VARIANTS = {"dqn": False, "double dqn": True}


class Row(NamedTuple):
    algo: str
    seed: int
    step: int  # of the environment
    value: float
    monte_carlo: float


def make_envs(num_envs: int) -> gym.vector.VectorEnv:
    """Action i is a torque of -1 + 2 i / (TORQUES - 1) times the largest."""
    torques, action = np.linspace(-1, 1, TORQUES, dtype=np.float32)[:, None], Discrete(TORQUES)
    envs = registry.make_envs("Pendulum-v1", num_envs)
    return TransformAction(envs, torques.__getitem__, batch_space(action, num_envs), action)


def discounted(reward: np.ndarray, ended: np.ndarray, gamma: float) -> np.ndarray:
    """sum_k gamma^k r_{t+k} to the end of each episode: [T, N], [T, N] -> [T, N]."""
    total, after = np.zeros(reward.shape), np.zeros(reward.shape[1])
    for t in reversed(range(len(reward))):
        after = total[t] = reward[t] + gamma * after * ~ended[t]
    return total


def measure(agent: DQN, envs: gym.vector.VectorEnv, gamma: float, seed: int) -> tuple[float, float]:
    """(value, return) over the first episode of each environment."""
    collector = Collector(envs, CPU)
    collector.reset(seed, 0)
    rollout, _ = collector.collect(lambda obs, step: agent.act(obs), LIMIT)
    ended = rollout.ended.numpy()
    first = (ended.cumsum(0) - ended == 0)[:HEAD]
    with torch.no_grad():
        value = agent.values(rollout.obs[:HEAD].flatten(0, 1)).amax(1).view(first.shape).numpy()
    returns = discounted(rollout.reward.numpy(), ended, gamma)[:HEAD]
    return float(value[first].mean()), float(returns[first].mean())


def learn(name: str, seed: int, steps: int) -> list[Row]:
    """The course of one run, the target copied every 100 updates as in the paper's larger experiment."""
    envs, many = make_envs(1), make_envs(EPISODES)
    config = DQNConfig(
        gamma=0.98,
        lr=1e-3,
        lr_decay=False,
        hidden=(128, 128),
        double=VARIANTS[name],
        target_period=100,
        tau=1.0,
    )
    agent = DQN(registry.spec(envs), config, steps // ROUND, CPU, seed)
    replay, draws = Replay(steps, registry.spec(envs), CPU), generator(seed, "replay")
    collector, rows = Collector(envs, CPU), []
    collector.reset(child_seed(seed, "env"), 0)
    while collector.step < steps:
        replay.add_rollout(collector.collect(agent.explore, ROUND)[0])
        for _ in range(ROUND if collector.step >= STARTS else 0):
            agent.update(replay.sample(BATCH, draws))
        if collector.step % EVERY == 0:
            found = measure(agent, many, config.gamma, child_seed(seed, "measure", collector.step))
            rows.append(Row(name, seed, collector.step, *found))
    return rows


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows((*row[:3], *(f"{x:.3f}" for x in row[3:])) for row in rows)


def read_csv(path: Path) -> list[Row]:
    """What write_csv wrote."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    require(bool(rows) and tuple(rows[0]) == Row._fields, f"path must be a CSV of {','.join(Row._fields)}")
    return [Row(name, int(k), int(t), *map(float, x)) for name, k, t, *x in map(dict.values, rows)]


def draw(axes: Axes, rows: Sequence[Row]) -> None:
    """Means over seeds, values solid, returns dashed; thin lines are seeds."""
    seeds, steps = (list(dict.fromkeys(getattr(row, key) for row in rows)) for key in ("seed", "step"))
    for i, name in enumerate(dict.fromkeys(row.algo for row in rows)):
        found = np.array([row[3:] for row in rows if row.algo == name]).reshape(len(seeds), len(steps), 2)
        for lines, style, what in ((found[..., 0], "-", "value"), (found[..., 1], "--", "return")):
            axes.plot(steps, lines.T, f"C{i}{style}", lw=0.5, alpha=0.5)
            axes.plot(steps, lines.mean(0), f"C{i}{style}", lw=2, label=f"{name}, its {what}")
    axes.axhline(0, color="gray", lw=1)
    axes.set(xlabel="environment steps", ylabel="discounted sum of rewards", ylim=(-75, None))
    axes.set_title(f"Pendulum-v1, {TORQUES} torques")
    axes.legend()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m hw3_q_learning.overestimation", description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000, help="environment steps of each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="one run each")
    parser.add_argument("--csv", type=Path, default=Path("overestimation.csv"), help="where the numbers go")
    args = parser.parse_args(argv)
    device.setup("cpu", threads=1)
    try:
        require(args.steps >= EVERY, f"steps must be at least {EVERY}, got {args.steps}")
        require(min(args.seeds) >= 0, f"seeds must not be negative, got {min(args.seeds)}")
        args.csv.parent.mkdir(parents=True, exist_ok=True)
        args.csv.open("a").close()  # it can be written: better known now than after the runs
        rows = [row for seed in args.seeds for name in VARIANTS for row in learn(name, seed, args.steps)]
        write_csv(args.csv, rows)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for name in VARIANTS:
        last = [row for row in rows if row.algo == name and row.step > args.steps / 2]
        value, monte_carlo = (np.mean([getattr(row, key) for row in last]) for key in Row._fields[3:])
        print(f"{name}: value {value:.1f}, return {monte_carlo:.1f}, second half of the runs")
    print(args.csv)


if __name__ == "__main__":
    main()
