"""Lessons in which planners teach a network: a policy of the state by guided policy search, and by that one
a policy of pixels. lesson_trainer.py goes through their rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from common.cli import RunOptions
from common.envs import registry
from common.envs.control_tasks import TASKS, ControlTask, random_controls
from common.evaluation import evaluate
from common.seeding import child_seed, generator
from common.types import Metrics, require, require_at_least
from hw5_planning_control.gps import GPSConfig, GuidedPolicySearch, Round, TimedPolicy
from hw5_planning_control.ilqr import ILQRConfig, ilqr
from hw5_planning_control.input_remapping import Camera, PixelPolicy, StateTeacher
from hw5_planning_control.planners import problem_of
from hw5_planning_control.plato import Arena, Plato, PlatoConfig


@dataclass(frozen=True)
class TeachConfig:
    starts: int = 24  # problems solved side by side, whose plans are taught
    spread: float = 0.2  # deviation of every start from the task's, in each entry of the state
    eval_episodes: int = 32  # from starts that were not taught

    def __post_init__(self):
        require_at_least(self, 1, "starts", "eval_episodes")
        require(0 <= self.spread < math.inf, f"spread must be finite and at least 0, got {self.spread}")


@dataclass(frozen=True)
class RemapConfig:
    teacher: GPSConfig = field(default_factory=GPSConfig)  # of states
    pupil: PlatoConfig = field(default_factory=lambda: PlatoConfig(plays="dagger"))  # of pixels

    def __post_init__(self):
        ok = self.pupil.plays != "plato"
        require(ok, "pupil.plays must be dagger or teacher: only a teacher that plans can mind its pupil")

    @property
    def rounds(self) -> int:
        return self.teacher.rounds + self.pupil.rounds


class PolicyController:
    """A policy u = pi(x, t/T) of N environments that show [x; t/T]."""

    def __init__(self, policy: Callable[[Tensor, Tensor], Tensor], task: ControlTask):
        self.policy, self.task = policy, task

    @torch.no_grad()
    def __call__(self, obs: np.ndarray) -> np.ndarray:
        u = self.policy(self.task.state(obs), torch.from_numpy(obs[:, -1:]))
        return self.task.action(u.clamp(self.task.u_low, self.task.u_high))


class Guidance:
    """One policy of the state, guided by a plan from every start."""

    def __init__(self, config: RunOptions):
        self.search, self.exam = search_of(config, config.algo), examination(config)
        self.parts = {"search": self.search}
        self.act = PolicyController(self.search.policy, TASKS[config.env_id])

    def round(self, k: int) -> Iterator[tuple[str, Metrics]]:
        taught = self.search.round()
        yield "train", told(taught)
        yield "eval", self.exam(self.search.policy) | {"policy/residual": taught.residual}


def told(taught: Round) -> Metrics:
    row = {"policy/residual": taught.residual, "policy/multiplier": taught.multiplier}
    return row | {"policy/cost": taught.policy_cost, "plan/cost": taught.plan_cost}


def search_of(config: RunOptions, algo: GPSConfig) -> GuidedPolicySearch:
    """Guided policy search on the task of `config`, planned for but not begun."""
    task, starts, seed = TASKS[config.env_id], config.train.starts, config.seed
    envs = registry.make_envs(config.env_id, starts)
    envs.set_attr("spread", config.train.spread)
    obs, _ = envs.reset(seed=child_seed(seed, "env"))
    problem = problem_of(task, task.state(obs), task.horizon)
    u_init = random_controls(task, starts, 0.1, seed)
    plan = ilqr(problem, u_init, ILQRConfig(iterations=algo.first_plan_steps, tolerance=0.1))
    middle, half = (u_init.new_full((task.m,), 0.5 * (task.u_high + s * task.u_low)) for s in (1, -1))
    random = generator(seed, "policy")
    policy = TimedPolicy(plan.x, middle, half, algo.hidden, random)
    return GuidedPolicySearch(problem, policy, plan, algo, random)


class Remapping:
    """A policy of the pendulum's state as above, then one of its pictures that is taught by it."""

    def __init__(self, config: RunOptions):
        self.task, self.algo, self.train = TASKS[config.env_id], config.algo, config.train
        self.search, self.exam = search_of(config, self.algo.teacher), examination(config)
        self.camera = Camera(self.task.dt, self.task.horizon)
        random = generator(config.seed, "pupil")
        self.plato = Plato(PixelPolicy(self.camera.size, self.task.u_high, random), self.algo.pupil, random)
        self.parts = {"teacher": self.search, "pupil": self.plato}
        self.act = PolicyController(self.sees, self.task)
        self.best: Metrics = {}  # the teacher's scores

    def sees(self, x: Tensor, t: Tensor) -> Tensor:
        return self.plato.pupil(self.camera(x, round(self.task.horizon * t[0].item())))

    def round(self, k: int) -> Iterator[tuple[str, Metrics]]:
        if k <= self.algo.teacher.rounds:
            yield "train", told(self.search.round())
            return
        teacher, task = self.search.policy, self.task
        self.best = self.best or self.exam(teacher)
        self.plato.round(self.arena(), StateTeacher(teacher, task.horizon, task.u_high))
        yield "eval", self.exam(self.sees) | {"teacher/return_mean": self.best["return_mean"]}

    def arena(self) -> Arena:
        task, train = self.task, self.train

        def starts(random: torch.Generator) -> Tensor:
            noise = torch.randn(train.starts, task.n, generator=random, dtype=torch.float64)
            return torch.tensor(task.start, dtype=torch.float64) + train.spread * noise

        return Arena(
            starts,
            lambda x, u: task.step(x, u.clamp(task.u_low, task.u_high)),
            self.camera,
            lambda x: torch.zeros(len(x), dtype=torch.bool),
            task.horizon,
        )


def examination(config: RunOptions) -> Callable[[Callable[[Tensor, Tensor], Tensor]], Metrics]:
    """Plays a policy of the task from starts that were not taught, the same ones every time."""
    task, envs = TASKS[config.env_id], registry.make_envs(config.env_id, config.train.eval_episodes)
    envs.set_attr("spread", config.train.spread)
    return lambda policy: evaluate(PolicyController(policy, task), envs, child_seed(config.seed, "eval"))
