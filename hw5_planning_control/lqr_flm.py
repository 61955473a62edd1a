"""LQR with fitted local models (Levine and Abbeel 2014): better controllers of a system that can only be run.

Repeat:
1. run p(u|x) = N(K_t x + k_t, Sigma_t) for N trajectories
2. fit p(x'|x, u) = N(F_t z + f_t, noise_t) to them at every step, with a mixture of all data so far as prior
3. expand the cost to second order around their mean
4. p <- argmin_p E_p[c]  s.t.  KL(p(tau) || p_old(tau)) <= epsilon
The bound keeps the new trajectories where the model was fitted; without it step 4 trusts the lines far away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from common.envs.linear_quadratic import LinearQuadratic
from common.types import require, require_at_least, require_positive
from hw5_planning_control.derivatives import gradient_and_hessian
from hw5_planning_control.gaussian_mixture import fit_mixture
from hw5_planning_control.kl_trajectory import kl_step
from hw5_planning_control.local_models import LinearGaussian, fit_linear_gaussian
from hw5_planning_control.lqr import mv
from hw5_planning_control.problem import TrajectoryProblem


@dataclass(frozen=True)
class FLMConfig:
    rounds: int = 10  # improvements of the controller
    samples: int = 20  # trajectories per round
    epsilon: float = 10.0  # nats per trajectory by which one round may move
    start_std: float = 0.01  # deviation of every start from x0, without which its slope is unknown
    components: int = 4  # Gaussians of the prior; 0 fits without prior
    prior_samples: float = 1.0  # as many samples of each step is the prior worth

    def __post_init__(self):
        require_at_least(self, 1, "rounds", "samples")
        require_at_least(self, 0, "components")
        require_positive(self, "epsilon", "prior_samples")
        require(0 <= self.start_std < torch.inf, f"start_std must be at least 0, got {self.start_std}")


class FLMSolution(NamedTuple):
    controller: LinearGaussian
    cost: list[float]  # mean of the trajectories of each round, and of the last controller
    kl: list[float]  # nats, of each round; 0 where no step met the bound and the controller stayed
    eta: list[float]


def lqr_flm(
    problem: TrajectoryProblem,
    p: LinearGaussian,
    config: FLMConfig,
    generator: torch.Generator,
    step: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> FLMSolution:
    """From the controller p, for one problem without args and limits. step(x [N, n], u [N, m]) -> x' [N, n],
    the real system, is by default the problem's dynamics; it is not differentiated."""
    ok = problem.x0.ndim == 1 and not problem.args and not problem.limited
    require(ok, "problem must be a single one, without args and limits")
    step = step or vmap(problem.dynamics)
    costs, kls, etas, seen = [], [], [], []

    def run() -> tuple[Tensor, Tensor]:
        normal = torch.randn(config.samples, len(problem.x0), generator=generator, dtype=problem.x0.dtype)
        x, u = p.run(step, problem.x0 + config.start_std * normal, generator)
        costs.append(problem.total_cost(x.movedim(0, 1), u.movedim(0, 1)).mean().item())
        return x, u

    for _ in range(config.rounds):
        x, u = run()
        data, prior = (x[:-1], u, x[1:]), None
        if config.components:
            seen.append(torch.cat(data, -1).flatten(0, 1))
            prior = fit_mixture(torch.cat(seen), config.components, generator).prior(
                *data, config.prior_samples
            )
        F, f, noise = fit_linear_gaussian(*data, prior)
        cost = quadratic_cost(problem, x.mean(1), u.mean(1))
        x0_cov = config.start_std**2 * torch.eye(x.shape[-1], dtype=x.dtype)
        new = kl_step(LinearQuadratic(F, f, *cost, noise, problem.x0), p, config.epsilon, x0_cov)
        p = new.controller if new.converged else p
        kls.append(new.kl.item() if new.converged else 0.0)
        etas.append(new.eta.item())
    run()
    return FLMSolution(p, costs, kls, etas)


def quadratic_cost(problem: TrajectoryProblem, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """C, c, C_final, c_final around x [T+1, n], u [T, m], in z itself: c(z) = 1/2 z'Cz + z'c + const."""
    z, last = torch.cat([x[:-1], u], -1), x[-1:]
    c, C = gradient_and_hessian(problem.cost, x[:-1], u)
    c_final, C_final = gradient_and_hessian(lambda x, _: problem.final_cost(x), last, last[:, :0])
    return C, c - mv(C, z), C_final[0], (c_final - mv(C_final, last))[0]
