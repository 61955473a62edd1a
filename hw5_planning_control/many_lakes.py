"""A lesson in which one network learns to act on many frozen lakes as a few teachers together do on each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from common.cli import RunOptions
from common.envs import registry
from common.evaluation import scores
from common.seeding import child_seed, generator
from common.types import Metrics, require_at_least, require_positive
from hw5_planning_control.distillation import DistillationConfig, Distilled, soft_targets
from hw5_planning_control.lakes import (
    expected_return,
    is_ice,
    maps_of,
    mdp_of,
    observations,
    q_values,
    tried,
)


@dataclass(frozen=True)
class ManyLakesConfig:
    student: DistillationConfig = field(default_factory=DistillationConfig)  # one for all lakes
    lakes: int = 8  # tasks: the environment's own map and random ones
    teachers: int = 5  # of every lake
    tries: int = 10  # of every action in every state, from which a teacher knows its lake
    value_unit: float = 0.01  # logits are Q-values in this unit

    def __post_init__(self):
        require_at_least(self, 1, "lakes", "teachers", "tries")
        require_positive(self, "value_unit")

    @property
    def rounds(self) -> int:
        return self.student.epochs


@dataclass(frozen=True)
class ExamConfig:
    evaluations: int = 10  # of the student while it learns; exact, so one episode per lake

    def __post_init__(self):
        require_at_least(self, 1, "evaluations")


class ManyLakes:
    def __init__(self, config: RunOptions):
        algo, seed = config.algo, config.seed
        env, random = registry.make_env(config.env_id), np.random.default_rng(child_seed(seed, "lakes"))
        maps, self.steps = maps_of(env, algo.lakes, random), gym.spec(config.env_id).max_episode_steps
        self.mdps = [mdp_of(lake) for lake in maps]
        self.x = torch.from_numpy(np.stack([observations(lake) for lake in maps]))  # [L, S, 2S]
        values = [
            [q_values(tried(mdp, algo.tries, random))[:-1] for mdp in self.mdps] for _ in range(algo.teachers)
        ]
        logits = torch.from_numpy(np.array(values)).float() / algo.value_unit  # [E, L, S, A]
        soft = soft_targets(logits, algo.student.temperature)
        self.best = self.grades(soft.argmax(-1))
        self.alone = np.mean([self.grades(one.argmax(-1)).mean() for one in logits])
        ice = torch.from_numpy(np.stack([is_ice(lake) for lake in maps]))
        self.data = self.x[ice], soft[ice]
        sizes = self.x.shape[-1], soft.shape[-1]
        self.student = Distilled(*sizes, algo.student, generator(seed, "student"))
        self.parts = {"student": self.student}
        self.epochs = algo.student.epochs
        self.every = max(self.epochs // config.train.evaluations, 1)

    def round(self, k: int) -> Iterator[tuple[str, Metrics]]:
        """One pass; an examination from time to time."""
        self.student.epoch(*self.data)
        if k % self.every and k != self.epochs:
            return
        with torch.no_grad():
            found = self.grades(self.student.network(self.x).argmax(-1))
        share = np.divide(found, self.best, out=np.ones_like(found), where=self.best > 0)
        told = {
            "teacher/return_mean": self.best.mean(),
            "teacher/alone_mean": self.alone,
            "policy/worst_share": share.min(),
        }
        told = {key: float(value) for key, value in told.items()}
        yield "eval", scores(found, np.full(len(found), float(self.steps))) | told

    def grades(self, choice: Tensor) -> np.ndarray:
        """Of the actions [L, S]: the return [L]."""
        each = zip(self.mdps, choice.numpy(), strict=True)
        return np.array([expected_return(mdp, actions, self.steps) for mdp, actions in each])

    @torch.no_grad()
    def act(self, obs: np.ndarray) -> np.ndarray:
        return self.student.network(self.x[0, torch.from_numpy(obs)]).argmax(-1).numpy()
