"""Stochastic shooting: search over whole sequences of controls, by the true dynamics f.

u_0, ..., u_{T-1} = argmin J,   J = sum_t c(x_t, u_t) + c_T(x_T),   x_{t+1} = f(x_t, u_t)

random shooting  the best of many sequences, uniform between the limits
CEM, MPPI        first controls + F z, z from a Gaussian that is refitted, or whose mean moves
CMA-ES           the same with a full covariance, one problem after the other

F interpolates between knots: what differs at every step averages out in the motion, so that white noise
explores little. All samples of all problems are simulated together. No gradient is needed, so f may make
contact; no feedback comes out, so under noise one replans.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from common.stochastic_search import cem, cma_es, mppi, random_shooting
from common.types import require, require_at_least, require_positive
from hw5_planning_control.planners import Plan, Planner, Task
from hw5_planning_control.recorder import record
from hw5_planning_control.tape import columns

Score = Callable[[Tensor], Tensor]  # z [..., N, d] -> -J [..., N]


@dataclass(frozen=True)
class RandomConfig:
    samples: int = 1000  # plans
    spacing: int = 5  # steps between the knots of the search; 1 searches every control on its own

    def __post_init__(self):
        require_at_least(self, 1, "samples", "spacing")


@dataclass(frozen=True)
class CEMConfig:
    iterations: int = 3  # refits per plan
    samples: int = 100  # plans per refit
    elites: int = 10  # best samples, to which the Gaussian is refitted
    std: float = 0.7  # of the first Gaussian, as a share of half the control's range
    alpha: float = 0.0  # weight of the old mean and variance in the new
    spacing: int = 5  # steps between the knots of the search; 1 searches every control on its own
    fresh: bool = False  # search around rest as well, where the last plan has led into a poor minimum

    def __post_init__(self):
        require_at_least(self, 1, "iterations", "samples", "elites", "spacing")
        require_positive(self, "std")
        ok = self.elites <= self.samples
        require(ok, f"elites must be at most samples = {self.samples}, got {self.elites}")
        require(0 <= self.alpha < 1, f"alpha must lie in [0, 1), got {self.alpha}")


@dataclass(frozen=True)
class MPPIConfig:
    iterations: int = 1  # moves of the mean per plan
    samples: int = 300  # plans per move
    std: float = 0.7  # of the samples, as a share of half the control's range
    temperature: float = 1.0  # in units of cost: what a sample may cost more and still count
    spacing: int = 5  # steps between the knots of the search; 1 searches every control on its own
    fresh: bool = False  # search around rest as well, where the last plan has led into a poor minimum

    def __post_init__(self):
        require_at_least(self, 1, "iterations", "samples", "spacing")
        require_positive(self, "std", "temperature")


@dataclass(frozen=True)
class CMAConfig:
    iterations: int = 20  # moves of the Gaussian per plan
    samples: int = 15  # plans per move
    std: float = 0.7  # of the first Gaussian, as a share of half the control's range
    spacing: int = 5  # steps between the knots of the search; 1 searches every control on its own

    def __post_init__(self):
        require_at_least(self, 1, "iterations", "spacing")
        require_at_least(self, 4, "samples")
        require_positive(self, "std")


ShootingConfig = RandomConfig | CEMConfig | MPPIConfig | CMAConfig


def random_planner(task: Task, config: RandomConfig, generator: torch.Generator) -> Planner:
    def search(score: Score, zero: Tensor) -> Tensor:
        low, high = zero + task.u_low, zero + task.u_high
        return random_shooting(score, low, high, config.samples, generator).best

    return search_planner(task, config.spacing, search, warm=False)


def cem_planner(task: Task, config: CEMConfig, generator: torch.Generator) -> Planner:
    c = config

    def search(score: Score, zero: Tensor) -> Tensor:
        std = c.std * half_range(task)
        return cem(score, zero, std, c.iterations, c.samples, c.elites, c.alpha, generator=generator).best

    return search_planner(task, c.spacing, search, fresh=c.fresh)


def mppi_planner(task: Task, config: MPPIConfig, generator: torch.Generator) -> Planner:
    c = config

    def search(score: Score, zero: Tensor) -> Tensor:
        std = c.std * half_range(task)
        return mppi(score, zero, std, c.temperature, c.iterations, c.samples, generator=generator).mean

    return search_planner(task, c.spacing, search, fresh=c.fresh)


def cma_planner(task: Task, config: CMAConfig, generator: torch.Generator) -> Planner:
    c = config

    def search(score: Score, zero: Tensor) -> Tensor:
        std = c.std * half_range(task)
        return cma_es(
            lambda z: score(z[:, None, None])[:, 0, 0],
            zero[0, 0],
            std,
            c.iterations,
            c.samples,
            generator=generator,
        ).best[None, None]

    alone = search_planner(task, c.spacing, search)

    def plan(x: Tensor, u: Tensor) -> Plan:
        plans = [alone(x[i : i + 1], u[i : i + 1]) for i in range(len(x))]
        return Plan(*(torch.cat(parts) for parts in zip(*plans, strict=True)))

    return plan


def search_planner(
    task: Task,
    spacing: int,
    search: Callable[[Score, Tensor], Tensor],
    warm: bool = True,
    fresh: bool = False,
) -> Planner:
    """`search(score, zero [S, N, d])` -> the best z [S, N, d], for controls F z around the first ones, or
    without `warm` around zero; with `fresh` around rest too, S = 2. The first controls stay if they win."""

    simulate = simulator(task)

    @torch.no_grad()
    def plan(x: Tensor, u: Tensor) -> Plan:
        N, T, m = u.shape
        require(T >= 1, f"u must hold at least one step [N, T, m], got {[N, T, m]}")
        F = interpolation(T, spacing)
        around = torch.stack([u * warm, torch.full_like(u, task.rest)][: 1 + fresh])  # [S, N, T, m]

        def controls(z: Tensor) -> Tensor:
            return (around + F @ z.unflatten(-1, (-1, m))).clamp(task.u_low, task.u_high)

        zero = u.new_zeros(len(around), N, F.shape[1] * m)
        found = controls(search(lambda z: -simulate(x, controls(z)), zero))
        found = torch.cat([u[None], found])
        best = simulate(x, found).nan_to_num(torch.inf).argmin(0)  # [N]
        found = found[best, torch.arange(N)]
        return Plan(rollout(task, x, found), found, u.new_zeros(N, T, m, task.n))

    return plan


def interpolation(T: int, spacing: int) -> Tensor:
    """F [T, knots]: linear interpolation between knots `spacing` steps apart; spacing 1 is the identity."""
    knots = -(-(T - 1) // spacing) + 1
    distance = torch.arange(T)[:, None] / spacing - torch.arange(knots)
    return (1 - distance.abs()).clamp(min=0).double()


def cost_of(task: Task, x: Tensor, u: Tensor) -> Tensor:
    """Of the controls u [..., N, T, m] from x [N, n] on: [..., N]"""
    x = rollout(task, x.expand(*u.shape[:-2], -1), u)
    return task.cost(x[..., :-1, :], u).sum(-1) + task.final_cost(x[..., -1, :])


def simulator(task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    """cost_of for one task: by the programs of its functions, where all have one."""
    x, u = torch.zeros(task.n, dtype=torch.float64), torch.full((task.m,), task.rest, dtype=torch.float64)
    step, cost, final_cost = record(task.step, x, u), record(task.cost, x, u), record(task.final_cost, x)
    if not (step and cost and final_cost):
        return partial(cost_of, task)

    def simulate(x: Tensor, u: Tensor) -> Tensor:
        lead, (T, m) = u.shape[:-2], u.shape[-2:]
        z = columns(x.expand(*lead, -1).numpy())
        total = np.zeros(lead)
        with np.errstate(all="ignore"):
            for u_t in u.reshape(-1, T * m).t().contiguous().numpy().reshape(T, m, *lead):
                total += cost.on_arrays([*z, *u_t])[0]
                z = step.on_arrays([*z, *u_t])
            return torch.from_numpy(total + final_cost.on_arrays(z)[0])

    return simulate


def rollout(task: Task, x: Tensor, u: Tensor) -> Tensor:
    """States [..., T+1, n] under u [..., T, m] from x [..., n] on."""
    states = [x]
    for u_t in u.unbind(-2):
        states.append(task.step(states[-1], u_t))
    return torch.stack(states, -2)


def half_range(task: Task) -> float:
    return (task.u_high - task.u_low) / 2
