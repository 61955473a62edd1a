"""The ladder from REINFORCE to GAE, measured: the variance of each estimator's gradient on CartPole.

Variance of the estimate g of one episode, summed over the parameters: E|g - E[g]|^2. What an estimator has to
learn (average, optimal constant, V, Q) it learns from one half of the episodes; g comes from the other half,
so that no baseline knows the episode it is subtracted from. The policy is REINFORCE's after some updates.
An optimal or a learned baseline removes what is common to all actions of a state. Q removes what the action
itself does as well, but most of what is left comes later: learned Q gains little on V (Tucker et al. 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributions import Categorical
from common.envs import registry
from common.networks import mlp
from common.optim import Adam, gradient_step
from common.rollout import Collector
from common.seeding import child_seed, generator
from common.types import Rollout, require
from hw2_policy_gradient.baselines import average_baseline, optimal_baseline
from hw2_policy_gradient.policies import Policy
from hw2_policy_gradient.reinforce import Reinforce, ReinforceConfig
from hw2_policy_gradient.returns import gae, reward_to_go, total_return

GAMMA, LAM = 0.99, 0.95
UPDATES = (0, 8, 16)  # of REINFORCE, before each measurement
FIT_STEPS = 1000  # of Adam, for V and Q
ESTIMATORS = {
    "total return": "grad log pi times the whole return",
    "reward-to-go": "causality: the rewards that follow",
    "average": "less the mean reward-to-go",
    "optimal": "less the constant of least variance",
    "learned V": "less V(s)",
    "learned Q": "less Q(s, a), its gradient added back",
    "GAE": f"lambda = {LAM}: less variance for some bias",
}


class Rung(NamedTuple):
    """The variance of one estimator at one moment of learning, and its 95 % bootstrap interval."""

    updates: int
    length: float  # steps per episode
    estimator: str
    variance: float
    low: float
    high: float


def episode_gradients(policy: Policy, obs: Tensor, coefficient: Tensor) -> Tensor:
    """sum_t sum_a c[t, a] grad log pi(a|s_t) for W sets of coefficients c: [T, D], [W, T, A] -> [W, P]."""
    log_p = policy(obs).log_p
    parameters = [*policy.parameters()]
    gradients = torch.autograd.grad(log_p, parameters, coefficient, is_grads_batched=True)
    return torch.cat([g.flatten(1) for g in gradients], 1)


def control_coefficient(pi: Categorical, action: Tensor, weight: Tensor, q: Tensor) -> Tensor:
    """Of the estimate with control variate Q: w - Q at the action taken, and pi(a|s) Q(s, a) at every action,
    since grad E_{a~pi}[Q] = sum_a pi Q grad log pi. [...], [...], [..., A] -> [..., A]"""
    p, taken = pi.log_p.exp().detach(), F.one_hot(action, q.shape[-1]).to(q)
    return taken * (weight[..., None] - q) + p * q


def fit_critic(
    outputs: int, obs: Tensor, action: Tensor, target: Tensor, g: torch.Generator
) -> Callable[[Tensor], Tensor]:
    """Regression of target [B] on obs [B, D] and action [B] < outputs: [..., D] -> [..., outputs]."""
    net = mlp(obs.shape[-1], 64, 64, outputs, generator=g)
    optimizer = Adam(net.parameters(), 3e-3)
    mean, std = target.mean(), target.std(correction=0) + 1e-8
    for _ in range(FIT_STEPS):
        i = torch.randint(len(obs), (512,), generator=g)
        value = net(obs[i]).gather(-1, action[i, None]).squeeze(-1)
        loss = F.mse_loss(value, (target[i] - mean) / std)
        gradient_step(loss, optimizer, [*net.parameters()], math.inf)
    return torch.no_grad()(lambda x: mean + std * net(x))


def ladder(agent: Reinforce, rollout: Rollout, g: torch.Generator) -> dict[str, Tensor]:
    """Estimator -> its estimates [M, P] from the first episodes of the M columns of the second half."""
    half, r = rollout.reward.shape[1] // 2, rollout
    with torch.no_grad():
        pi, after = agent.policy(r.obs), agent.value(r.next_obs).squeeze(-1)
    segment = (r.reward, r.ended, GAMMA, after * r.terminated.logical_not())
    total, to_go = total_return(*segment), reward_to_go(*segment)
    first = r.ended.cumsum(0) - r.ended.long() == 0  # [T, N] steps of the first episode
    known = first & (torch.arange(r.reward.shape[1]) < half)
    data = (r.obs[known], r.action[known], to_go[known])
    v_net = fit_critic(1, data[0], torch.zeros_like(data[1]), data[2], g)
    q = fit_critic(pi.log_p.shape[-1], *data, g)(r.obs)
    v, next_v = v_net(r.obs).squeeze(-1), v_net(r.next_obs).squeeze(-1)
    weights = {
        "score": torch.ones_like(to_go),
        "total return": total,
        "reward-to-go": to_go,
        "learned V": to_go - v,
        "GAE": gae(r.reward, v, next_v, r.terminated, r.ended, GAMMA, LAM),
    }
    taken = F.one_hot(r.action, q.shape[-1]).to(q)
    coefficient = {name: weight[..., None] * taken for name, weight in weights.items()}
    coefficient["learned Q"] = control_coefficient(pi, r.action, to_go, q)
    stacked = torch.stack([*coefficient.values()])  # [W, T, N, A]
    lengths = enumerate(first.sum(0).tolist())
    rows = [episode_gradients(agent.policy, r.obs[:end, n], stacked[:, :end, n]) for n, end in lengths]
    g_of = dict(zip(coefficient, torch.stack(rows, 1), strict=True))  # [N, P] each
    score, causal = g_of.pop("score"), g_of["reward-to-go"]
    g_of["average"] = causal - average_baseline(data[2]) * score
    g_of["optimal"] = causal - optimal_baseline(causal[:half], score[:half]) * score
    return {name: g_of[name][half:] for name in ESTIMATORS}


def spread(gradients: Tensor, rng: np.random.Generator) -> tuple[float, float, float]:
    """Total variance over the M episodes, and its 95 % bootstrap interval. [M, P]"""
    squares = (gradients - gradients.mean(0)).square().sum(-1).numpy() * len(gradients) / (len(gradients) - 1)
    low, high = np.quantile(rng.choice(squares, (1000, len(squares))).mean(1), [0.025, 0.975])
    return float(squares.mean()), float(low), float(high)


def measure(episodes: int, seed: int, updates: tuple[int, ...] = UPDATES) -> list[Rung]:
    """The ladder at each moment of learning."""
    require(episodes >= 4, f"episodes must be at least 4, got {episodes}")
    require(seed >= 0, f"seed must not be negative, got {seed}")
    cpu = torch.device("cpu")
    envs, many = (registry.make_envs("CartPole-v1", n) for n in (8, episodes))
    agent = Reinforce(registry.spec(envs), ReinforceConfig(gamma=GAMMA), 50, cpu, seed)
    learning, measuring = Collector(envs, cpu), Collector(many, cpu)
    learning.reset(child_seed(seed, "env"), 0)
    rng, rungs = np.random.default_rng(seed), []
    for k in range(max(updates) + 1):
        if k in updates:
            measuring.reset(child_seed(seed, "measure", k), 0)
            rollout, _ = measuring.collect(agent.explore, 500)  # the longest episode
            length = rollout.ended.int().argmax(0).float().mean().item() + 1
            for name, g in ladder(agent, rollout, generator(seed, "fit", k)).items():
                rungs.append(Rung(k, length, name, *spread(g, rng)))
        agent.update(learning.collect(agent.explore, 250)[0])
    return rungs
