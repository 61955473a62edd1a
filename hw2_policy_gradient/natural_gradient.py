"""Natural policy gradient (Kakade 2001), the step as long as the trust region allows.

theta' = theta + alpha F^-1 g,  g = grad E[log pi(a|s) A],  F = E[grad log pi(a|s) grad log pi(a|s)^T]
alpha = sqrt(2 eps / g^T F^-1 g):  KL(pi_theta || pi_theta') = 1/2 (theta' - theta)^T F (theta' - theta) = eps
to second order. F is the Hessian of that KL, is never formed, and is inverted by conjugate gradient.
A = GAE(gamma, lam), V fitted to A + V.  No gradient flows through A or the targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from common.networks import mlp
from common.normalizer import RewardScaler
from common.optim import Adam, conjugate_gradient
from common.schedules import Linear
from common.seeding import generator
from common.types import EnvSpec, Metrics, Rollout, require, require_at_least, require_positive, require_unit
from hw2_policy_gradient.policies import Policy, require_network
from hw2_policy_gradient.returns import critic_advantage, explained_variance, standardize


@dataclass(frozen=True)
class NaturalGradientConfig:
    gamma: float = 0.99  # discount
    lam: float = 0.95  # GAE's lambda
    max_kl: float = 0.01  # eps in nats, by how much a step moves the policy, TRPO's at most
    max_kl_decay: bool = False  # linearly to zero over the run
    damping: float = 0.1  # times the identity, added to F
    cg_iterations: int = 10  # products F v per step
    value_lr: float = 1e-3  # learning rate of V
    value_epochs: int = 10  # passes of V over each rollout
    batch_size: int = 128  # transitions per gradient step of V
    hidden: tuple[int, ...] = (64, 64)  # units per layer
    log_std: float = 0.0  # initial log standard deviation of continuous actions
    normalize_obs: bool = False  # by running mean and deviation
    normalize_reward: bool = False  # by the deviation of the discounted return

    def __post_init__(self):
        require_unit(self, "gamma", "lam")
        require_positive(self, "max_kl", "damping", "value_lr")
        require_at_least(self, 1, "cg_iterations", "value_epochs", "batch_size")
        require_network(self.hidden, self.log_std)


@torch.enable_grad()
def fisher(policy: nn.Module, obs: Tensor, damping: float) -> Callable[[Tensor], Tensor]:
    """v -> (F + damping I) v: [P] -> [P] over the policy's P parameters, F the mean over obs [..., D].

    F = mean sum_i w_i J_i^T J_i of what the policy puts out, J v by differentiating J^T y, linear in y, by y.
    grad(grad KL . v) is the same with twice the work: the curvature of the network, times zero. `policy` must
    stand still meanwhile.
    """
    ok = obs.numel() > 0 and bool(torch.isfinite(obs).all())
    require(ok, f"obs must be finite and hold at least one observation, got {list(obs.shape)}")
    require(damping >= 0, f"damping must be at least 0, got {damping}")
    parameters = [*policy.parameters()]
    parts = [(x, w) for x, w in policy(obs).information() if x.requires_grad]  # a sigma may be given
    outputs, weights = [x for x, _ in parts], [w / obs[..., 0].numel() for _, w in parts]
    y = [torch.zeros_like(x, requires_grad=True) for x in outputs]
    slope = parameters_to_vector(torch.autograd.grad(outputs, parameters, y, create_graph=True))

    def product(vector: Tensor) -> Tensor:
        ok = vector.shape == slope.shape and vector.dtype == slope.dtype
        ok = ok and bool(torch.isfinite(vector).all())
        wanted, got = (f"{list(x.shape)} {x.dtype}" for x in (slope, vector))
        require(ok, f"vector must be finite and {wanted} as the parameters are, got {got}")
        vector = vector.detach()  # constant, wherever it came from
        with torch.enable_grad():
            moved = torch.autograd.grad(slope @ vector, y, retain_graph=True)  # J v
        weighted = [w * change for w, change in zip(weights, moved, strict=True)]
        image = torch.autograd.grad(outputs, parameters, weighted, retain_graph=True)
        return parameters_to_vector(image) + damping * vector

    return product


def fisher_vector_product(policy: nn.Module, obs: Tensor, vector: Tensor, damping: float) -> Tensor:
    """(F + damping I) vector, once; `fisher` shares the first pass between many."""
    return fisher(policy, obs, damping)(vector)


def natural_step(
    gradient: Tensor, fvp: Callable[[Tensor], Tensor], max_kl: float, iterations: int | None = None
) -> Tensor:
    """alpha F^-1 g, alpha = sqrt(2 max_kl / g^T F^-1 g): [P] -> [P]. A zero gradient gives a zero step.

    alpha is computed from x^T F x, x = F^-1 g, which is the same if x is exact. If conjugate gradient stops
    early, the step has a second-order KL of max_kl all the same.
    """
    require(0 <= max_kl < math.inf, f"max_kl must be at least 0, got {max_kl}")
    require(bool(torch.isfinite(gradient).all()), "gradient must be finite, got nan or inf")
    largest = gradient.abs().max()
    if largest == 0:
        return torch.zeros_like(gradient)
    x = conjugate_gradient(fvp, gradient / largest, iterations)  # a step knows no length of g, squares do
    return x * (2 * max_kl / (x @ fvp(x))).sqrt()


def policy_gradient(policy: nn.Module, obs: Tensor, action: Tensor, advantage: Tensor) -> Tensor:
    """g = grad mean(log pi(a|s) A): [P]. It is also the gradient of mean(r A) at r = 1."""
    objective = (policy(obs).log_prob(action) * advantage).mean()
    return parameters_to_vector(torch.autograd.grad(objective, [*policy.parameters()]))


def fit_value(
    value: nn.Module,
    optimizer: torch.optim.Optimizer,
    obs: Tensor,
    target: Tensor,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
) -> Tensor:
    """Squared error of V towards fixed targets, in shuffled minibatches; obs [B, D], target [B].

    Returns the mean loss, left on the device.
    """
    losses = []
    for _ in range(epochs):
        order = torch.randperm(len(target), generator=generator, device=target.device)
        for x, y in zip(obs[order].split(batch_size), target[order].split(batch_size), strict=True):
            loss = nn.functional.mse_loss(value(x).squeeze(-1), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return torch.stack(losses).mean()


class NaturalGradient:
    def __init__(
        self,
        spec: EnvSpec,
        config: NaturalGradientConfig,  # or TRPOConfig, for TRPO
        total_updates: int,
        device: torch.device,
        seed: int,
    ):
        self.config = config
        self.max_kl = Linear(config.max_kl, 0.0 if config.max_kl_decay else config.max_kl, total_updates)
        self.generator = generator(seed, "explore", device=device)
        init = generator(seed, "init")
        self.policy = Policy(spec, config.hidden, config.log_std, config.normalize_obs, init).to(device)
        self.value = mlp(spec.obs_dim, *config.hidden, 1, generator=init).to(device)
        self.scale_reward = RewardScaler(spec.num_envs, config.gamma).to(device)
        self.value_optimizer = Adam(self.value.parameters(), config.value_lr)
        self.updates = 0

    def act(self, obs: np.ndarray) -> np.ndarray:
        return self.policy.act(obs)

    def explore(self, obs: np.ndarray, step: int) -> np.ndarray:
        return self.policy.act(obs, self.generator)

    def update(self, rollout: Rollout) -> Metrics:
        c = self.config
        obs, next_obs = self.policy.normalize(rollout.obs), self.policy.normalize(rollout.next_obs)
        if c.normalize_reward:
            rollout = rollout._replace(reward=self.scale_reward(rollout.reward, rollout.ended))
        advantage, target = critic_advantage(self.value, rollout, obs, next_obs, c.gamma, c.lam)
        metrics = self.actor_step(obs, rollout.action, standardize(advantage))
        data = (obs.flatten(0, 1), target.flatten())
        loss = fit_value(
            self.value, self.value_optimizer, *data, c.value_epochs, c.batch_size, self.generator
        )
        if c.normalize_obs:  # only now: within an iteration behaviour and update see the same inputs
            self.policy.normalize.update(rollout.obs)
        self.updates += 1
        explained = explained_variance(target - advantage, target)
        return metrics | {"loss/value": loss.item(), "value/explained_variance": explained.item()}

    def actor_step(self, obs: Tensor, action: Tensor, advantage: Tensor) -> Metrics:
        c, parameters, max_kl = self.config, [*self.policy.parameters()], self.max_kl(self.updates)
        gradient = policy_gradient(self.policy, obs, action, advantage)
        step = natural_step(gradient, fisher(self.policy, obs, c.damping), max_kl, c.cg_iterations)
        pi_old = self.policy(obs).frozen()
        vector_to_parameters(parameters_to_vector(parameters).detach() + step, parameters)
        with torch.no_grad():
            pi = self.policy(obs)
            return {
                "grad/norm": gradient.norm().item(),
                "policy/kl": pi_old.kl(pi).mean().item(),
                "policy/entropy": pi.entropy().mean().item(),
            }
