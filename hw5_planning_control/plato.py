"""PLATO: a teacher that stays close to its pupil (Kahn, Zhang, Levine and Abbeel 2017).

The teacher plans by MPC with the full state x; the pupil N(mu_theta(o), sigma^2) sees the observation o. At
every step the teacher solves
  min_{u_t .. u_{t+H}} sum c(x, u) + lambda KL(N(u_t, sigma^2) || N(mu_theta(o_t), sigma^2)),
where the KL is |u_t - mu_theta(o_t)|^2 / (2 sigma^2), and plays u_t. What is learned is u* at the states
that were visited, the plan's first control without the KL.

lambda = 0 clones the teacher on the teacher's own states. A mixture that lets the pupil play with probability
1 - beta is DAgger (Ross et al. 2011): the pupil's states, with the pupil's crashes. Here the pupil is
followed where that costs little and overruled where it is dear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from common.optim import Adam, gradient_step
from common.types import require, require_at_least, require_positive, require_unit
from hw5_planning_control.ilqr import ILQRConfig, ilqr
from hw5_planning_control.problem import TrajectoryProblem


class Arena(NamedTuple):
    """Where the pupil learns: N episodes of T steps side by side."""

    starts: Callable[[torch.Generator], Tensor]  # x_0 [N, n]
    step: Callable[[Tensor, Tensor], Tensor]  # x [N, n], u [N, m] -> x' [N, n]
    observe: Callable[[Tensor, int], Tensor]  # x [N, n], t -> o [N, D]
    crashed: Callable[[Tensor], Tensor]  # x [N, n] -> [N] bool; such an episode is over
    steps: int  # T


@dataclass(frozen=True)
class PlatoConfig:
    plays: Literal["plato", "dagger", "teacher"] = "plato"  # who acts while data are collected
    rounds: int = 10  # of playing and learning
    weight: float = 1.0  # lambda / sigma^2, how much the teacher minds the pupil
    beta: float = 0.5  # of DAgger: the teacher acts with probability beta^round, 0 is in the first alone
    learning_steps: int = 500  # gradient steps per round, on all data so far
    batch_size: int = 256  # states per gradient step
    lr: float = 3e-3  # learning rate of Adam, linearly to zero within a round

    def __post_init__(self):
        names = ("plato", "dagger", "teacher")
        require(self.plays in names, f"plays must be one of {', '.join(names)}, got {self.plays!r}")
        require_at_least(self, 1, "rounds", "learning_steps", "batch_size")
        require_at_least(self, 0, "weight")
        require_unit(self, "beta")
        require_positive(self, "lr")


class MPC:
    """The teacher of N episodes: iLQR from x to the horizon of `problem`, warm from step to step."""

    def __init__(self, problem: TrajectoryProblem, u_init: Tensor, config: ILQRConfig):
        """u_init [N, H, m]. problem.x0 does not matter."""
        self.problem, self.u, self.config = problem, u_init, config

    def plan(self, x: Tensor) -> Tensor:
        """u* [N, m]; the plan is where the next ones begin."""
        u = torch.cat([self.u[:, 1:], self.u[:, -1:]], 1)
        self.u = ilqr(replace(self.problem, x0=x), u, self.config).u
        return self.u[:, 0]

    def follow(self, x: Tensor, mu: Tensor, weight: float) -> Tensor:
        """The first control [N, m] of the plan that minds the pupil's wish mu [N, m]. After `plan`."""
        return ilqr(mindful(replace(self.problem, x0=x), mu, weight), self.u, self.config).u[:, 0]


def mindful(problem: TrajectoryProblem, mu: Tensor, weight: float) -> TrajectoryProblem:
    """The problem with weight/2 |u_0 - mu|^2 added to its cost; mu [N, m]."""
    N, m = mu.shape
    wish, now = mu.new_zeros(N, problem.horizon + 1, m), mu.new_zeros(N, problem.horizon + 1)
    wish[:, 0], now[:, 0] = mu, weight

    def cost(x: Tensor, u: Tensor, *args: Tensor) -> Tensor:
        *args, wish, now = args
        return problem.cost(x, u, *args) + 0.5 * now * (u - wish).square().sum()

    return problem.with_cost(cost, (wish, now))


class Episodes(NamedTuple):
    x: Tensor  # [M, n] of all steps before a crash
    obs: Tensor  # [M, D] what was seen there
    label: Tensor  # [M, m] what the teacher would do there
    alive: Tensor  # [N] steps until the crash, T without one
    crashed: Tensor  # [N] bool


@torch.no_grad()
def play(
    arena: Arena,
    act: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor | None]],
    generator: torch.Generator,
) -> Episodes:
    """One batch of episodes. act(x, o, t) gives the control [N, m] that is played and the label [N, m]."""
    x = arena.starts(generator)
    alive, running = torch.zeros(len(x), dtype=torch.int64), ~arena.crashed(x)
    rows = []
    for t in range(arena.steps):
        obs = arena.observe(x, t)
        u, label = act(x, obs, t)
        rows.append((x[running], obs[running], label[running]))
        x = torch.where(running[:, None], arena.step(x, u), x)
        alive += running
        running = running & ~arena.crashed(x)
        if not running.any():
            break
    return Episodes(*map(torch.cat, zip(*rows, strict=True)), alive, ~running)


def learn(
    pupil: nn.Module,
    optimizer: torch.optim.Optimizer,
    obs: Tensor,
    label: Tensor,
    config: PlatoConfig,
    generator: torch.Generator,
) -> None:
    """Least squares of mu_theta(o) to u*: obs [M, D], label [M, m]."""
    parameters = [*pupil.parameters()]
    for k in range(config.learning_steps):
        optimizer.param_groups[0]["lr"] = config.lr * (1 - k / config.learning_steps)
        rows = torch.randint(len(obs), (config.batch_size,), generator=generator)
        loss = (pupil(obs[rows]) - label[rows]).square().mean()
        gradient_step(loss, optimizer, parameters, torch.inf)


def behaviour(
    teacher: MPC, pupil: nn.Module, config: PlatoConfig, i: int, generator: torch.Generator
) -> Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]:
    """Who acts in round i, and what the teacher would do."""

    def act(x: Tensor, obs: Tensor, t: int) -> tuple[Tensor, Tensor]:
        label = teacher.plan(x)
        if i == 0 or config.plays == "teacher":
            return label, label
        mu = pupil(obs)
        if config.plays == "plato":
            return teacher.follow(x, mu, config.weight), label
        taught = torch.rand(len(mu), 1, generator=generator) < config.beta**i
        return torch.where(taught, label, mu), label

    return act


class Plato:
    """The pupil, a network o [..., D] -> mu [..., m], and all that it has been taught."""

    def __init__(self, pupil: nn.Module, config: PlatoConfig, generator: torch.Generator):
        self.pupil, self.config, self.generator = pupil, config, generator
        self.optimizer = Adam(pupil.parameters(), config.lr)
        self.observations, self.labels = [], []  # of every round
        self.crashes = 0  # while it was taught

    def round(self, arena: Arena, teacher: MPC) -> Episodes:
        """A batch of episodes, the first the teacher's own, then learning from all. `teacher` is new."""
        act = behaviour(teacher, self.pupil, self.config, len(self.labels), self.generator)
        taught = play(arena, act, self.generator)
        self.observations.append(taught.obs)
        self.labels.append(taught.label)
        self.crashes += int(taught.crashed.sum())
        data = torch.cat(self.observations), torch.cat(self.labels)
        learn(self.pupil, self.optimizer, *data, self.config, self.generator)
        return taught


def alone(arena: Arena, pupil: nn.Module, generator: torch.Generator) -> Episodes:
    """The pupil by itself; its labels are what it did."""
    return play(arena, lambda x, obs, t: (u := pupil(obs), u), generator)
