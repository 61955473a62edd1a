"""A lesson in which a network learns what a planner finds, by tree search or model-predictive control."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from common.cli import RunOptions
from common.envs import registry
from common.envs.control_tasks import task_of
from common.evaluation import Act, evaluate
from common.seeding import child_seed, generator
from common.types import Metrics, require_at_least
from hw5_planning_control.planner_imitation import Pairs, Student, StudentConfig, dagger
from hw5_planning_control.shooting import CEMConfig, cem_planner
from hw5_planning_control.tree_policy import MCTSConfig, model_of, tree_policy


@dataclass(frozen=True)
class ImitateConfig:
    planner: MCTSConfig | CEMConfig  # who is asked
    student: StudentConfig = field(default_factory=StudentConfig)  # who learns
    rounds: int = 5  # of seeing and fitting; in the first the planner plays
    steps: int = 40  # per round, of every environment

    def __post_init__(self):
        require_at_least(self, 1, "rounds", "steps")


@dataclass(frozen=True)
class PupilConfig:
    num_envs: int = 10  # episodes side by side
    horizon: int = 30  # steps that MPC plans ahead; tree search has its own
    eval_episodes: int = 20  # of the network alone after every round

    def __post_init__(self):
        require_at_least(self, 1, "num_envs", "horizon", "eval_episodes")


class Imitation:
    """A network that answers what tree search or MPC would find. Both play the same episodes in the end, and
    both are timed on one observation at a time."""

    def __init__(self, config: RunOptions):
        self.algo, train, seed = config.algo, config.train, config.seed
        envs = registry.make_envs(config.env_id, train.num_envs)
        self.exams, self.seed = registry.make_envs(config.env_id, train.eval_episodes), seed
        self.student = Student(registry.spec(envs), self.algo.student, generator(seed, "student"))
        self.act = self.student.act
        self.planner, chance = planner_of(config)
        pairs = Pairs(chance)
        self.parts = {"student": self.student, "pairs": pairs}
        told = dagger(self.student, self.planner, envs, pairs, self.algo.steps, child_seed(seed, "env"))
        self.told = told  # begins when it is first asked, then from `pairs`

    def round(self, k: int) -> Iterator[tuple[str, Metrics]]:
        yield "train", next(self.told)
        yield "eval", self.exam(self.act)
        if k == self.algo.rounds:
            obs, _ = self.exams.reset(seed=child_seed(self.seed, "eval"))
            speed = {
                "speed/planner_us": microseconds(self.planner, obs),
                "speed/network_us": microseconds(self.act, obs),
            }
            yield "train", speed | {"plan/return_mean": self.exam(self.planner)["return_mean"]}

    def exam(self, act: Act) -> Metrics:
        return evaluate(act, self.exams, child_seed(self.seed, "eval"))


def planner_of(config: RunOptions) -> tuple[Act, torch.Generator | np.random.Generator]:
    """Search or MPC as a function of what is seen, and what it draws from; nothing else is kept from the step
    before."""
    settings, seed = config.algo.planner, child_seed(config.seed, "plan")
    if isinstance(settings, MCTSConfig):
        chance = np.random.default_rng(seed)
        return tree_policy(*model_of(registry.make_env(config.env_id)), settings, chance), chance
    task, chance = task_of(config.env_id), torch.Generator().manual_seed(seed)
    plan = cem_planner(task, settings, chance)

    def act(obs: np.ndarray) -> np.ndarray:
        x = task.state(obs)
        rest = torch.full((len(x), config.train.horizon, task.m), task.rest, dtype=torch.float64)
        return task.action(plan(x, rest).u[:, 0])

    return act, chance


def microseconds(act: Act, obs: np.ndarray) -> float:
    """Median time of one action: obs [N, D], one after the other."""
    times = []
    for i in range(len(obs)):
        start = time.perf_counter()
        act(obs[i : i + 1])
        times.append(time.perf_counter() - start)
    return 1e6 * float(np.median(times))
