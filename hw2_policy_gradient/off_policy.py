"""The policy gradient of pi_theta' from trajectories of another policy pi_theta, by importance sampling.

rho_t = pi_theta'(a_t|s_t) / pi_theta(a_t|s_t); what the dynamics contribute to p_theta'/p_theta cancels.
per trajectory  E[(prod_t rho_t) (sum_t grad log pi(a_t|s_t)) (sum_t r_t)]
per decision    E[sum_t grad log pi(a_t|s_t) sum_{t'>=t} (prod_{t''<=t'} rho_t'') r_t'] (Precup et al. 2000)
first order     E[sum_t grad log pi(a_t|s_t) rho_t sum_{t'>=t} r_t'], biased: states as pi_theta met them and
                rewards as it went on to earn; the error vanishes with theta' - theta
Each function returns the weight of grad log pi_theta'(a_t|s_t), [T, N], which carries no gradient. Arguments
as in returns.py; log_ratio [T, N] is log rho_t. A product of T ratios has a variance that grows exponentially
in T, and an infinite one where pi_theta takes too rarely what pi_theta' takes often.
"""

from __future__ import annotations

import torch
from torch import Tensor

from common.types import require
from hw2_policy_gradient.returns import reward_to_go, total_return


def per_trajectory_weight(
    reward: Tensor, log_ratio: Tensor, ended: Tensor, gamma: float, bootstrap: Tensor
) -> Tensor:
    """(prod_t rho_t) sum_t gamma^t r_t, both over the whole segment."""
    _check(log_ratio, reward)
    whole = total_return(log_ratio.detach(), ended, 1.0, torch.zeros_like(log_ratio))
    return _exp(whole) * total_return(reward, ended, gamma, bootstrap)


def per_decision_weight(
    reward: Tensor, log_ratio: Tensor, ended: Tensor, gamma: float, bootstrap: Tensor
) -> Tensor:
    """sum_{t'>=t} gamma^{t'-t} (prod_{t''<=t'} rho_t'') r_t': a reward depends on what was before it only."""
    _check(log_ratio, reward)
    past = past_ratio(log_ratio, ended)
    return reward_to_go(past * reward, ended, gamma, past * bootstrap)


def first_order_weight(
    reward: Tensor, log_ratio: Tensor, ended: Tensor, gamma: float, bootstrap: Tensor
) -> Tensor:
    """rho_t sum_{t'>=t} gamma^{t'-t} r_t'"""
    _check(log_ratio, reward)
    return _exp(log_ratio.detach()) * reward_to_go(reward, ended, gamma, bootstrap)


def past_ratio(log_ratio: Tensor, ended: Tensor) -> Tensor:
    """prod_{t'<=t} rho_t' from the start of the segment: [T, N], [T, N] -> [T, N]."""
    _check(log_ratio, ended)
    segment = (log_ratio.detach(), ended, 1.0, torch.zeros_like(log_ratio))
    return _exp(total_return(*segment) - reward_to_go(*segment) + log_ratio.detach())


def _exp(log_ratio: Tensor) -> Tensor:
    ratio = log_ratio.exp()
    largest = log_ratio.max().item()
    require(bool(torch.isfinite(ratio).all()), f"log_ratio must have sums that exp can take, got {largest}")
    return ratio


def _check(log_ratio: Tensor, like: Tensor) -> None:
    ok = log_ratio.shape == like.shape and log_ratio.ndim == 2 and len(log_ratio) > 0
    shapes = f"{list(log_ratio.shape)} beside {list(like.shape)}"
    require(ok, f"log_ratio must be [T, N] as reward and ended are, got {shapes}")
    require(bool(torch.isfinite(log_ratio).all()), "log_ratio must be finite, got nan or inf")
