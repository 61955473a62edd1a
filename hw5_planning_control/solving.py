"""Runs of solvers that are no planners of the plan-execute loop: collocation on finer and finer grids, iLQR
among obstacles, and controllers improved from samples of the system alone.

Each takes the settings of its run and a logger, writes a row or two per round, and gives back the scores of
what it found as the environment plays it, and the controller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common import checkpoint
from common.cli import RunOptions
from common.envs import registry
from common.envs.control_tasks import TASKS, ControlTask
from common.evaluation import Act, evaluate, scores
from common.logger import RunLogger
from common.seeding import child_seed, generator
from common.types import Metrics, require, require_at_least, require_positive
from hw5_planning_control.collocation import collocate
from hw5_planning_control.constrained import TrajectoryConstraint, constrain_trajectory
from hw5_planning_control.derivatives import expand
from hw5_planning_control.ilqr import ilqr
from hw5_planning_control.local_models import LinearGaussian
from hw5_planning_control.lqr import lqr
from hw5_planning_control.lqr_flm import lqr_flm
from hw5_planning_control.planners import problem_of
from hw5_planning_control.problem import Solution, TrajectoryProblem
from hw5_planning_control.transcription import ContinuousProblem, Method


@dataclass(frozen=True)
class CollocationConfig:
    segments: tuple[int, ...] = (10, 20, 50, 100)  # of every grid, which starts from the solution on the last
    method: Method = "hermite-simpson"  # how states and controls run within a segment
    tolerance: float = 1e-8  # of the gradient and of the constraints
    iterations: int = 500  # of the solver on each grid, at most

    def __post_init__(self):
        ok = len(self.segments) > 0 and min(self.segments) >= 1
        require(ok, f"segments must be numbers of at least 1, got {self.segments}")
        require_positive(self, "tolerance")
        require_at_least(self, 1, "iterations")

    @property
    def rounds(self) -> int:
        return len(self.segments)


@dataclass(frozen=True)
class ObstacleConfig:
    margin: float = 0.1  # m that the plan keeps from every disc
    penalty: float = 1.0  # rho of the augmented Lagrangian at first
    growth: float = 4.0  # times which it grows where the violation hardly shrinks
    tolerance: float = 1e-6  # of the violation, m
    rounds: int = 20  # of the multipliers, at most

    def __post_init__(self):
        ok = math.isfinite(self.margin) and self.margin >= 0
        require(ok, f"margin must be finite and at least 0, got {self.margin}")
        require(1 <= self.growth < math.inf, f"growth must be at least 1, got {self.growth}")
        require_positive(self, "penalty", "tolerance")
        require_at_least(self, 1, "rounds")


@dataclass(frozen=True)
class TrackConfig:
    feedback: bool = True  # play the plan with LQR's gains along it


@dataclass(frozen=True)
class LearnConfig:
    explore: float = 0.3  # standard deviation of the first controls, as a share of half their range
    eval_episodes: int = 10  # of the last controller without its noise

    def __post_init__(self):
        require_at_least(self, 1, "eval_episodes")
        require_positive(self, "explore")


def solve_on_grids(config: RunOptions, logger: RunLogger) -> tuple[Metrics, Act]:
    """From the task's start to its goal, exactly, at the least running cost. The plan is then held piecewise
    constant, as the environment takes it."""
    task, algo, guess = TASKS[config.env_id], config.algo, None
    problem, duration = continuous(task), task.horizon * task.dt
    for k, N in enumerate(algo.segments, 1):
        found = collocate(problem, duration, N, algo.method, guess, algo.tolerance, algo.iterations)
        guess = found.interpolate
        logger.write("eval", k, planned(found.cost, task))
        told = {"segments": N, "iterations": found.iterations, "converged": float(found.converged)}
        told |= {"violation": found.violation}
        logger.write("train", k, {f"plan/{key}": value for key, value in told.items()})
    knots = task.dt * torch.arange(task.horizon + 1, dtype=torch.float64)
    x, u = guess(knots)[0], guess(knots[:-1] + task.dt / 2)[1].clamp(task.u_low, task.u_high)
    K = gains_along(task, x, u) * config.train.feedback
    checkpoint.save(logger.directory / "checkpoint", algo.rounds, x=x, u=u, K=K)
    controller = follow(task, x, u, K)
    return evaluate(
        controller, registry.make_envs(config.env_id, 1), child_seed(config.seed, "env")
    ), controller


def keep_clear(config: RunOptions, logger: RunLogger) -> tuple[Metrics, Act]:
    """Round the discs of the task: iLQR on the augmented Lagrangian, its multipliers raised from round to
    round."""
    task, algo, plans = TASKS[config.env_id], config.algo, []
    problem = problem_of(task, torch.tensor(task.start, dtype=torch.float64), task.horizon)

    def inside(x: Tensor, *u: Tensor) -> Tensor:
        return algo.margin - task.system.clearance(x)

    def solve(augmented: TrajectoryProblem, u: Tensor) -> Solution:
        plans.append(ilqr(augmented, u))
        return plans[-1]

    rest = torch.full((task.horizon, task.m), task.rest, dtype=torch.float64)
    constraint = TrajectoryConstraint(inside, inside)
    settings = (algo.penalty, algo.growth, algo.tolerance, algo.rounds)
    solution = constrain_trajectory(problem, constraint, rest, solve, *settings)
    for k, plan in enumerate(plans, 1):
        logger.write("eval", k, planned(float(problem.total_cost(plan.x, plan.u)), task))
        told = {"violation": solution.violation[k - 1], "iterations": plan.iterations}
        told |= {"clearance": float(task.system.clearance(plan.x).min())}  # m
        logger.write("train", k, {f"plan/{key}": float(value) for key, value in told.items()})
    x, u, K = solution.x.x, solution.x.u, gains_along(task, solution.x.x, solution.x.u)
    checkpoint.save(logger.directory / "checkpoint", algo.rounds, x=x, u=u, K=K)
    controller = follow(task, x, u, K * config.train.feedback)
    envs = registry.make_envs(config.env_id, 1)
    return evaluate(controller, envs, child_seed(config.seed, "env")), controller


def continuous(task: ControlTask) -> ContinuousProblem:
    """The task in continuous time. What it costs to miss the goal becomes a constraint."""
    x0, goal = (torch.tensor(point, dtype=torch.float64) for point in (task.start, task.goal))
    return ContinuousProblem(
        task.system.dynamics,
        lambda x, u: task.cost(x, u) / task.dt,
        x0,
        task.m,
        x_final=goal,
        u_low=task.u_low,
        u_high=task.u_high,
    )


def gains_along(task: ControlTask, x: Tensor, u: Tensor) -> Tensor:
    """K [T, m, n]: LQR's for small deviations from x [T+1, n], u [T, m]."""
    e = expand(problem_of(task, x[0], task.horizon), x, u)
    return lqr(e.F, torch.zeros_like(x[1:]), e.C, torch.zeros_like(e.c), e.C_final).K


def learn_from_samples(config: RunOptions, logger: RunLogger) -> tuple[Metrics, Act]:
    """Linear-Gaussian controllers around the trajectories that they lead to. The learner runs the system,
    but knows only its cost; controls beyond the limits are cut off."""
    task, algo, train = TASKS[config.env_id], config.algo, config.train
    T, n, m = task.horizon, task.n, task.m
    x0 = torch.tensor(task.start, dtype=torch.float64)
    width = train.explore * (task.u_high - task.u_low) / 2
    covariance = width**2 * torch.eye(m, dtype=x0.dtype).expand(T, m, m)
    first = LinearGaussian(x0.new_zeros(T, m, n), x0.new_full((T, m), task.rest), covariance)
    problem = TrajectoryProblem(task.step, task.cost, task.final_cost, x0, T)

    def run(x: Tensor, u: Tensor) -> Tensor:
        return task.step(x, u.clamp(task.u_low, task.u_high))

    solution = lqr_flm(problem, first, algo, generator(config.seed, "samples"), run)
    for k, cost in enumerate(solution.cost):
        logger.write("eval", k, planned(cost, task))
    for k, (kl, eta) in enumerate(zip(solution.kl, solution.eta, strict=True), 1):
        logger.write("train", k, {"policy/kl": kl, "policy/eta": eta})
    p = solution.controller
    checkpoint.save(logger.directory / "checkpoint", algo.rounds, K=p.K, k=p.k)
    controller = follow(task, x0.new_zeros(T + 1, n), p.k, p.K)
    envs = registry.make_envs(config.env_id, train.eval_episodes)
    envs.set_attr("spread", algo.start_std)
    return evaluate(controller, envs, child_seed(config.seed, "eval")), controller


def planned(cost: float, task: ControlTask) -> Metrics:
    """An evaluation of one plan, by its cost."""
    return scores(np.array([-cost]), np.array([float(task.horizon)]))


def follow(task: ControlTask, x: Tensor, u: Tensor, K: Tensor) -> Act:
    """u_t + K_t (x - x_t) at the time t that is observed: x [T+1, n], u [T, m], K [T, m, n]."""

    def act(obs: np.ndarray) -> np.ndarray:
        t = np.rint(obs[:, -1] * task.horizon).astype(int)  # [N]
        deviation = task.state(obs) - x[t]
        return task.action(u[t] + (K[t] @ deviation[..., None])[..., 0])

    return act
