"""Trust region policy optimisation (Schulman et al. 2015).

max_theta L(theta) = E[r A]  subject to  E[KL(pi_old || pi_theta)] <= eps,  r = pi_theta(a|s) / pi_old(a|s)
theta = theta_old + beta^k alpha F^-1 g: the natural step, shortened until the true KL, not its second-order
model, keeps the bound and the true L, not its slope, has not fallen.
A = GAE(gamma, lam), V fitted to A + V.  No gradient flows through A, pi_old or the targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from common.types import Metrics, require, require_at_least
from hw2_policy_gradient.natural_gradient import (
    NaturalGradient,
    NaturalGradientConfig,
    fisher,
    natural_step,
    policy_gradient,
)


@dataclass(frozen=True)
class TRPOConfig(NaturalGradientConfig):
    shrink: float = 0.8  # beta, what a refused step is multiplied by
    backtracks: int = 10  # refusals before the policy stays as it is

    def __post_init__(self):
        super().__post_init__()
        require(0 < self.shrink < 1, f"shrink must lie in (0, 1), got {self.shrink}")
        require_at_least(self, 0, "backtracks")


def line_search(
    measure: Callable[[Tensor], tuple[float, float]],
    theta: Tensor,
    step: Tensor,
    max_kl: float,
    shrink: float,
    backtracks: int,
) -> tuple[Tensor, float, float, int]:
    """The first theta' = theta + shrink^k step, k = 0 ... backtracks, that may be taken; its KL, its gain, k.

    measure(theta') gives KL(theta || theta'), to be at most max_kl, and the gain L(theta') - L(theta), to be
    at least 0 and finite; NaN is neither. Where no k will do: theta itself, 0, 0, backtracks + 1.
    """
    for k in range(backtracks + 1):
        candidate = theta + shrink**k * step
        kl, gain = measure(candidate)
        if kl <= max_kl and 0 <= gain < math.inf:  # a ratio may overflow
            return candidate, kl, gain, k
    return theta, 0.0, 0.0, backtracks + 1


class TRPO(NaturalGradient):
    """The natural gradient but for its step: max_kl is what no step exceeds."""

    def actor_step(self, obs: Tensor, action: Tensor, advantage: Tensor) -> Metrics:
        c, parameters, max_kl = self.config, [*self.policy.parameters()], self.max_kl(self.updates)
        gradient = policy_gradient(self.policy, obs, action, advantage)
        step = natural_step(gradient, fisher(self.policy, obs, c.damping), max_kl, c.cg_iterations)
        with torch.no_grad():
            pi_old = self.policy(obs).frozen()
            log_prob_old = pi_old.log_prob(action)

            def measure(theta: Tensor) -> tuple[float, float]:
                vector_to_parameters(theta, parameters)
                pi = self.policy(obs)
                ratio = (pi.log_prob(action) - log_prob_old).exp()
                return pi_old.kl(pi).mean().item(), ((ratio - 1) * advantage).mean().item()

            theta = parameters_to_vector(parameters)
            theta, kl, gain, k = line_search(measure, theta, step, max_kl, c.shrink, c.backtracks)
            vector_to_parameters(theta, parameters)  # the last one measured may have been refused
            return {
                "grad/norm": gradient.norm().item(),
                "policy/kl": kl,
                "policy/improvement": gain,
                "policy/backtracks": k,
                "policy/entropy": self.policy(obs).entropy().mean().item(),
            }
