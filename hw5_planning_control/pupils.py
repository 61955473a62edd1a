"""Runs in which a network learns what others know: a planner, an ensemble of teachers, its own local parts.

Each takes the settings of its run and a logger, writes a row or two per round, and gives back the last
evaluation and the network as a policy of the environment.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from common import checkpoint
from common.cli import RunOptions
from common.envs import lob, registry
from common.envs.control_tasks import TASKS, ControlTask, task_of
from common.evaluation import Act, evaluate, scores
from common.logger import RunLogger
from common.seeding import child_seed, generator
from common.types import Metrics, require, require_at_least, require_positive
from hw5_planning_control import divide_and_conquer as parts
from hw5_planning_control.distillation import DistillationConfig, distill, soft_targets
from hw5_planning_control.episodes import Arena, play
from hw5_planning_control.lakes import (
    expected_return,
    is_ice,
    maps_of,
    mdp_of,
    observations,
    q_values,
    tried,
)
from hw5_planning_control.planner_imitation import Student, StudentConfig, dagger
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


@dataclass(frozen=True)
class StartsConfig:
    spread: float = 1.0  # deviation of every start from the task's, in each entry of the state
    eval_episodes: int = 256  # of the one policy, from starts of their own

    def __post_init__(self):
        require_at_least(self, 1, "eval_episodes")
        require(0 <= self.spread < math.inf, f"spread must be finite and at least 0, got {self.spread}")


def imitate(config: RunOptions, logger: RunLogger) -> tuple[Metrics, Act]:
    """A network that answers what tree search or MPC would find. Both play the same episodes in the end, and
    both are timed on one observation at a time."""
    algo, train, seed = config.algo, config.train, config.seed
    envs = registry.make_envs(config.env_id, train.num_envs)
    eval_envs = registry.make_envs(config.env_id, train.eval_episodes)
    planner = planner_of(config)
    student = Student(registry.spec(envs), algo.student, generator(seed, "student"))
    lessons = dagger(student, planner, envs, algo.rounds, algo.steps, child_seed(seed, "env"))
    for k, told in enumerate(lessons, 1):
        logger.write("train", k, told)
        found = evaluate(student.act, eval_envs, child_seed(seed, "eval"))
        logger.write("eval", k, found)
    obs, _ = eval_envs.reset(seed=child_seed(seed, "eval"))
    speed = {
        "speed/planner_us": microseconds(planner, obs),
        "speed/network_us": microseconds(student.act, obs),
    }
    best = evaluate(planner, eval_envs, child_seed(seed, "eval"))
    logger.write("train", algo.rounds, speed | {"plan/return_mean": best["return_mean"]})
    checkpoint.save(logger.directory / "checkpoint", algo.rounds, student=student.network.state_dict())
    return found, student.act


def planner_of(config: RunOptions) -> Act:
    """Search or MPC as a function of what is seen, with nothing kept from the step before."""
    settings, seed = config.algo.planner, child_seed(config.seed, "plan")
    if isinstance(settings, MCTSConfig):
        model = model_of(registry.make_env(config.env_id))
        return tree_policy(*model, settings, np.random.default_rng(seed))
    task = task_of(config.env_id)
    plan = cem_planner(task, settings, torch.Generator().manual_seed(seed))

    def act(obs: np.ndarray) -> np.ndarray:
        x = task.state(obs)
        rest = torch.full((len(x), config.train.horizon, task.m), task.rest, dtype=torch.float64)
        return task.action(plan(x, rest).u[:, 0])

    return act


def microseconds(act: Act, obs: np.ndarray) -> float:
    """Median time of one action: obs [N, D], one after the other."""
    times = []
    for i in range(len(obs)):
        start = time.perf_counter()
        act(obs[i : i + 1])
        times.append(time.perf_counter() - start)
    return 1e6 * float(np.median(times))


def master_lakes(config: RunOptions, logger: RunLogger) -> tuple[Metrics, Act]:
    """One network that acts on many lakes as an ensemble of teachers does on each."""
    algo, seed = config.algo, config.seed
    env, random = registry.make_env(config.env_id), np.random.default_rng(child_seed(seed, "lakes"))
    maps, steps = maps_of(env, algo.lakes, random), gym.spec(config.env_id).max_episode_steps
    mdps = [mdp_of(lake) for lake in maps]
    x = torch.from_numpy(np.stack([observations(lake) for lake in maps]))  # [L, S, 2S]
    values = [[q_values(tried(mdp, algo.tries, random))[:-1] for mdp in mdps] for _ in range(algo.teachers)]
    logits = torch.from_numpy(np.array(values)).float() / algo.value_unit  # [E, L, S, A]
    soft = soft_targets(logits, algo.student.temperature)

    def grades(choice: Tensor) -> np.ndarray:
        """Of the actions [L, S]: the return [L]."""
        return np.array([expected_return(*each, steps) for each in zip(mdps, choice.numpy(), strict=True)])

    best = grades(soft.argmax(-1))
    alone = np.mean([grades(one.argmax(-1)).mean() for one in logits])
    every = max(algo.student.epochs // config.train.evaluations, 1)

    @torch.no_grad()
    def note(epoch: int, student: nn.Sequential) -> None:
        if epoch % every and epoch != algo.student.epochs:
            return
        found = grades(student(x).argmax(-1))
        share = np.divide(found, best, out=np.ones_like(found), where=best > 0)
        told = {
            "teacher/return_mean": best.mean(),
            "teacher/alone_mean": alone,
            "policy/worst_share": share.min(),
        }
        logger.write("train", epoch, {key: float(value) for key, value in told.items()})
        logger.write("eval", epoch, scores(found, np.full(len(found), float(steps))))

    ice = torch.from_numpy(np.stack([is_ice(lake) for lake in maps]))
    student = distill(x[ice], soft[ice], algo.student, generator(seed, "student"), note)
    checkpoint.save(logger.directory / "checkpoint", algo.rounds, student=student.state_dict())

    @torch.no_grad()
    def act(obs: np.ndarray) -> np.ndarray:
        return student(x[0, torch.from_numpy(obs)]).argmax(-1).numpy()

    return logger.last_eval, act


def conquer(config: RunOptions, logger: RunLogger) -> tuple[Metrics, Act]:
    """One policy from local ones; a row per round, an evaluation whenever it has been distilled."""
    algo, train, seed = config.algo, config.train, config.seed
    arena = arena_of(config.env_id, train.spread, generator(seed, "starts"))
    envs_spec = registry.spec(registry.make_envs(config.env_id, 1))
    center = parts.Policies(1, envs_spec.obs_dim, envs_spec.action_dim, algo, generator(seed, "policy"))
    exam = arena_of(config.env_id, train.spread, generator(seed, "eval")).starts(train.eval_episodes)
    for k, told in enumerate(parts.train(arena, center, algo, generator(seed, "actions")), 1):
        logger.write("train", k, told)
        if k % algo.distil_every == 0 or k == algo.rounds:
            found = play(arena, center, exam)
            logger.write("eval", k, scores(found, np.full(len(found), float(arena.steps))))
    checkpoint.save(logger.directory / "checkpoint", algo.rounds, policy=center.state_dict())

    @torch.no_grad()
    def act(obs: np.ndarray) -> np.ndarray:
        return center(torch.from_numpy(obs).float()[None]).mean[0].clamp(-1, 1).numpy()

    return logger.last_eval, act


def arena_of(env_id: str, spread: float, random: torch.Generator) -> Arena:
    """The environment's equations for many episodes at once; starts `spread` around a control task's own."""
    if env_id == "course/Lob-v0":
        return Arena(
            lambda count: lob.REACH * (2 * torch.rand(count, 1, generator=random, dtype=torch.float64) - 1),
            lambda x, action, t: (x, lob.reward(x[..., 0], action.double().clamp(-1, 1))),
            lambda x, t: (x / lob.WALL).float(),
            1,
        )
    task = TASKS.get(env_id)
    ok = isinstance(task, ControlTask)
    require(ok, f"env_id must be course/Lob-v0 or a task with a horizon, as course/..., got {env_id}")
    middle, half = (task.u_high + task.u_low) / 2, (task.u_high - task.u_low) / 2
    start = torch.tensor(task.start, dtype=torch.float64)

    def starts(count: int) -> Tensor:
        return start + spread * torch.randn(count, task.n, generator=random, dtype=torch.float64)

    def step(x: Tensor, action: Tensor, t: int) -> tuple[Tensor, Tensor]:
        u = middle + half * action.double().clamp(-1, 1)
        cost, x = task.cost(x, u), task.step(x, u)
        return x, -(cost + task.final_cost(x) if t + 1 == task.horizon else cost)

    def observe(x: Tensor, t: int) -> Tensor:
        return torch.cat([x, torch.full_like(x[..., :1], t / task.horizon)], -1).float()

    return Arena(starts, step, observe, task.horizon)
