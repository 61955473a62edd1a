"""Plan through the learned model: v0.5, v1.0 and v1.5 of the lecture are settings of one loop.

a_1..a_T = argmax J,   J = 1/E sum_e sum_t r(s_{t,e}, a_t, s_{t+1,e}),   s_{t+1,e} = f_e(s_{t,e}, a_t)

v0.5  random data, fit f, plan              --train.no-aggregate --algo.replan-every T
v1.0  ... and add what the plan met         --algo.replan-every T
v1.5  ... and plan anew after every step    --algo.replan-every 1, model-predictive control

Nagabandi et al. 2018; ensembles as in Berkeley's CS 285. The search over actions is random shooting, CEM or
MPPI from common.stochastic_search. PDDM (Nagabandi et al. 2019) is MPPI over the members of an ensemble, its
noise filtered along the plan, so that samples push one way for a while instead of trembling:

n_t = beta u_t + (1 - beta) n_{t-1},  u_t ~ N(0, std^2),  n_0 = 0    --algo.search mppi --algo.noise-beta

A rollout of the model ends where the task terminates: nothing is earned
afterwards. A plan whose return is not finite ranks last. What is played is the mean of the last distribution,
not the best sample, which is the one that is best at exploiting the errors of the model. No gradient flows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from common.envs.model_tasks import ModelTask
from common.replay import Batch
from common.seeding import generator
from common.stochastic_search import cem, mppi, random_shooting
from common.types import EnvSpec, Metrics, require, require_at_least, require_positive, require_unit
from hw4_model_based.dynamics import Dynamics, DynamicsConfig

Step = Callable[[Tensor, Tensor], Tensor]  # obs [P, B, D], action [B, K] -> next_obs [P, B, D]


@dataclass(frozen=True)
class MPCConfig:
    search: Literal["random", "cem", "mppi"] = "cem"  # how the actions are searched
    horizon: int = 10  # T, steps planned ahead
    replan_every: int = 1  # steps played of each plan
    samples: int = 100  # plans per iteration of the search
    iterations: int = 3  # of CEM and MPPI
    elites: int = 10  # best samples, to which CEM fits its Gaussian
    alpha: float = 0.1  # weight of the old mean and variance in the new ones, CEM
    std: float = 0.5  # of the first Gaussian; actions lie in [-1, 1]
    temperature: float = 0.1  # of MPPI, in units of reward: what a plan may lose and still count
    noise_beta: float = 1.0  # share of new noise in that of a step, MPPI; 1 is white, less is smooth (PDDM)
    model: DynamicsConfig = field(default_factory=DynamicsConfig)  # settings of the dynamics

    def __post_init__(self):
        require_at_least(self, 1, "horizon", "samples", "iterations", "elites")
        ok = 1 <= self.replan_every <= self.horizon
        require(ok, f"replan_every must lie in [1, horizon = {self.horizon}], got {self.replan_every}")
        ok = self.elites <= self.samples
        require(ok, f"elites must be at most samples = {self.samples}, got {self.elites}")
        require(self.alpha < 1, f"alpha must lie in [0, 1), got {self.alpha}")
        require_unit(self, "alpha")
        require_positive(self, "std", "temperature", "noise_beta")
        require_unit(self, "noise_beta")
        ok = self.noise_beta == 1 or self.search == "mppi"
        require(ok, f"noise_beta must be 1 unless search is mppi, got {self.noise_beta} with {self.search}")


def imagined_return(step: Step, task: ModelTask, obs: Tensor, actions: Tensor, particles: int) -> Tensor:
    """Of plans [B, T, K] from obs [B, D]: the mean over `particles` rollouts of each, [B].

    All P B rollouts advance together, in O(P B D) memory whatever the horizon.
    """
    state = obs.expand(particles, *obs.shape)  # [P, B, D]
    total = state.new_zeros(state.shape[:2])
    alive = torch.ones_like(total, dtype=torch.bool)
    for action in actions.unbind(1):
        following = step(state, action)
        reward = task.reward(state, action.expand(particles, -1, -1), following)
        shape = reward.shape
        require(shape == total.shape, f"reward must be {list(total.shape)}, got {list(shape)}")
        total = torch.where(alive, total + reward, total)
        alive = alive & ~task.terminated(following)
        state = following
    return total.mean(0)


def filtered_noise(u: Tensor, beta: float) -> Tensor:
    """n_t = beta u_t + (1 - beta) n_{t-1} along the steps of u [..., T, K], n_0 = 0."""
    n = [beta * u[..., 0, :]]
    for u_t in u.unbind(-2)[1:]:
        n.append(beta * u_t + (1 - beta) * n[-1])
    return torch.stack(n, -2)


def plan(
    step: Step,
    task: ModelTask,
    obs: Tensor,
    warm: Tensor,
    config: MPCConfig,
    particles: int,
    draws: torch.Generator,
) -> Tensor:
    """Actions [N, T, K] for obs [N, D], all N problems and all samples in one batch. The search begins at
    `warm` [N, T, K]."""
    N, T, K = warm.shape
    c, mean = config, warm.flatten(1)

    def score(x: Tensor) -> Tensor:
        samples = len(x)
        start = obs.expand(samples, -1, -1).reshape(samples * N, -1)
        actions = x.reshape(samples * N, T, K)
        return imagined_return(step, task, start, actions, particles).view(samples, N)

    if c.search == "random":
        found = random_shooting(score, -torch.ones_like(mean), torch.ones_like(mean), c.samples, draws)
    elif c.search == "cem":
        found = cem(
            score, mean, c.std, c.iterations, c.samples, c.elites, c.alpha, -1.0, 1.0, generator=draws
        )
    else:

        def smooth(u: Tensor) -> Tensor:
            return filtered_noise(u.unflatten(-1, (T, K)), c.noise_beta).flatten(-2)

        limits = {"low": -1.0, "high": 1.0}
        settings = (c.std, c.temperature, c.iterations, c.samples)
        found = mppi(score, mean, *settings, **limits, generator=draws, correlate=smooth)
    return found.mean.unflatten(1, (T, K))


class MPC:
    """A model and a planner. The policy remembers its plan, so `act` and `explore` are the agent itself."""

    def __init__(self, spec: EnvSpec, task: ModelTask, config: MPCConfig, seed: int):
        require(not spec.discrete, "env_id must have continuous actions for model-predictive control")
        self.config, self.task, self.num_envs = config, task, spec.num_envs
        self.draws, self.fits = generator(seed, "plan"), generator(seed, "model")
        self.model = self.new_model(spec)
        self.plan = torch.zeros(spec.num_envs, config.horizon, spec.action_dim)  # from this step on
        self.left = 0  # steps of it to play before the next one

    def new_model(self, spec: EnvSpec) -> nn.Module:
        return Dynamics(spec.obs_dim, spec.action_dim, self.config.model, self.fits)

    @property
    def act(self) -> MPC:
        return self

    @property
    def explore(self) -> MPC:
        return self

    def begin(self, first: np.ndarray) -> None:
        """New episodes in the environments `first` [N] bool: their plans are forgotten, all plan anew."""
        if len(first) != len(self.plan):
            self.plan = torch.zeros(len(first), *self.plan.shape[1:])
        self.plan[torch.from_numpy(first)] = 0.0
        self.left = 0

    @torch.no_grad()
    def __call__(self, obs: np.ndarray, step: int = 0) -> np.ndarray:
        """[N, D] -> [N, K]"""
        if self.left == 0:
            obs = torch.from_numpy(obs).float()
            self.plan = self.search(obs, self.plan)
            self.left = self.config.replan_every
        action, self.left = self.plan[:, 0].numpy(), self.left - 1
        self.plan = torch.cat([self.plan[:, 1:], torch.zeros_like(self.plan[:, :1])], 1)
        return action

    def search(self, obs: Tensor, warm: Tensor) -> Tensor:
        """The mean prediction of every member: obs [N, D], warm [N, T, K] -> [N, T, K]."""

        def step(state: Tensor, action: Tensor) -> Tensor:
            return self.model.predict(state, action.expand(len(state), -1, -1))[0]

        return plan(step, self.task, obs, warm, self.config, self.model.elites, self.draws)

    def update(self, batch: Batch) -> Metrics:
        """Fit the model to all data."""
        return self.model.fit(batch.obs, batch.action, batch.next_obs, self.fits)
