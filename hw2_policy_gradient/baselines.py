"""Baselines: what is subtracted from the weight of grad log pi to lower the variance of its sum.

grad J = E[sum_t g_t (w_t - b)],  g_t = grad log pi(a_t|s_t),  E[g_t] = 0
average     b = E[w] (Williams 1992)
optimal     b* = E[g^2 r] / E[g^2], of all constants the one of least variance (Greensmith et al. 2004)
learned     b = V(s_t): any function of the state leaves the expectation as it is
action      b = Q(s_t, a_t) does not, and its own gradient is added back: + grad E_{a~pi}[Q(s_t, a)]
            (control variate; Q-Prop, Gu et al. 2017)
No gradient flows through w or b. b must not depend on the action whose g it multiplies: the average of n
trajectories holds each one's own weight, which shrinks the expected gradient by the factor 1 - 1/n.
Leaving the own one out mends that; for total returns w - b then is n / (n - 1) times what it was.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from common.distributions import Categorical, DiagonalGaussian
from common.types import require


def average_baseline(weight: Tensor) -> Tensor:
    """The mean weight of the batch: [T, N] -> []. Biased by the own weight, see above."""
    _check(weight.numel() > 0, "weight", "hold at least one number", weight)
    return weight.mean()


def leave_one_out_baseline(weight: Tensor) -> Tensor:
    """The mean weight of the other columns, which know nothing of this one: [T, N] -> [1, N]. No bias."""
    _check(weight.ndim == 2 and weight.shape[1] > 1, "weight", "be [T, N] with N at least 2", weight)
    own = weight.mean(0, keepdim=True)
    return (own.sum() - own) / (weight.shape[1] - 1)


def optimal_baseline(gradient: Tensor, score: Tensor) -> Tensor:
    """The b of least E|gradient - b score|^2 over the B samples: E[gradient . score] / E[|score|^2].

    score [B, P]: sum_t g_t of a trajectory; gradient [B, P]: its estimate without baseline, sum_t g_t w_t.
    With the total return r as weight, gradient = score r and this is the lecture's E[g^2 r] / E[g^2]. Steps
    instead of trajectories as samples neglect what the steps of a trajectory have in common. -> []
    """
    ok = score.ndim == 2 and score.shape == gradient.shape and score.numel() > 0
    _check(ok, "gradient and score", "be [B, P] both and not empty", gradient, score)
    return (gradient * score).sum() / score.square().sum().clamp(min=torch.finfo(score.dtype).tiny)


def scores(policy: torch.nn.Module, obs: Tensor, action: Tensor, chunk_size: int = 1024) -> Tensor:
    """grad log pi(a|s) of every sample by itself, all parameters in one row: [B, D], [B, ...] -> [B, P]."""

    def log_prob(parameters: dict[str, Tensor], obs: Tensor, action: Tensor) -> Tensor:
        return functional_call(policy, parameters, obs).log_prob(action)

    parameters = {name: p.detach() for name, p in policy.named_parameters()}
    each = vmap(grad(log_prob), in_dims=(None, 0, 0), chunk_size=chunk_size)(parameters, obs, action)
    return torch.cat([each[name].flatten(1) for name in parameters], 1)


def control_variate_loss(log_prob: Tensor, weight: Tensor, control: Tensor, expected: Tensor) -> Tensor:
    """-mean[log pi(a_t|s_t) (w_t - control_t) + expected_t]: [T, N] each -> [].

    control_t = Q(s_t, a_t) is a number; expected_t = E_{a~pi}[Q(s_t, a)] carries the gradient into pi that
    subtracting the control has taken out.
    """
    return -(log_prob * (weight - control).detach() + expected).mean()


def categorical_control(pi: Categorical, action: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Control and its expectation, [...] each, summed over the actions. q [..., A], pi the same."""
    q = q.detach()
    return q.gather(-1, action[..., None]).squeeze(-1), (pi.log_p.exp() * q).sum(-1)


def gaussian_control(
    pi: DiagonalGaussian, action: Tensor, q: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Control and its expectation, [...] each, of Q's tangent at the mean action (Gu et al. 2017, eq. 7).

    q: [..., K] -> [...], the critic at the states of the batch. The tangent's expectation is known exactly:
    q(mean), whose gradient in the policy is dq/da times the gradient of the mean.
    """
    mean = pi.mean.detach().requires_grad_()
    with torch.enable_grad():
        top = q(mean)
        (slope,) = torch.autograd.grad(top.sum(), mean)
    top, mean = top.detach(), mean.detach()
    return top + (slope * (action - mean)).sum(-1), top + (slope * (pi.mean - mean)).sum(-1)


def _check(ok: bool, name: str, expected: str, *tensors: Tensor) -> None:
    require(ok, f"{name} must {expected}, got {' and '.join(str(list(x.shape)) for x in tensors)}")
    for x in tensors:
        require(bool(torch.isfinite(x).all()), f"{name} must be finite, got nan or inf")
