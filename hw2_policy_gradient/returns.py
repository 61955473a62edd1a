"""Returns and advantages of rollouts. All tensors [T, N], time first, in and out; their dtype is kept.

All of it is one backward recursion y_t = x_t + decay_t y_{t+1}. A segment is what one rollout holds of one
episode: it ends where `ended` (terminated or truncated) and on the last row. `terminated` removes the value
of the successor, a time limit keeps it. Masks may be bool or 0/1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.types import Rollout, require


def backward_scan(x: Tensor, decay: Tensor) -> Tensor:
    """y_t = x_t + decay_t y_{t+1}, y_T = 0: [T, N], [T, N] -> [T, N]."""
    y, ys = torch.zeros_like(x[0]), []
    for x_t, decay_t in zip(x.flip(0).unbind(), decay.flip(0).unbind(), strict=True):
        y = torch.addcmul(x_t, decay_t, y)
        ys.append(y)
    return torch.stack(ys[::-1])


def discounted_return(reward: Tensor, gamma: float) -> Tensor:
    """sum_{t'} gamma^{t'} r_{t'} of the whole column at each of its rows: [T, N] -> [T, N].

    The weight of the plain policy gradient, grad log pi(a_t|s_t) sum_{t'} gamma^{t'} r_{t'} (Williams 1992).
    """
    _check(gamma=gamma, reward=reward)
    return backward_scan(reward, torch.full_like(reward, gamma))[:1].expand_as(reward)


def reward_to_go(reward: Tensor, ended: Tensor, gamma: float, bootstrap: Tensor) -> Tensor:
    """G_t = r_t + gamma G_{t+1}, and r_t + gamma bootstrap_t on the last row of a segment.

    bootstrap [T, N]: what follows the last reward of a segment, zero where terminated; elsewhere unused.
    """
    _check(gamma=gamma, reward=reward, ended=ended, bootstrap=bootstrap)
    last = _last_of_segment(ended)
    tail = torch.where(last, gamma * bootstrap, torch.zeros_like(reward))
    return backward_scan(reward + tail, gamma * last.logical_not().to(reward))


def total_return(reward: Tensor, ended: Tensor, gamma: float, bootstrap: Tensor) -> Tensor:
    """The reward-to-go of a segment's first row, at each of its rows: no causality."""
    to_go = reward_to_go(reward, ended, gamma, bootstrap)
    first = _last_of_segment(ended).roll(1, 0)  # the last row is always a last one, so row 0 is a first
    row = torch.arange(len(reward), device=reward.device)[:, None]
    start = torch.where(first, row, torch.zeros_like(row)).cummax(0).values  # [T, N]
    return to_go.gather(0, start)


def n_step_return(
    reward: Tensor, next_value: Tensor, terminated: Tensor, ended: Tensor, gamma: float, n: int
) -> Tensor:
    """r_t + ... + gamma^{n-1} r_{t+n-1} + gamma^n V(s_{t+n}), with fewer steps where the segment ends first.

    next_value[t] = V(s_{t+1}) of the true successor.
    """
    _check(gamma=gamma, reward=reward, next_value=next_value, terminated=terminated, ended=ended)
    require(n >= 1, f"n must be at least 1, got {n}")
    value = next_value * terminated.logical_not()
    goes_on = _last_of_segment(ended).logical_not()
    y = reward + gamma * value
    for _ in range(min(n, len(reward)) - 1):
        y = reward + gamma * torch.where(goes_on, y.roll(-1, 0), value)
    return y


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    ended: Tensor,
    gamma: float,
    lam: float,
) -> Tensor:
    """A_t = delta_t + gamma lam A_{t+1},  delta_t = r_t + gamma V(s_{t+1}) - V(s_t)

    (Schulman et al. 2016, eq. 16). lam = 0 is the temporal difference, lam = 1 the reward-to-go less V.
    next_value as in n_step_return.
    """
    _check(gamma=gamma, lam=lam, reward=reward, value=value, next_value=next_value)
    _check(reward=reward, terminated=terminated, ended=ended)
    delta = reward + gamma * next_value * terminated.logical_not() - value
    return backward_scan(delta, gamma * lam * ended.logical_not().to(delta))


@torch.no_grad()
def critic_advantage(
    critic: nn.Module, rollout: Rollout, obs: Tensor, next_obs: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """GAE by the critic, and the critic's targets A + V: [T, N] each. obs, next_obs [T, N, D] normalised."""
    value, next_value = critic(obs).squeeze(-1), critic(next_obs).squeeze(-1)
    advantage = gae(rollout.reward, value, next_value, rollout.terminated, rollout.ended, gamma, lam)
    return advantage, advantage + value


def standardize(advantage: Tensor) -> Tensor:
    """Mean 0, deviation 1 over all of it; of one number it makes 0, not NaN."""
    std, mean = torch.std_mean(advantage, correction=0)
    return (advantage - mean) / (std + 1e-8)


def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """1 - Var(target - value) / Var(target): 1 for a perfect critic, 0 for a constant. [T, N] each."""
    return 1 - (target - value).var(correction=0) / target.var(correction=0).clamp(min=1e-8)


def _last_of_segment(ended: Tensor) -> Tensor:
    last = ended.bool().clone()
    last[-1] = True
    return last


def _check(reward: Tensor, gamma: float = 0.0, lam: float = 0.0, **others: Tensor) -> None:
    for name, number in (("gamma", gamma), ("lam", lam)):
        require(0 <= number <= 1, f"{name} must lie in [0, 1], got {number}")
    ok = reward.ndim == 2 and len(reward) > 0
    require(ok, f"reward must be [T, N] with T at least 1, got {list(reward.shape)}")
    require(reward.is_floating_point(), f"reward must be floating, got {reward.dtype}")
    for name, x in {"reward": reward, **others}.items():
        ok = x.shape == reward.shape
        require(ok, f"{name} must be {list(reward.shape)} as reward is, got {list(x.shape)}")
        require(bool(torch.isfinite(x).all()), f"{name} must be finite, got nan or inf")
