"""Gradient-free policy search on the parameters theta of a policy, f(theta) its return in one episode.

Evolution strategies (Salimans et al. 2017, algorithm 2; NES: Wierstra et al. 2014)
  J(theta) = E[f(theta + sigma eps)], eps ~ N(0, I);   grad J = E[f(theta + sigma eps) eps] / sigma
  in pairs +eps, -eps: the mean of (f(theta + sigma eps) - f(theta - sigma eps)) eps / (2 sigma)
  theta <- theta + lr grad J, with the rank of the return, -1/2 to 1/2, for f: any increasing function of the
  return gives the same search
ARS (Mania et al. 2018): of the best pairs only; for f the return over its deviation; normalised observations
CMA-ES (Hansen 2016): members theta + sigma y, y ~ N(0, C); ranks move theta, sigma and C

Members act by the mode of their policy; nothing is differentiated. All noise comes from the seed, the
generation and the number of the member: a process that knows them needs nothing of what another one drew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from common.covariance_adaptation import CMAState, cma_update, roots
from common.evaluation import Act
from common.population import Episodes
from common.seeding import generator
from common.types import EnvSpec, Metrics, require, require_at_least, require_positive
from hw2_policy_gradient.policies import Policy, require_network


@dataclass(frozen=True)
class EvolutionConfig:
    population: int = 16  # members per generation, one episode each
    sigma: float = 0.1  # deviation of a member's parameters from theta
    lr: float = 0.03  # learning rate
    fitness: Literal["ranks", "returns"] = "ranks"  # what is ascended; returns: over their deviation
    best: float = 0.5  # share of the pairs that count, those with the best members
    hidden: tuple[int, ...] = ()  # units per layer; none is a linear policy
    normalize_obs: bool = False  # by running mean and deviation

    def __post_init__(self):
        require_at_least(self, 2, "population")
        require(self.population % 2 == 0, f"population must be even, got {self.population}")
        require_positive(self, "sigma", "lr")
        require(0 < self.best <= 1, f"best must lie in (0, 1], got {self.best}")
        require_network(self.hidden, 0.0)


@dataclass(frozen=True)
class CMAESConfig:
    population: int = 16  # members per generation, one episode each
    sigma: float = 0.5  # deviation of a member's parameters from theta at first
    hidden: tuple[int, ...] = ()  # units per layer; none is a linear policy
    normalize_obs: bool = False  # by running mean and deviation

    def __post_init__(self):
        require_at_least(self, 4, "population")
        require_positive(self, "sigma")
        require_network(self.hidden, 0.0)


def centred_ranks(x: Tensor) -> Tensor:
    """[n] -> [n]: the share of the others below less the share above, halved; equal ones get the same."""
    below = (x[:, None] > x).sum(1) - (x[:, None] < x).sum(1)
    return below.to(x) / (2 * max(len(x) - 1, 1))


def standardised(x: Tensor) -> Tensor:
    """[n] -> [n]: mean 0 (which pairs cancel anyway), deviation 1; zeros where all are equal."""
    return (x - x.mean()) / x.std(correction=0).clamp(min=1e-8)


def best_pairs(returns: Tensor, share: float) -> Tensor:
    """[M] -> [m]: the members 2k, 2k + 1 of the pairs whose better one is among the best."""
    better = returns.view(-1, 2).amax(1)
    pairs = better.argsort(descending=True, stable=True)[: max(1, round(share * len(better)))]
    return torch.stack((2 * pairs, 2 * pairs + 1), 1).flatten()


def search_gradient(fitness: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """mean f eps / sigma: [n], [n, P] -> [P]."""
    return fitness.to(noise) @ noise / (len(fitness) * sigma)


def standard_normal(seed: int, generation: int, members: Iterable[int], like: Tensor) -> Tensor:
    """[n, P]: the noise of each member, whoever asks."""
    draws = [torch.randn(len(like), generator=generator(seed, "noise", generation, k)) for k in members]
    return torch.stack(draws).to(like)


def side_by_side(policy: Policy, parameters: Tensor) -> Act:
    """N policies: row i of parameters [N, P] in the place of the policy's own, acting in environment i."""
    layers, start = [], 0
    for layer in policy.net:
        if isinstance(layer, nn.Linear):
            n, size = layer.out_features, layer.weight.numel()
            weight, bias = parameters[:, start : start + size + n].split((size, n), 1)
            layers.append((weight.reshape(len(parameters), n, -1), bias[..., None]))
            start += size + n
    *inner, (last_weight, last_bias) = layers

    @torch.inference_mode()
    def act(obs: np.ndarray) -> np.ndarray:
        x = torch.as_tensor(obs, dtype=torch.float32, device=parameters.device)
        x = policy.normalize(x)[..., None]  # [N, D, 1]
        for weight, bias in inner:
            x = torch.baddbmm(bias, weight, x).tanh()
        out = torch.baddbmm(last_bias, last_weight, x)[..., 0]  # [N, A] or [N, K]
        return (out.argmax(-1) if policy.log_std is None else out).cpu().numpy()

    return act


class Evolution:
    def __init__(self, spec: EnvSpec, config: EvolutionConfig, device: torch.device, seed: int):
        self.config, self.population, self.seed, self.generation = config, config.population, seed, 0
        init = generator(seed, "init")
        self.policy = Policy(spec, config.hidden, 0.0, config.normalize_obs, init).to(device)

    def act(self, obs: np.ndarray) -> np.ndarray:
        return self.policy.act(obs)

    def noise(self, members: Iterable[int]) -> Tensor:
        """eps [n, P] of these members, +eps of 2k and -eps of 2k + 1."""
        members = list(members)
        theta = parameters_to_vector(self.policy.net.parameters()).detach()
        sign = torch.tensor([1.0 - 2 * (k % 2) for k in members])[:, None].to(theta)
        return sign * standard_normal(self.seed, self.generation, (k // 2 for k in members), theta)

    def parameters(self, members: Iterable[int]) -> Tensor:
        """[n, P] of these members."""
        theta = parameters_to_vector(self.policy.net.parameters()).detach()
        return theta + self.config.sigma * self.noise(members)

    def members(self, first: int, count: int) -> Act:
        return side_by_side(self.policy, self.parameters(range(first, first + count)))

    def update(self, episodes: Episodes) -> Metrics:
        c, returns = self.config, torch.as_tensor(episodes.returns)
        members = best_pairs(returns, c.best)
        fitness = (centred_ranks if c.fitness == "ranks" else standardised)(returns[members])
        gradient = search_gradient(fitness, self.noise(members.tolist()), c.sigma)
        theta = parameters_to_vector(self.policy.net.parameters()).detach() + c.lr * gradient
        vector_to_parameters(theta, self.policy.net.parameters())
        if c.normalize_obs:
            self.policy.normalize.merge(episodes.steps, episodes.obs_mean, episodes.obs_var)
        self.generation += 1
        return {"grad/norm": gradient.norm().item(), "policy/norm": theta.norm().item()}


class CMAES:
    def __init__(self, spec: EnvSpec, config: CMAESConfig, device: torch.device, seed: int):
        self.config, self.population, self.seed, self.generation = config, config.population, seed, 0
        init = generator(seed, "init")
        self.policy = Policy(spec, config.hidden, 0.0, config.normalize_obs, init).to(device)
        self.theta = parameters_to_vector(self.policy.net.parameters()).detach().double()
        d = len(self.theta)
        require(d <= 2000, f"hidden must leave at most 2000 parameters for a covariance of them, got {d}")
        self.scale, self.C = 1.0, torch.eye(d).to(self.theta)  # sigma, over the one at first
        self.path_scale, self.path_c = torch.zeros_like(self.theta), torch.zeros_like(self.theta)

    def act(self, obs: np.ndarray) -> np.ndarray:
        return self.policy.act(obs)

    def steps(self, members: Iterable[int], root: Tensor) -> Tensor:
        """y [n, P] of these members."""
        return standard_normal(self.seed, self.generation, members, self.theta) @ root

    def parameters(self, members: Iterable[int]) -> Tensor:
        """[n, P] of these members."""
        root, _, _ = roots(self.C)
        return self.theta + self.scale * self.config.sigma * self.steps(members, root)

    def members(self, first: int, count: int) -> Act:
        return side_by_side(self.policy, self.parameters(range(first, first + count)).float())

    def update(self, episodes: Episodes) -> Metrics:
        root, inverse_root, longest = roots(self.C)
        best_first = torch.as_tensor(episodes.returns).argsort(descending=True, stable=True)
        y = self.steps(best_first.tolist(), root)
        state = CMAState(self.theta, self.scale, self.C, self.path_scale, self.path_c, self.generation)
        finite = torch.ones(len(y), dtype=torch.bool, device=y.device)
        after = cma_update(state, y, finite, inverse_root, self.config.sigma)
        self.theta, self.scale, self.C, self.path_scale, self.path_c, self.generation = after
        vector_to_parameters(self.theta.float(), self.policy.net.parameters())
        if self.config.normalize_obs:
            self.policy.normalize.merge(episodes.steps, episodes.obs_mean, episodes.obs_var)
        return {"policy/sigma": self.scale * self.config.sigma, "policy/longest_axis": longest}
