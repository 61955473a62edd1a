"""Runs in which planners teach a network: a policy of the state by guided policy search, and by that one a
policy of pixels.

Each takes the settings of its run and a logger, writes a row or two per round, and gives back the last
evaluation and the network as a policy of the environment.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from common import checkpoint
from common.cli import RunOptions
from common.envs import registry
from common.envs.control_tasks import TASKS, ControlTask, random_controls
from common.evaluation import Act, evaluate
from common.logger import RunLogger
from common.seeding import child_seed, generator
from common.types import Metrics, require, require_at_least
from hw5_planning_control import plato
from hw5_planning_control.gps import GPSConfig, Round, TimedPolicy, guided_policy_search
from hw5_planning_control.ilqr import ILQRConfig, ilqr
from hw5_planning_control.input_remapping import Camera, PixelPolicy, StateTeacher
from hw5_planning_control.planners import problem_of
from hw5_planning_control.plato import Arena, Episodes, PlatoConfig


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
    pupil: PlatoConfig = field(default_factory=PlatoConfig)  # of pixels

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


def guide(config: RunOptions, logger: RunLogger) -> tuple[Metrics, Act]:
    """One policy of the state, guided by a plan from every start."""
    exam, rounds = examination(config), []

    def note(policy: TimedPolicy, row: Metrics) -> None:
        rounds.append(exam(policy) | {"policy/residual": row["policy/residual"]})
        logger.write("train", len(rounds), row)
        logger.write("eval", len(rounds), rounds[-1])

    policy = state_policy(config, config.algo, note)
    checkpoint.save(logger.directory / "checkpoint", len(rounds), policy=policy.state_dict())
    return rounds[-1], PolicyController(policy, TASKS[config.env_id])


def state_policy(
    config: RunOptions, algo: GPSConfig, on_round: Callable[[TimedPolicy, Metrics], None]
) -> TimedPolicy:
    """What guided policy search makes of the task of `config`."""
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

    def note(r: Round) -> None:
        row = {"policy/residual": r.residual, "policy/multiplier": r.multiplier, "policy/cost": r.policy_cost}
        on_round(policy, row | {"plan/cost": r.plan_cost})

    guided_policy_search(problem, policy, plan, algo, random, note)
    return policy


def remap(config: RunOptions, logger: RunLogger) -> tuple[Metrics, Act]:
    """A policy of the pendulum's state as above, then one of its pictures that is taught by it."""
    task, algo, seed = TASKS[config.env_id], config.algo, config.seed
    exam, rounds = examination(config), []
    steps = iter(range(1, algo.rounds + 1))
    teacher = state_policy(config, algo.teacher, lambda _, row: logger.write("train", next(steps), row))
    best = exam(teacher)
    camera = Camera(task.dt, task.horizon)
    random = generator(seed, "pupil")
    pupil = PixelPolicy(camera.size, task.u_high, random)

    def sees(x: Tensor, t: Tensor) -> Tensor:
        return pupil(camera(x, round(task.horizon * t[0].item())))

    def starts(random: torch.Generator) -> Tensor:
        noise = torch.randn(config.train.starts, task.n, generator=random, dtype=torch.float64)
        return torch.tensor(task.start, dtype=torch.float64) + config.train.spread * noise

    def note(taught: Episodes) -> None:
        rounds.append(exam(sees) | {"teacher/return_mean": best["return_mean"]})
        logger.write("eval", next(steps), rounds[-1])

    arena = Arena(
        starts,
        lambda x, u: task.step(x, u.clamp(task.u_low, task.u_high)),
        camera,
        lambda x: torch.zeros(len(x), dtype=torch.bool),
        task.horizon,
    )
    plato.train(
        arena, lambda: StateTeacher(teacher, task.horizon, task.u_high), pupil, algo.pupil, random, note
    )
    networks = {"teacher": teacher.state_dict(), "pupil": pupil.state_dict()}
    checkpoint.save(logger.directory / "checkpoint", algo.rounds, **networks)
    return rounds[-1], PolicyController(sees, task)


def examination(config: RunOptions) -> Callable[[Callable[[Tensor, Tensor], Tensor]], Metrics]:
    """Plays a policy of the task from starts that were not taught, the same ones every time."""
    task, envs = TASKS[config.env_id], registry.make_envs(config.env_id, config.train.eval_episodes)
    envs.set_attr("spread", config.train.spread)
    return lambda policy: evaluate(PolicyController(policy, task), envs, child_seed(config.seed, "eval"))
