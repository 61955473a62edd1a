"""A lesson in which one policy is made of local ones, each for a part of the starts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.cli import RunOptions
from common.envs import lob, registry
from common.envs.control_tasks import TASKS, ControlTask
from common.evaluation import scores
from common.seeding import generator
from common.types import Metrics, require, require_at_least
from hw5_planning_control.divide_and_conquer import DivideAndConquer, Policies, divide
from hw5_planning_control.episodes import Arena, play


@dataclass(frozen=True)
class StartsConfig:
    spread: float = 1.0  # deviation of every start from the task's, in each entry of the state
    eval_episodes: int = 256  # of the one policy, from starts of their own

    def __post_init__(self):
        require_at_least(self, 1, "eval_episodes")
        require(0 <= self.spread < math.inf, f"spread must be finite and at least 0, got {self.spread}")


class Conquest:
    def __init__(self, config: RunOptions):
        self.algo, train, seed = config.algo, config.train, config.seed
        self.arena = arena_of(config.env_id, train.spread)
        self.exam = self.arena.starts(train.eval_episodes, generator(seed, "eval"))
        divide(self.exam, 1, self.algo.axis)  # refuses an axis that the state has not
        spec = registry.spec(registry.make_envs(config.env_id, 1))
        self.center = Policies(1, spec.obs_dim, spec.action_dim, self.algo, generator(seed, "policy"))
        random = generator(seed, "actions"), generator(seed, "starts")
        self.learner = DivideAndConquer(self.center, self.algo, *random)
        self.parts = {"policies": self.learner}

    def round(self, k: int) -> Iterator[tuple[str, Metrics]]:
        """One batch; an evaluation whenever the policy has been distilled."""
        yield "train", self.learner.round(self.arena)
        if k % self.algo.distil_every == 0 or k == self.algo.rounds:
            found = play(self.arena, self.center, self.exam)
            yield "eval", scores(found, np.full(len(found), float(self.arena.steps)))

    @torch.no_grad()
    def act(self, obs: np.ndarray) -> np.ndarray:
        return self.center(torch.from_numpy(obs).float()[None]).mean[0].clamp(-1, 1).numpy()


def arena_of(env_id: str, spread: float) -> Arena:
    """The environment's equations for many episodes at once; starts `spread` around a control task's own."""
    if env_id == "course/Lob-v0":

        def throws(count: int, random: torch.Generator) -> Tensor:
            return lob.REACH * (2 * torch.rand(count, 1, generator=random, dtype=torch.float64) - 1)

        return Arena(
            throws,
            lambda x, action, t: (x, lob.reward(x[..., 0], action.double().clamp(-1, 1))),
            lambda x, t: (x / lob.WALL).float(),
            1,
        )
    task = TASKS.get(env_id)
    ok = isinstance(task, ControlTask)
    require(ok, f"env_id must be course/Lob-v0 or a task with a horizon, as course/..., got {env_id}")
    middle, half = (task.u_high + task.u_low) / 2, (task.u_high - task.u_low) / 2
    start = torch.tensor(task.start, dtype=torch.float64)

    def starts(count: int, random: torch.Generator) -> Tensor:
        return start + spread * torch.randn(count, task.n, generator=random, dtype=torch.float64)

    def step(x: Tensor, action: Tensor, t: int) -> tuple[Tensor, Tensor]:
        u = middle + half * action.double().clamp(-1, 1)
        cost, x = task.cost(x, u), task.step(x, u)
        return x, -(cost + task.final_cost(x) if t + 1 == task.horizon else cost)

    def observe(x: Tensor, t: int) -> Tensor:
        return torch.cat([x, torch.full_like(x[..., :1], t / task.horizon)], -1).float()

    return Arena(starts, step, observe, task.horizon)
