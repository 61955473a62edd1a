"""Divide and conquer: policies that learn from a part of the starts each, and one that they become (Ghosh,
Singh, Rajeswaran, Kumar and Levine 2018; tied to that one as in Distral, Teh et al. 2017).

1. pi_i <- argmax E[sum r | x_0 in region i] - alpha E KL(pi_i || pi)    k local policies, some batches each
2. pi <- argmin sum_i E_{pi_i} KL(pi_i || pi)                            on the states they came to
3. pi_i <- pi                                                            if `reset`, but for its noise

Step 1 climbs the clipped surrogate (Schulman et al. 2017). Every region has its own baseline, its own unit of
the advantage and its own trust region, so that starts with large costs do not outvote the others. Step 2 is
supervised and takes no experience. The lecture adds alpha log pi to the reward instead of the tie: the same
but for alpha times the entropy of pi_i. One region is one policy that learns from all starts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.ensemble import EnsembleMLP
from common.optim import Adam, gradient_step
from common.types import Metrics, require, require_at_least, require_positive, require_unit
from hw5_planning_control.episodes import Arena, Baseline, Gaussian, Samples, advantages, collect


@dataclass(frozen=True)
class DivideConfig:
    regions: int = 4  # k; 1 trains one policy on all starts
    axis: int = 0  # entry of the state by which the starts are divided
    rounds: int = 80  # batches of step 1
    distil_every: int = 20  # of them, before steps 2 and 3
    episodes: int = 512  # per batch, of all regions together
    alpha: float = 0.01  # weight of the tie to pi
    lam: float = 0.97  # of the generalised advantage estimator
    clip: float = 0.2  # of the probability ratio
    reset: bool = False  # do step 3; else the tie alone holds them together
    epochs: int = 10  # gradient steps on a batch, all of it each
    lr: float = 5e-3  # learning rate of Adam in step 1, linearly to zero
    distil_steps: int = 300  # gradient steps of step 2
    distil_lr: float = 1e-2  # their learning rate, linearly to zero
    std: float = 0.5  # of the first actions, which count from -1 to 1
    hidden: int = 32  # units of each of two layers

    def __post_init__(self):
        names = "regions", "rounds", "distil_every", "episodes", "epochs", "hidden"
        require_at_least(self, 1, *names)
        require_at_least(self, 0, "axis", "alpha", "distil_steps")
        require_positive(self, "clip", "lr", "distil_lr", "std")
        require_unit(self, "lam")
        ok = self.episodes % self.regions == 0 and self.episodes >= 2 * self.regions
        require(ok, f"episodes must be at least 2 for each of {self.regions} regions, got {self.episodes}")


class Policies(nn.Module):
    """obs [k, B, D] -> Gaussian, in actions from -1 to 1; obs [1, B, D] is shown to each."""

    def __init__(
        self, k: int, obs_dim: int, action_dim: int, config: DivideConfig, generator: torch.Generator
    ):
        super().__init__()
        sizes = obs_dim, config.hidden, config.hidden, action_dim
        self.net = EnsembleMLP(k, *sizes, generator=generator, activation=torch.tanh)
        with torch.no_grad():
            self.net.layers[-1].weight.mul_(0.01)
        self.log_std = nn.Parameter(torch.full((k, 1, action_dim), math.log(config.std)))
        self.register_buffer("shift", torch.zeros(obs_dim))
        self.register_buffer("scale", torch.ones(obs_dim))

    def normalize(self, obs: Tensor) -> Tensor:
        return (obs - self.shift) / self.scale

    def forward(self, obs: Tensor) -> Gaussian:
        return Gaussian(self.net(self.normalize(obs)), self.log_std)

    @torch.no_grad()
    def become(self, other: Policies, keep: str = "") -> None:
        """Step 3: all k the one that `other` holds, or each its counterpart; the tensor `keep` stays."""
        its = other.state_dict()
        for name, mine in self.state_dict().items():
            if name != keep:
                mine.copy_(its[name].expand_as(mine))


def divide(x: Tensor, k: int, axis: int) -> Tensor:
    """Starts [k M, n] -> slices of equal probability along one entry of the state [k, M, n]."""
    require(0 <= axis < x.shape[-1], f"axis must lie in [0, {x.shape[-1]}), the state's size, got {axis}")
    return x[x[:, axis].argsort()].unflatten(0, (k, -1))


def local_loss(
    pi: Gaussian, old: Gaussian, center: Gaussian, action: Tensor, advantage: Tensor, config: DivideConfig
) -> Tensor:
    """-E min(rho A, clip(rho) A) + alpha E KL(pi_i || pi), rho = pi_i / old_i, the sum over i.
    action [k, B, K], advantage [k, B]."""
    ratio = (pi.log_prob(action) - old.log_prob(action)).exp()
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
    gain = torch.minimum(ratio * advantage, clipped * advantage)
    return (config.alpha * pi.kl(center) - gain).mean(1).sum()


def improve(
    local: Policies,
    center: Policies,
    optimizer: torch.optim.Optimizer,
    samples: Samples,
    advantage: Tensor,
    config: DivideConfig,
) -> None:
    """Step 1 on one batch."""
    obs, action, advantage = (x.flatten(1, 2) for x in (samples.obs, samples.action, advantage))
    with torch.no_grad():
        old, tie = local(obs).frozen(), for_all(center, obs).frozen()
    parameters = [*local.parameters()]
    for _ in range(config.epochs):
        loss = local_loss(local(obs), old, tie, action, advantage, config)
        gradient_step(loss, optimizer, parameters, torch.inf)


def distil(
    center: Policies, local: Policies, obs: Tensor, config: DivideConfig, generator: torch.Generator
) -> float:
    """Step 2 on the states obs [k, B, D] that each came to; the KL that is left, its mean over them."""
    with torch.no_grad():
        target = local(obs).frozen()
    parameters = [*center.parameters()]
    optimizer = Adam(parameters, config.distil_lr)
    for s in range(config.distil_steps):
        optimizer.param_groups[0]["lr"] = config.distil_lr * (1 - s / config.distil_steps)
        b = torch.randint(obs.shape[1], (256,), generator=generator)
        loss = target.rows(b).kl(for_all(center, obs[:, b])).mean()
        gradient_step(loss, optimizer, parameters, torch.inf)
    with torch.no_grad():
        return target.kl(for_all(center, obs)).mean().item()


def for_all(center: Policies, obs: Tensor) -> Gaussian:
    """What the one policy does in obs [k, B, D]."""
    pi = center(obs.flatten(0, 1)[None])
    return Gaussian(pi.mean[0].unflatten(0, obs.shape[:2]), pi.log_std)


class DivideAndConquer:
    """`center`, one policy, is changed in place; `starts` draws where episodes begin."""

    def __init__(
        self, center: Policies, config: DivideConfig, generator: torch.Generator, starts: torch.Generator
    ):
        c = config
        self.center, self.config, self.generator, self.starts = center, c, generator, starts
        self.local = Policies(c.regions, len(center.shift), center.log_std.shape[-1], c, generator)
        self.local.become(center)
        self.optimizer = Adam(self.local.parameters(), c.lr)
        self.baseline = Baseline()
        self.batches = 0  # so far

    def round(self, arena: Arena) -> Metrics:
        """One batch, and what is told of it. The first, of random actions, only sets the units of
        observations and values."""
        c, center, local = self.config, self.center, self.local
        x = divide(arena.starts(c.episodes, self.starts), c.regions, c.axis)
        samples = collect(arena, local, x, self.generator)
        told = {"rollout/return_mean": samples.reward.sum(1).mean().item()}
        if self.batches == 0:
            center.shift.copy_(samples.obs.mean((0, 1, 2)))
            center.scale.copy_(samples.obs.std((0, 1, 2)).clamp(min=1e-3))
            local.become(center)
        else:
            value = self.baseline(local.normalize(samples.obs))
            advantage = advantages(samples.reward, value, c.lam)
            self.optimizer.param_groups[0]["lr"] = c.lr * (1 - self.batches / c.rounds)
            improve(local, center, self.optimizer, samples, advantage, c)
        self.baseline.fit(local.normalize(samples.obs), samples.reward)
        self.batches += 1
        if c.regions == 1:
            center.become(local)
        elif self.batches % c.distil_every == 0 or self.batches == c.rounds:
            told["loss/distillation"] = distil(center, local, samples.obs.flatten(1, 2), c, self.generator)
            if c.reset:
                local.become(center, keep="log_std")
        return told | {"policy/std": center.log_std.exp().mean().item()}
