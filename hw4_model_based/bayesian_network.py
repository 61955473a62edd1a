"""A network that does not know its weights: Bayes by backprop (Blundell et al. 2015).

q(w) = N(m, diag s^2),  p(w) = N(0, prior^2 I)
(m, s) = argmax ELBO,   ELBO = E_q log p(D|w) - KL(q || p) = log p(D) - KL(q || p(w|D)) <= log p(D)
p(s'|s, a, D) ~ 1/E sum_e p(s'|s, a, w_e),  w_e ~ q

While it learns, a layer draws what comes out instead of its weights: x w ~ N(x m, x^2 s^2) has the same
distribution in each row and a gradient of less variance (local reparametrisation, Kingma et al. 2015). To
predict, whole networks are drawn: E of them are an ensemble.

Weights that are independent cannot follow a posterior that is not. Of a linear model, whose posterior is
N(mu, Lambda^-1), the optimum is m = mu and s_i^2 = 1 / Lambda_ii, never more than the posterior's own
(Lambda^-1)_ii: mean-field is too sure of itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.distributions import LOG_2PI
from common.networks import require_hidden
from common.optim import Adam
from common.types import Metrics, require, require_at_least, require_positive, require_unit
from hw4_model_based.dynamics import Normalizer, check_transitions, gaussian_nll


@dataclass(frozen=True)
class BayesianConfig:
    hidden: tuple[int, ...] = (32, 32)  # units per layer
    prior: float = 3.0  # standard deviation of every weight before the data, of a layer whose inputs are 1
    std: float = 0.01  # that of q at first
    lr: float = 4e-2  # Adam's at first, falling to zero along half a cosine
    batch_size: int = 400  # transitions per gradient step
    epochs: int = 1_500  # passes over the data per fit
    warm_up: float = 0.5  # share of them over which KL gains its weight; at once, it silences idle units

    def __post_init__(self):
        require_hidden(self.hidden)
        require_positive(self, "prior", "std", "lr")
        require_at_least(self, 1, "batch_size", "epochs")
        require_unit(self, "warm_up")


class Gaussian(NamedTuple):
    """N(mean, precision^-1) of d weights."""

    mean: Tensor  # [d]
    precision: Tensor  # Lambda [d, d]


def linear_posterior(X: Tensor, y: Tensor, alpha: float, beta: float) -> Gaussian:
    """Of y = X w + N(0, 1/beta) and w ~ N(0, 1/alpha): X [n, d], y [n]."""
    _check_linear(X, y, alpha, beta)
    precision = alpha * torch.eye(X.shape[1]).to(X) + beta * X.T @ X
    return Gaussian(beta * torch.linalg.solve(precision, X.T @ y), precision)


def log_evidence(X: Tensor, y: Tensor, alpha: float, beta: float) -> Tensor:
    """log p(y|X), y ~ N(0, I / beta + X X' / alpha), in the d dimensions of w."""
    mean, precision = linear_posterior(X, y, alpha, beta)
    n, d = X.shape
    misfit = beta * (y - X @ mean).square().sum() + alpha * mean.square().sum()
    determinants = d * math.log(alpha) + n * math.log(beta) - torch.logdet(precision)
    return 0.5 * (determinants - misfit - n * LOG_2PI)


def mean_field(posterior: Gaussian) -> tuple[Tensor, Tensor]:
    """m and s [d] of the independent Gaussians nearest to the posterior, argmin KL(q || p(w|D))."""
    return posterior.mean, posterior.precision.diagonal().rsqrt()


def linear_elbo(m: Tensor, s: Tensor, X: Tensor, y: Tensor, alpha: float, beta: float) -> Tensor:
    """The ELBO of q = N(m, diag s^2) in closed form."""
    _check_linear(X, y, alpha, beta)
    spread = (X.square() @ s.square()).sum()  # of X w around X m
    fit = 0.5 * (len(y) * (math.log(beta) - LOG_2PI) - beta * ((y - X @ m).square().sum() + spread))
    return fit - kl_to_prior(m, s, alpha**-0.5)


def kl_to_prior(m: Tensor, s: Tensor, prior: float) -> Tensor:
    """KL(N(m, diag s^2) || N(0, prior^2 I)), the sum over all weights, in nats."""
    ratio = (s / prior).square()
    return 0.5 * (ratio + (m / prior).square() - 1 - ratio.log()).sum()


def kl_weight(epoch: int, config: BayesianConfig) -> float:
    """1 from the end of the warm-up on."""
    return min(1.0, (epoch + 1) / (config.warm_up * config.epochs + 1))


class BayesianLinear(nn.Module):
    """y = [x / sqrt(n_in), 1] w: the bias is a weight like the others, and one prior fits every width."""

    def __init__(self, n_in: int, n_out: int, std: float, generator: torch.Generator):
        super().__init__()
        self.scale = n_in**-0.5
        mean = torch.randn(n_in + 1, n_out, generator=generator)
        self.mean = nn.Parameter(mean)
        self.rho = nn.Parameter(torch.full_like(mean, math.log(math.expm1(std))))

    @property
    def std(self) -> Tensor:
        return F.softplus(self.rho)

    def inputs(self, x: Tensor) -> Tensor:
        """[..., n_in] -> [..., n_in + 1]"""
        return torch.cat([self.scale * x, torch.ones_like(x[..., :1])], -1)

    def forward(self, x: Tensor, draws: torch.Generator) -> Tensor:
        """Other weights for each row: [B, n_in] -> [B, n_out]."""
        x = self.inputs(x)
        mean, var = x @ self.mean, x.square() @ self.std.square()
        return mean + var.sqrt() * torch.randn(mean.shape, generator=draws).to(mean)

    def sample(self, size: int, draws: torch.Generator) -> Tensor:
        """Weights [E, n_in + 1, n_out]."""
        noise = torch.randn(size, *self.mean.shape, generator=draws).to(self.mean)
        return torch.addcmul(self.mean, self.std, noise)


class BayesianNet(nn.Module):
    """sizes[0] -> ... -> sizes[-1], linear at the end."""

    def __init__(self, *sizes: int, std: float, generator: torch.Generator):
        super().__init__()
        self.layers = nn.ModuleList(BayesianLinear(*pair, std, generator) for pair in pairwise(sizes))

    def forward(self, x: Tensor, draws: torch.Generator) -> Tensor:
        """[B, n_in] -> [B, n_out], to learn by."""
        for layer in self.layers[:-1]:
            x = F.silu(layer(x, draws))
        return self.layers[-1](x, draws)

    def members(self, x: Tensor, size: int, draws: torch.Generator) -> Tensor:
        """What `size` networks say, each the same everywhere: [B, n_in] -> [E, B, n_out]."""
        for k, layer in enumerate(self.layers):
            x = layer.inputs(F.silu(x) if k else x) @ layer.sample(size, draws)
        return x

    def kl(self, prior: float) -> Tensor:
        return sum(kl_to_prior(layer.mean, layer.std, prior) for layer in self.layers)


def expected_log_likelihood(
    net: BayesianNet, x: Tensor, y: Tensor, log_var: Tensor, draws: torch.Generator
) -> Tensor:
    """An unbiased draw of E_q log p(y|x, w), the mean over a batch x [B, n_in], y [B, n_out]."""
    return -gaussian_nll(net(x, draws), log_var, y).sum(1).mean()


class BayesianDynamics(nn.Module):
    """The change of the state, as in `Dynamics`; the noise is one number per entry, fitted with the rest."""

    def __init__(self, obs_dim: int, action_dim: int, config: BayesianConfig, generator: torch.Generator):
        super().__init__()
        self.config, self.obs_dim = config, obs_dim
        sizes = (obs_dim + action_dim, *config.hidden, obs_dim)
        self.net = BayesianNet(*sizes, std=config.std, generator=generator)
        self.inputs, self.change = Normalizer(obs_dim + action_dim), Normalizer(obs_dim)
        self.log_var = nn.Parameter(torch.full((obs_dim,), -2.0))  # of the noise

    @torch.no_grad()
    def predict(
        self, obs: Tensor, action: Tensor, members: int, draws: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of s' by networks drawn from q: [B, D], [B, K] -> [E, B, D] each."""
        mean = self.net.members(self.inputs(torch.cat([obs, action], -1)), members, draws)
        std = (0.5 * self.log_var).exp() * self.change.std
        return obs + self.change.inverse(mean), std.expand_as(mean)

    def fit(self, obs: Tensor, action: Tensor, next_obs: Tensor, generator: torch.Generator) -> Metrics:
        """obs [B, D], action [B, K], next_obs [B, D]. No data are held out: the evidence needs none."""
        check_transitions(obs, action, next_obs, self.obs_dim)
        c, size = self.config, len(obs)
        x, y = torch.cat([obs, action], 1), next_obs - obs
        self.inputs.fit(x)
        self.change.fit(next_obs.double() - obs.double())
        x, y = self.inputs(x), self.change(y)
        optimizer = Adam(self.parameters(), c.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, c.epochs)
        for epoch in range(c.epochs):
            weight = kl_weight(epoch, c)
            total = 0.0
            for index in torch.randperm(size, generator=generator).split(c.batch_size):
                fit = expected_log_likelihood(self.net, x[index], y[index], self.log_var, generator)
                kl = self.net.kl(c.prior) / size
                optimizer.zero_grad()
                (weight * kl - fit).backward()
                optimizer.step()
                total += len(index) * (kl - fit).detach()
            schedule.step()
        return {"loss/negative_elbo": float(total) / size}  # in the last epoch, nats per transition


def _check_linear(X: Tensor, y: Tensor, alpha: float, beta: float) -> None:
    ok = X.ndim == 2 and y.shape == X.shape[:1] and X.numel() > 0
    require(ok, f"X must be [n, d] and y [n], got {list(X.shape)} and {list(y.shape)}")
    require(bool(X.isfinite().all() and y.isfinite().all()), "X and y must be finite")
    for name, value in (("alpha", alpha), ("beta", beta)):
        require(0 < value < math.inf, f"{name} must be positive, got {value}")
