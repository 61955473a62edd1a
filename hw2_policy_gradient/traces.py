"""Eligibility traces: what GAE sums over the future, summed over the past (Sutton 1988).

delta_t = r_t + gamma V(s_{t+1}) - V(s_t)
forward view    sum_t A_t x_t,      A_t = delta_t + gamma lam A_{t+1}    (returns.gae; waits for the future)
backward view   sum_t delta_t e_t,  e_t = x_t + gamma lam e_{t-1}        (knows enough after every step)
x_t = grad log pi(a_t|s_t) makes it the policy gradient, x_t = grad V(s_t) the critic's step towards A + V.
Both sums hold delta_{t+l} x_t (gamma lam)^l once for every t and l: they are equal as long as V and x stay
as they are. Learning at every step (td_lambda) moves V in between and differs by the order of the step size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from common.types import require


def eligibility_trace(x: Tensor, ended: Tensor, decay: float) -> Tensor:
    """e_t = x_t + decay e_{t-1}, from x_t anew in every episode: [T, N, P], [T, N] -> [T, N, P]."""
    ok = x.ndim == 3 and len(x) > 0 and x.shape[:2] == ended.shape
    require(ok, f"x must be [T, N, P] with ended [T, N], got {list(x.shape)} and {list(ended.shape)}")
    require(bool(torch.isfinite(x).all()), "x must be finite, got nan or inf")
    _check_unit(decay=decay)
    goes_on = ended.bool().logical_not()[..., None]
    e, traces = x[0], [x[0]]
    for x_t, goes_on_t in zip(x[1:], goes_on[:-1], strict=True):
        e = x_t + decay * e * goes_on_t
        traces.append(e)
    return torch.stack(traces)


def backward_view(delta: Tensor, x: Tensor, ended: Tensor, gamma: float, lam: float) -> Tensor:
    """sum_t delta_t e_t over all rows and environments: [T, N], [T, N, P], [T, N] -> [P]."""
    ok = delta.shape == ended.shape and bool(torch.isfinite(delta).all())
    require(ok, f"delta must be finite and {list(ended.shape)} as ended is, got {list(delta.shape)}")
    _check_unit(gamma=gamma, lam=lam)
    return torch.einsum("tn,tnp->p", delta, eligibility_trace(x, ended, gamma * lam))


def td_lambda(
    value: Tensor,
    state: Tensor,
    reward: Tensor,
    next_state: Tensor,
    terminated: Tensor,
    ended: Tensor,
    step_size: float,
    gamma: float,
    lam: float,
) -> Tensor:
    """V after learning at every step from one stream: V <- V + step_size delta_t e_t, x_t one at s_t.

    value [S]; state, next_state [T] int64; reward, terminated, ended [T]. Tabular, accumulating traces.
    """
    ok = reward.ndim == 1 and all(x.shape == reward.shape for x in (state, next_state, terminated, ended))
    require(ok, f"reward, state, next_state, terminated and ended must be [T] all, reward is {reward.shape}")
    for name, x in (("state", state), ("next_state", next_state)):
        ok = bool(((x >= 0) & (x < len(value))).all())
        require(ok, f"{name} must lie in [0, {len(value) - 1}], the states of value")
    _check_unit(gamma=gamma, lam=lam)
    require(0 <= step_size < math.inf, f"step_size must be finite and not negative, got {step_size}")
    for name, x in (("value", value), ("reward", reward)):
        require(bool(torch.isfinite(x).all()), f"{name} must be finite, got nan or inf")
    value, e = value.clone(), torch.zeros_like(value)
    goes_on = terminated.logical_not().to(value)
    for t, (s, s_next) in enumerate(zip(state.tolist(), next_state.tolist(), strict=True)):
        delta = reward[t] + gamma * goes_on[t] * value[s_next] - value[s]
        e = gamma * lam * e
        e[s] += 1
        value += step_size * delta * e
        if ended[t]:
            e = torch.zeros_like(e)
    return value


def _check_unit(**numbers: float) -> None:
    for name, number in numbers.items():
        require(0 <= number <= 1, f"{name} must lie in [0, 1], got {number}")
