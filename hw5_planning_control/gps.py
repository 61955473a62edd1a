"""Guided policy search: planners teach one policy, and bend towards what it can imitate (named by Levine and
Koltun 2013; as constrained trajectory optimisation, as here, Mordatch and Todorov 2014).

min_{tau_i, theta} sum_i c(tau_i)   s.t.   u_it = pi_theta(x_it, t)   for every start i and step t
L = sum_i c(tau_i) + sum_it lambda_it'(u_it - pi(x_it, t)) + rho/2 |u_it - pi(x_it, t)|^2

1. tau_i <- argmin L           iLQR, all starts side by side
2. theta <- argmin L           supervised: pi(x, t) towards u + lambda_it / rho
3. lambda_it <- lambda_it + rho (u_it - pi(x_it, t))

The teacher adapts to the learner: a control that no policy of the class can mimic costs in step 1. Step 2
sees not the plan alone but a tube around it, runs of p_i(u|x) = N(u^ + K (x - x^), noise^2 Q_uu^-1) from
nearby starts, and so learns the feedback as well. Cloning is step 2 alone, on the plans of the cost itself:
where these differ from start to start without need, the policy learns their mean, which is no plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from common.networks import mlp, require_hidden
from common.optim import Adam, gradient_step
from common.types import require, require_at_least, require_positive
from hw5_planning_control.ilqr import ILQRConfig, ilqr
from hw5_planning_control.local_models import root
from hw5_planning_control.problem import Solution, TrajectoryProblem
from hw5_planning_control.small_matrices import dot, mv

StatePolicy = Callable[[Tensor, Tensor], Tensor]  # x [..., n], t/T [..., 1] -> u [..., m]


@dataclass(frozen=True)
class GPSConfig:
    rounds: int = 20  # of steps 1 to 3
    adapt: bool = True  # False: step 2 alone, cloning of the first plans
    rho: float = 0.1  # weight of the squared residual
    rho_growth: float = 1.1  # factor of rho per round
    rho_max: float = 10.0  # where its growth ends
    plan_steps: int = 5  # accepted steps of iLQR per round
    first_plan_steps: int = 200  # and before the first round, of the cost alone
    policy_steps: int = 300  # gradient steps of the policy per round
    lr: float = 3e-3  # learning rate of Adam, linearly to zero within a round
    samples: int = 8  # runs of every teacher for step 2, beside the plan itself
    spread: float = 0.2  # deviation of their starts from the plan's
    noise: float = 0.0  # of their controls, in units of Q_uu^-1/2
    weight: Literal["unit", "Q_uu"] = "unit"  # of the squared errors in step 2: Q_uu is what they cost
    hidden: tuple[int, ...] = (32, 32)  # units per layer of the policy

    def __post_init__(self):
        require_at_least(self, 1, "rounds", "plan_steps", "policy_steps")
        require_at_least(self, 0, "first_plan_steps", "samples", "spread", "noise")
        require_positive(self, "rho", "rho_growth", "rho_max", "lr")
        require(self.weight in ("unit", "Q_uu"), f"weight must be unit or Q_uu, got {self.weight!r}")
        require_hidden(self.hidden)


class TimedPolicy(nn.Module):
    """u = u_middle + u_half net(x, sin x, cos x, t/T), what goes in by its mean and deviation over `x`."""

    def __init__(
        self,
        x: Tensor,
        u_middle: Tensor,
        u_half: Tensor,
        hidden: tuple[int, ...],
        generator: torch.Generator,
    ):
        super().__init__()
        features = self.features(x).flatten(0, -2)
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("std", features.std(0).clamp(min=1e-6))
        self.register_buffer("u_middle", u_middle)
        self.register_buffer("u_half", u_half)
        sizes = features.shape[-1] + 1, *hidden, len(u_middle)
        self.net = mlp(*sizes, generator=generator, last_gain=0.1).to(x)

    @staticmethod
    def features(x: Tensor) -> Tensor:
        """[..., n] -> [..., 3n]: a sine and a cosine tell where an angle is, whatever its turns."""
        return torch.cat([x, x.sin(), x.cos()], -1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x [..., n], t/T [..., 1] -> [..., m], not clipped."""
        features = (self.features(x) - self.mean) / self.std
        return self.u_middle + self.u_half * self.net(torch.cat([features, 2 * t - 1], -1))


class Round(NamedTuple):
    """What one round left behind."""

    residual: float  # root mean square of u - pi(x, t) along the plans
    plan_cost: float  # mean over the starts, the cost alone
    policy_cost: float  # mean over the starts of the policy itself
    multiplier: float  # root mean square of lambda


class GuidedPolicySearch:
    def __init__(
        self,
        problem: TrajectoryProblem,
        policy: nn.Module,
        plan: Solution,
        config: GPSConfig,
        generator: torch.Generator,
    ):
        """From plans of the cost alone. problem.x0 [N, n] holds the starts; `policy`, a StatePolicy with
        parameters, is changed in place."""
        require(problem.x0.ndim == 2, f"x0 must be [N, n], the starts, got {list(problem.x0.shape)}")
        self.problem, self.policy, self.config, self.generator = problem, policy, config, generator
        self.optimizer = Adam(policy.parameters(), config.lr)
        self.plan, self.multiplier, self.rho = plan, torch.zeros_like(plan.u), config.rho
        self.begun = False

    def round(self) -> Round:
        """Steps 1 to 3; before the first the policy clones the plans."""
        c, problem, policy = self.config, self.problem, self.policy
        if not self.begun:
            self.clone()
            self.begun = True
        if c.adapt:
            held = lagrangian(problem, frozen(policy), self.multiplier, self.rho)
            self.plan = ilqr(held, self.plan.u, ILQRConfig(iterations=c.plan_steps))  # 1
        self.clone(self.multiplier / self.rho)  # 2
        with torch.no_grad():
            gap = self.plan.u - policy(self.plan.x[:, :-1], times(problem))
        if c.adapt:
            self.multiplier = self.multiplier + self.rho * gap  # 3
        costs = (problem.total_cost(self.plan.x, self.plan.u), play(problem, policy))
        self.rho = max(self.rho, min(self.rho * c.rho_growth, c.rho_max))
        return Round(_rms(gap), *(cost.mean().item() for cost in costs), _rms(self.multiplier))

    def clone(self, shift: Tensor | float = 0.0) -> None:
        """Step 2: least squares of pi(x, t) to u + shift over the tubes, shift [N, T, m] = lambda / rho."""
        c = self.config
        x, u = tube(self.problem, self.plan, c, self.generator)  # [1 + samples, N, ...]
        target, t = u + shift, times(self.problem).expand(len(x), -1, -1, -1)
        parameters = [*self.policy.parameters()]
        for k in range(c.policy_steps):
            self.optimizer.param_groups[0]["lr"] = c.lr * (1 - k / c.policy_steps)
            error = self.policy(x, t) - target
            loss = imitation_loss(error, self.plan.Q_uu, c.weight)
            gradient_step(loss, self.optimizer, parameters, torch.inf)


def lagrangian(
    problem: TrajectoryProblem, policy: StatePolicy, multiplier: Tensor, rho: float
) -> TrajectoryProblem:
    """The problem whose cost is L, with multiplier [N, T, m]."""
    rows = nn.functional.pad(multiplier, (0, 0, 0, 1))  # the last state has no control
    t = nn.functional.pad(times(problem), (0, 0, 0, 1), value=1.0)

    def cost(x: Tensor, u: Tensor, *args: Tensor) -> Tensor:
        *args, multiplier, t = args
        gap = u - policy(x, t)
        return problem.cost(x, u, *args) + multiplier @ gap + 0.5 * rho * gap @ gap

    return problem.with_cost(cost, (rows, t))


def times(problem: TrajectoryProblem) -> Tensor:
    """t/T of every start and step: [N, T, 1]"""
    x0, T = problem.x0, problem.horizon
    return (torch.arange(T, dtype=x0.dtype)[:, None] / T).expand(len(x0), T, 1)


def imitation_loss(error: Tensor, Q_uu: Tensor, weight: str) -> Tensor:
    """Mean of e'We over all errors [..., N, T, m]; W is 1 (cloning's loss) or Q_uu [N, T, m, m] over its mean
    diagonal, up to a factor and a constant KL(N(pi, .) || N(u, Q_uu^-1))."""
    if weight == "unit":
        return error.square().mean()
    mean = Q_uu.diagonal(dim1=-2, dim2=-1).mean()
    return dot(error, mv(Q_uu / mean, error)).mean() / error.shape[-1]


@torch.no_grad()
def tube(
    problem: TrajectoryProblem, plan: Solution, config: GPSConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """x [1 + samples, N, T, n] and what the teachers do there but for their noise [1 + samples, N, T, m]. The
    first of each is the plan."""
    xs, us = [plan.x[:, :-1]], [plan.u]
    step, deviation = vmap(problem.dynamics), config.noise * root(torch.linalg.inv(plan.Q_uu))
    for _ in range(config.samples):
        x = problem.x0 + config.spread * _normal(problem.x0, generator)
        states, controls = [], []
        for t in range(problem.horizon):
            states.append(x)
            controls.append(problem.clip(plan.u[:, t] + mv(plan.K[:, t], x - plan.x[:, t])))
            noise = mv(deviation[:, t], _normal(controls[-1], generator))
            x = step(x, problem.clip(controls[-1] + noise), *problem.args_at(t))
        xs.append(torch.stack(states, 1))
        us.append(torch.stack(controls, 1))
    return torch.stack(xs), torch.stack(us)


@torch.no_grad()
def play(problem: TrajectoryProblem, policy: StatePolicy) -> Tensor:
    """The cost [N] of the policy from every start, its controls clipped to the limits."""
    x, xs, us, step = problem.x0, [problem.x0], [], vmap(problem.dynamics)
    for k, t in enumerate(times(problem).unbind(1)):
        us.append(problem.clip(policy(x, t)))
        x = step(x, us[-1], *problem.args_at(k))
        xs.append(x)
    return problem.total_cost(torch.stack(xs, 1), torch.stack(us, 1))


def frozen(policy: nn.Module) -> StatePolicy:
    """The policy as a function of its inputs: it is not differentiated by its parameters."""
    parameters = {name: parameter.detach() for name, parameter in policy.named_parameters()}
    return lambda x, t: functional_call(policy, parameters, (x, t))


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)


def _rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()
