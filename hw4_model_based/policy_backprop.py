"""Backpropagate through the learned model into the policy: v2.0 of the lecture.

theta <- argmax J,   J = sum_{t<T} r(s_t, a_t, s_{t+1}),   a_t = pi(theta, s_t),   s_{t+1} = f(s_t, a_t)

By the adjoint, with A = df/ds, B = df/da, K = dpi/ds, D = dpi/dtheta along the rollout and lambda_T = 0:

mu_t = dr_t/da + B_t' lambda_{t+1}                    what J gains by the action
lambda_t = dr_t/ds + A_t' lambda_{t+1} + K_t' mu_t    what J gains by the state
dJ/dtheta = sum_t D_t' mu_t

lambda_0 holds products of T matrices A + B K: they explode where the world under the policy is unstable or
chaotic and vanish where it is stable, as in a recurrent network, but here nature has chosen the cell. So the
horizon is kept short and the gradient's norm is cut. With a stochastic model and a value at the end this is
the SVG family (Heess et al. 2015, SVG(inf) of a noiseless world). Rollouts begin in states of the data, one
batch per member of the ensemble. No gradient flows into the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from common.envs.model_tasks import ModelTask
from common.networks import mlp, require_hidden
from common.optim import Adam, clip_gradient
from common.replay import Batch
from common.seeding import generator
from common.types import EnvSpec, Metrics, require, require_at_least, require_positive
from hw4_model_based.dynamics import Dynamics, DynamicsConfig

Step = Callable[[Tensor, Tensor], Tensor]  # s [..., n], a [..., m] -> s' [..., n]


@dataclass(frozen=True)
class BackpropConfig:
    horizon: int = 50  # T, steps imagined
    updates: int = 200  # gradient steps of the policy per fit of the model
    batch_size: int = 32  # rollouts per gradient step and member of the model
    hidden: tuple[int, ...] = (32, 32)  # units per layer of the policy
    lr: float = 2e-3  # Adam's, of the policy
    max_norm: float = 1.0  # of the gradient of J / T
    noise: float = 0.2  # standard deviation of what is added to the actions that are played
    model: DynamicsConfig = field(default_factory=DynamicsConfig)  # settings of the dynamics

    def __post_init__(self):
        require_at_least(self, 1, "horizon", "updates", "batch_size")
        require_hidden(self.hidden)
        require_positive(self, "lr", "max_norm")
        require(0 <= self.noise < np.inf, f"noise must be finite and at least 0, got {self.noise}")


class Derivatives(NamedTuple):
    """Along a rollout of T steps."""

    A: Tensor  # ds'/ds [T, n, n]
    B: Tensor  # ds'/da [T, n, m]
    K: Tensor  # da/ds [T, m, n]
    D: Tensor  # da/dtheta [T, m, P]
    r_s: Tensor  # [T, n], s' counted as a function of s and a
    r_a: Tensor  # [T, m]


def policy_return(
    step: Step, task: ModelTask, policy: Callable[[Tensor], Tensor], obs: Tensor, horizon: int
) -> Tensor:
    """J of rollouts from obs [..., D], differentiable: [...]. Nothing is earned after an episode's end."""
    total, alive = torch.zeros_like(obs[..., 0]), torch.ones_like(obs[..., 0], dtype=torch.bool)
    for _ in range(horizon):
        action = policy(obs)
        following = step(obs, action)
        total = torch.where(alive, total + task.reward(obs, action, following), total)
        alive = alive & ~task.terminated(following)
        obs = following
    return total


def differentiate(
    step: Step,
    reward: Callable[[Tensor, Tensor, Tensor], Tensor],
    policy: Callable[[Tensor, Tensor], Tensor],
    theta: Tensor,
    s: Tensor,
    horizon: int,
) -> Derivatives:
    """Every Jacobian along the rollout from s [n]; theta [P], policy(theta, s) -> a [m]."""
    require(horizon >= 1, f"horizon must be at least 1, got {horizon}")
    states, actions = [], []
    for _ in range(horizon):
        states, actions = [*states, s], [*actions, policy(theta, s)]
        s = step(s, actions[-1])
    s, a = torch.stack(states), torch.stack(actions)

    def earned(s: Tensor, a: Tensor) -> Tensor:
        return reward(s, a, step(s, a))

    A, B = vmap(jacrev(step, (0, 1)))(s, a)
    D, K = vmap(jacrev(policy, (0, 1)), (None, 0))(theta, s)
    return Derivatives(A, B, K, D, *vmap(jacrev(earned, (0, 1)))(s, a))


def adjoint(d: Derivatives) -> tuple[Tensor, Tensor]:
    """dJ/dtheta [P] and the costates lambda_0..lambda_T [T+1, n]."""
    costates, gradient = [torch.zeros_like(d.r_s[0])], torch.zeros_like(d.D[0, 0])
    for t in reversed(range(len(d.A))):
        mu = d.r_a[t] + d.B[t].mT @ costates[0]
        gradient = gradient + d.D[t].mT @ mu
        costates = [d.r_s[t] + d.A[t].mT @ costates[0] + d.K[t].mT @ mu, *costates]
    return gradient, torch.stack(costates)


def sensitivity(d: Derivatives) -> Tensor:
    """Norms of ds_t/da_0 = (A + B K)_{t-1} ... (A + B K)_1 B_0 for t = 1..T: [T]"""
    product, norms = d.B[0], []
    for t in range(len(d.A)):
        product = (d.A[t] + d.B[t] @ d.K[t]) @ product if t else product
        norms.append(torch.linalg.matrix_norm(product, 2))
    return torch.stack(norms)


def mean_step(model: Dynamics) -> Step:
    """The mean prediction of each member, differentiable: s [E, B, D], a [E, B, K] -> s' [E, B, D]."""

    def step(obs: Tensor, action: Tensor) -> Tensor:
        mean, _ = model(model.inputs(torch.cat([obs, action], -1)), model.elites)
        return obs + model.change.inverse(mean)

    return step


class Backprop:
    """A model, and a network that climbs its return."""

    def __init__(self, spec: EnvSpec, task: ModelTask, config: BackpropConfig, seed: int):
        require(not spec.discrete, "env_id must have continuous actions to be differentiated")
        obs = torch.zeros(1, spec.obs_dim, requires_grad=True)
        ok = task.reward(obs, torch.zeros(1, spec.action_dim), obs).requires_grad
        require(ok, "env_id must have a reward with a gradient, got a count of steps")
        self.config, self.task = config, task
        self.draws, self.fits = generator(seed, "policy"), generator(seed, "model")
        self.model = Dynamics(spec.obs_dim, spec.action_dim, config.model, self.fits)
        sizes = (spec.obs_dim, *config.hidden, spec.action_dim)
        layers = mlp(*sizes, generator=self.draws, last_gain=0.01)
        self.policy = nn.Sequential(layers, nn.Tanh())
        self.parameters = tuple(self.policy.parameters())
        self.optimizer = Adam(self.parameters, config.lr)

    @torch.no_grad()
    def act(self, obs: np.ndarray) -> np.ndarray:
        """[N, D] -> [N, K]"""
        return self.policy(torch.from_numpy(obs).float()).numpy()

    def explore(self, obs: np.ndarray, step: int) -> np.ndarray:
        action = self.act(obs)
        noise = self.config.noise * torch.randn(action.shape, generator=self.draws).numpy()
        return np.clip(action + noise, -1, 1)

    def update(self, batch: Batch) -> Metrics:
        """Fit the model to all data, then climb."""
        metrics = self.model.fit(batch.obs, batch.action, batch.next_obs, self.fits)
        steps = [self.policy_step(batch.obs) for _ in range(self.config.updates)]
        value, norm = torch.stack([torch.stack(pair) for pair in steps]).mean(0).tolist()
        return metrics | {"value/imagined_reward": value, "grad/policy_norm": norm}

    def policy_step(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """One gradient step from rows of obs [B, D]: J / T, and the gradient's norm before it was cut."""
        c = self.config
        rows = torch.randint(len(obs), (self.model.elites, c.batch_size), generator=self.draws)
        total = policy_return(mean_step(self.model), self.task, self.policy, obs[rows], c.horizon)
        value = total.mean() / c.horizon
        self.optimizer.zero_grad()
        (-value).backward(inputs=self.parameters)
        norm = clip_gradient(self.parameters, c.max_norm)
        self.optimizer.step()
        return value.detach(), norm
