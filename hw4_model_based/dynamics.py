"""Learn the dynamics: an ensemble of networks that say how the state changes, and how sure they are.

p_theta(s'|s, a) = N(s + mu_theta(s, a), diag sigma_theta(s, a)^2),  theta <- argmin -sum log p_theta(s'|s, a)
p(s'|s, a, D) ~ 1/E sum_e p_{theta_e}(s'|s, a),  theta_e fitted to D drawn anew with replacement (bootstrap)

Nagabandi et al. 2018 (the change as target, normalised); Chua et al. 2018, PETS (ensemble, bounded variance);
Janner et al. 2019, MBPO (early stopping, elites). The bootstrap is drawn once per fit: drawn anew in every
epoch, all members would see all data, and agree where they should not. log sigma^2 is bounded smoothly, by
bounds that are learned and pulled together a little: away from the data an unbounded one would be anything.
No gradient flows through statistics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.distributions import LOG_2PI
from common.ensemble import EnsembleMLP
from common.networks import require_hidden
from common.optim import Adam
from common.types import Metrics, require, require_at_least, require_positive

STD_FLOOR = 1e-4  # in units of the data: what never moves must not be divided by nothing
BOUND_WEIGHT = 0.01  # of the bounds of log sigma^2 in the loss


@dataclass(frozen=True)
class DynamicsConfig:
    members: int = 5  # E, networks
    elites: int = 5  # members that predict: those best on the data held out
    hidden: tuple[int, ...] = (64, 64)  # units per layer
    probabilistic: bool = True  # fit a variance too; otherwise the squared error alone
    lr: float = 2e-3  # Adam's
    weight_decay: float = 1e-5  # pull of every weight towards zero
    batch_size: int = 128  # transitions per gradient step and member
    max_epochs: int = 40  # passes over the data per fit, at most
    patience: int = 5  # passes without a better loss on the data held out before a fit ends
    holdout: float = 0.1  # share of the data that is held out

    def __post_init__(self):
        require_at_least(self, 1, "members", "elites", "batch_size", "max_epochs", "patience")
        ok = self.elites <= self.members
        require(ok, f"elites must be at most members = {self.members}, got {self.elites}")
        require_hidden(self.hidden)
        require_positive(self, "lr")
        ok = 0 <= self.weight_decay < math.inf
        require(ok, f"weight_decay must be finite and at least 0, got {self.weight_decay}")
        require(0 < self.holdout < 1, f"holdout must lie in (0, 1), got {self.holdout}")


def gaussian_nll(mean: Tensor, log_var: Tensor, target: Tensor) -> Tensor:
    """-log N(target; mean, exp(log_var)), each entry on its own: [...]."""
    return 0.5 * ((target - mean).square() * (-log_var).exp() + log_var + LOG_2PI)


def soft_bound(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """x between low and high, smooth and with a slope everywhere."""
    x = high - F.softplus(high - x)
    return low + F.softplus(x - low)


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x), in place where no gradient is asked for: half of a prediction would be spent on fresh
    memory."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def mixture_moments(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of E Gaussians [E, ...], equally weighted: mean, and the two parts of the variance [...].

    aleatoric, the mean of the variances, is noise; epistemic, the variance of the means, is what the
    members disagree about. Their sum is the variance.
    """
    return mean.mean(0), var.mean(0), mean.var(0, correction=0)


def bootstrap(size: int, members: int, generator: torch.Generator) -> Tensor:
    """Rows of the data for each member, with replacement: [E, size] int64. One member keeps all data."""
    if members == 1:
        return torch.arange(size)[None]
    return torch.randint(size, (members, size), generator=generator)


class Normalizer(nn.Module):
    """(x - mean) / std of all data, and back."""

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def fit(self, x: Tensor) -> None:
        """x [B, size]. In float64: the change of a state is a small difference of large numbers."""
        x = x.double()
        self.mean.copy_(x.mean(0))
        std = x.std(0, correction=0)
        self.std.copy_(torch.where(std < STD_FLOOR, 1.0, std))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.mean, x, self.std)


class Dynamics(nn.Module):
    """E networks side by side. Predictions are those of the elites, which come first."""

    def __init__(self, obs_dim: int, action_dim: int, config: DynamicsConfig, generator: torch.Generator):
        super().__init__()
        self.config, self.obs_dim = config, obs_dim
        outputs = 2 * obs_dim if config.probabilistic else obs_dim
        sizes = (obs_dim + action_dim, *config.hidden, outputs)
        self.net = EnsembleMLP(config.members, *sizes, generator=generator, activation=silu)
        self.inputs, self.change = Normalizer(obs_dim + action_dim), Normalizer(obs_dim)
        bounds = (config.members, 1, obs_dim)  # each member's own, of log sigma^2
        self.low, self.high = nn.Parameter(torch.full(bounds, -10.0)), nn.Parameter(torch.full(bounds, 0.5))

    @property
    def elites(self) -> int:
        return self.config.elites

    def forward(self, x: Tensor, members: int | None = None) -> tuple[Tensor, Tensor]:
        """Normalised inputs [B, D+K], or [E, B, D+K] -> mean and log variance of the normalised change,
        [E, B, D] each; the variance is 1 where none is fitted."""
        out = self.net(x, members)
        if not self.config.probabilistic:
            return out, torch.zeros_like(out)
        mean, log_var = out.split(self.obs_dim, -1)
        low, high = self.low, self.high
        if len(out) < len(low):
            low, high = low[: len(out)], high[: len(out)]
        return mean, soft_bound(log_var, low, high)

    @torch.no_grad()
    def predict(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of s' by each elite e: [B, .] the same for all, or [E, B, .] its own
        -> [E, B, D] each. Without a variance the deviation is 0."""
        mean, log_var = self(self.inputs(torch.cat([obs, action], -1)), self.elites)
        std = (0.5 * log_var).exp() * self.change.std if self.config.probabilistic else mean.new_zeros(1)
        return obs + self.change.inverse(mean), std.expand_as(mean)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Negative log-likelihood, or squared error, per entry of y [B, D] or [E, B, D]: [E]."""
        mean, log_var = self(x)
        if not self.config.probabilistic:
            return (mean - y).square().mean((1, 2))
        return gaussian_nll(mean, log_var, y).mean((1, 2))

    def fit(self, obs: Tensor, action: Tensor, next_obs: Tensor, generator: torch.Generator) -> Metrics:
        """Go on from the parameters of the last fit, on all data: obs [B, D], action [B, K], next_obs [B, D].

        Each member keeps the parameters that were best on the data held out.
        """
        check_transitions(obs, action, next_obs, self.obs_dim)
        c, size = self.config, len(obs)
        x, y = torch.cat([obs, action], 1), next_obs - obs
        self.inputs.fit(x)
        self.change.fit(next_obs.double() - obs.double())
        order = torch.randperm(size, generator=generator)
        held = max(int(c.holdout * size), 1)
        x, y = self.inputs(x)[order], self.change(y)[order]
        x_held, y_held = x[:held], y[:held]
        x, y = x[held:], y[held:]
        rows = bootstrap(len(x), c.members, generator)  # [E, B]
        optimizer = Adam(self.parameters(), c.lr, weight_decay=c.weight_decay)
        best = self.losses(x_held, y_held)
        kept, stale, epochs = [p.detach().clone() for p in self.parameters()], 0, 0
        while stale < c.patience and epochs < c.max_epochs:
            shuffled = rows[:, torch.randperm(len(x), generator=generator)]
            for index in shuffled.split(c.batch_size, 1):
                loss = self.loss(x[index], y[index]).sum()
                if c.probabilistic:
                    loss = loss + BOUND_WEIGHT * (self.high - self.low).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            held_loss = self.losses(x_held, y_held)
            if not held_loss.isfinite().all():
                raise FloatingPointError(f"not finite after {epochs + 1} epochs: the loss of the model")
            better = held_loss < best - 0.01 * best.abs()
            for old, new in zip(kept, self.parameters(), strict=True):
                old[better] = new.detach()[better]
            best = torch.where(better, held_loss, best)
            stale, epochs = 0 if better.any() else stale + 1, epochs + 1
        ranked = best.argsort()  # the elites come first, so that nobody else has to be computed
        with torch.no_grad():
            for old, new in zip(kept, self.parameters(), strict=True):
                new.copy_(old[ranked])
            error = (self(x_held, self.elites)[0].mean(0) - y_held).square().mean()
        return {
            "loss/held_out": float(best[ranked][: self.elites].mean()),
            "model/squared_error": float(error),  # of the elites' mean; 1 is to predict the mean change
            "model/epochs": float(epochs),
        }

    @torch.no_grad()
    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """Without gradient, [E]."""
        return self.loss(x, y)


def check_transitions(obs: Tensor, action: Tensor, next_obs: Tensor, obs_dim: int) -> None:
    for name, x in (("obs", obs), ("action", action), ("next_obs", next_obs)):
        ok = x.ndim == 2 and len(x) == len(obs) and (name == "action" or x.shape[1] == obs_dim)
        require(
            ok, f"{name} must be [{len(obs)}, {'K' if name == 'action' else obs_dim}], got {list(x.shape)}"
        )
        require(bool(x.isfinite().all()), f"{name} must be finite, got nan or inf")
    require(len(obs) >= 2, f"obs must hold at least 2 transitions to fit and to check, got {len(obs)}")
