"""PILCO: backpropagate the expected cost through moments of a Gaussian process (Deisenroth, Rasmussen 2011).

J(theta) = sum_t E[1 - r(o_t)],   r(o) = exp(-1/2 (o - target)' W (o - target)),   x_t ~ N(m_t, S_t)
x_{t+1} = x_t + f(o_t, a_t),   o_t = (.., cos angle, sin angle, ..),   a_t = sin(sum_i w_i k(c_i, o_t))

1  fit a Gaussian process f to how the state changes
2  carry the Gaussian N(m_t, S_t) through observation, policy and model, each step matched in its first two
   moments; what the model does not know widens S_t, and a state far from the target with a wide S_t costs
   less than one that is surely there: the expected cost itself explores
3  theta <- argmin J by L-BFGS, gradient by backpropagation, from the last theta on, and from a fresh one too
   where that has found nothing; the policy has no noise
4  play a trial, add it to the data, go on with 1

The first state has the moments of those seen. The process is fitted to rows of the data that lie far apart,
as its cost grows with the cube of their number. Nothing is learned of the cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.replay import Batch
from common.seeding import generator
from common.types import (
    EnvSpec,
    Metrics,
    UsageError,
    require,
    require_at_least,
    require_positive,
    require_unit,
)
from hw4_model_based.gp_dynamics import (
    GaussianProcess,
    MomentMatching,
    Moments,
    bell,
    fit,
    minimize,
    predict,
    sine,
)


@dataclass(frozen=True)
class PILCOConfig:
    horizon: int = 40  # T, steps imagined
    basis: int = 30  # Gaussians of the policy
    points: int = 150  # transitions that the process is fitted to, at most
    spread: float = 0.1  # standard deviation of each entry of the first state, beside that of those seen
    fit_iterations: int = 60  # of L-BFGS, for the evidence
    iterations: int = 30  # of L-BFGS, for the policy
    stuck: float = 0.9  # expected cost in [0, 1] above which a fresh policy is tried beside the last one

    def __post_init__(self):
        require_at_least(self, 1, "horizon", "basis", "fit_iterations", "iterations")
        require_at_least(self, 2, "points")
        require_positive(self, "spread")
        require_unit(self, "stuck")


@dataclass(frozen=True)
class Goal:
    """Of an environment whose observation shows an angle as [cos, sin] from entry `angle` on."""

    angle: int
    target: tuple[float, ...]  # [D]
    weight: tuple[tuple[float, ...], ...]  # W [D, D]


# Those whose reward is such a bell.
GOALS = {
    "course/PendulumSwingUpDense-v0": Goal(
        0, (-1.0, 0.0, 0.0), ((2.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 0.0))
    ),
}


def goal_of(env_id: str) -> Goal:
    if env_id in GOALS:
        return GOALS[env_id]
    raise UsageError(f"env_id must have a goal for PILCO, one of {', '.join(GOALS)}, got {env_id!r}")


def state_of_obs(obs: Tensor, angle: int) -> Tensor:
    """[.., cos, sin, ..] -> [.., angle, ..]: [..., D] -> [..., D-1]"""
    turned = torch.atan2(obs[..., angle + 1], obs[..., angle])[..., None]
    return torch.cat([obs[..., :angle], turned, obs[..., angle + 2 :]], -1)


def observe(mean: Tensor, cov: Tensor, angle: int) -> Moments:
    """Moments of the observation [M, D] of states N(mean [M, n], cov [M, n, n])."""
    n = mean.shape[-1]
    rows = [*range(angle + 1), *range(angle, n)]  # the angle twice, as cos x = sin(x + pi/2)
    is_angle = torch.tensor([i in (angle, angle + 1) for i in range(n + 1)])
    shift = torch.zeros(n + 1, dtype=mean.dtype)
    shift[angle] = math.pi / 2
    z, cov_z = mean[:, rows] + shift, cov[:, rows][:, :, rows]
    s = sine(z, cov_z)
    slope = torch.where(is_angle, s.slope.diagonal(dim1=1, dim2=2), 1.0)  # [M, D]
    both = is_angle[:, None] & is_angle
    out = torch.where(both, s.cov, slope[:, :, None] * cov_z * slope[:, None])
    select = torch.eye(n, dtype=mean.dtype)[:, rows]
    return Moments(torch.where(is_angle, s.mean, z), out, select * slope[:, None])


def act_moments(policy: MomentMatching, mean: Tensor, cov: Tensor) -> Moments:
    """Of a = sin(v), v the sum of Gaussians, at observations N(mean [M, D], cov)."""
    v = policy(mean, cov)
    a = sine(v.mean, v.cov)
    return Moments(a.mean, a.cov, v.slope @ a.slope)


def step_moments(
    model: MomentMatching, policy: MomentMatching, mean: Tensor, cov: Tensor, o: Moments
) -> tuple[Tensor, Tensor]:
    """Of x_{t+1} from those of x_t, [M, n] and [M, n, n], and of its observation."""
    a = act_moments(policy, o.mean, o.cov)
    z_mean, cross = torch.cat([o.mean, a.mean], 1), o.cov @ a.slope
    z_cov = torch.cat([torch.cat([o.cov, cross], 2), torch.cat([cross.mT, a.cov], 2)], 1)
    f = model(z_mean, z_cov)
    x_o = cov @ o.slope
    x_f = torch.cat([x_o, x_o @ a.slope], 2) @ f.slope  # Cov[x, f]
    return mean + f.mean, cov + f.cov + x_f + x_f.mT


def expected_cost(
    model: GaussianProcess, policy: GaussianProcess, mean: Tensor, cov: Tensor, horizon: int, goal: Goal
) -> Tensor:
    """J over T: the mean of 1 - E r(o_t) for t = 1..T, of first states N(mean [M, n], cov [M, n, n]): [M]"""
    target, weight = mean.new_tensor(goal.target), mean.new_tensor(goal.weight)
    noise = torch.diag(model.noise.square())
    model, policy = MomentMatching(model), MomentMatching(policy)
    o, total = observe(mean, cov, goal.angle), torch.zeros_like(mean[:, 0])
    for _ in range(horizon):
        mean, cov = step_moments(model, policy, mean, cov, o)
        cov = cov + noise
        o = observe(mean, cov, goal.angle)
        total = total + bell(o.mean, o.cov, target, weight)
    return 1 - total / horizon


def first_rows(batch: Batch, num_envs: int) -> Tensor:
    """Rows of the batch in which an episode begins: they do not show where the row N before led."""
    goes_on = (batch.obs[num_envs:] == batch.next_obs[:-num_envs]).all(1)
    return torch.cat([torch.arange(num_envs), num_envs + (~goes_on).nonzero()[:, 0]])


def far_apart(x: Tensor, count: int) -> Tensor:
    """`count` rows of x [N, D], each the farthest from those before (Gonzalez 1985), every entry of x in
    units of its standard deviation."""
    x = x / x.std(0, correction=0).clamp(min=1e-6)
    rows, distance = [0], torch.full((len(x),), math.inf, dtype=x.dtype)
    for _ in range(min(count, len(x)) - 1):
        distance = torch.minimum(distance, (x - x[rows[-1]]).square().sum(1))
        rows.append(int(distance.argmax()))
    return torch.tensor(rows)


class PILCO:
    """The policy is its parameters theta: centres, weights and lengthscales."""

    def __init__(self, spec: EnvSpec, goal: Goal, config: PILCOConfig, seed: int):
        require(not spec.discrete, "env_id must have continuous actions for PILCO")
        self.config, self.goal, self.spec = config, goal, spec
        self.draws = generator(seed, "policy")
        size = config.basis * (spec.obs_dim + spec.action_dim) + spec.action_dim * spec.obs_dim
        self.theta = torch.zeros(size, dtype=torch.float64)
        self.begun = False

    def policy(self, theta: Tensor) -> GaussianProcess:
        """As a process that is known: centres [basis, D], weights [K, basis], lengthscales [K, D]."""
        D, K, basis = self.spec.obs_dim, self.spec.action_dim, self.config.basis
        centres, weights, log_length = theta.split((basis * D, basis * K, K * D))
        one = theta.new_ones(K)
        length = log_length.view(K, D).exp()
        return GaussianProcess(centres.view(basis, D), weights.view(K, basis), None, length, one, 0 * one)

    @torch.no_grad()
    def act(self, obs: np.ndarray) -> np.ndarray:
        """[N, D] -> [N, K]"""
        return predict(self.policy(self.theta), torch.from_numpy(obs).double())[0].sin().numpy()

    def explore(self, obs: np.ndarray, step: int) -> np.ndarray:
        return self.act(obs)

    def fresh_policy(self, obs: Tensor) -> Tensor:
        """Centres where data are, weights near zero, widths those of the data: obs [B, D]."""
        c, K = self.config, self.spec.action_dim
        rows = torch.randint(len(obs), (c.basis,), generator=self.draws)
        weights = 0.1 * torch.randn(c.basis * K, generator=self.draws, dtype=torch.float64)
        length = obs.std(0, correction=0).clamp(min=1e-3).log()
        return torch.cat([obs[rows].flatten(), weights, length.repeat(K)])

    def update(self, batch: Batch) -> Metrics:
        """Fit the process to all data, then the policy to the process."""
        c = self.config
        obs = batch.obs.double()
        if not self.begun:
            self.theta, self.begun = self.fresh_policy(obs), True
        model = self.fit_model(batch)
        first = state_of_obs(obs[first_rows(batch, self.spec.num_envs)], self.goal.angle)
        mean, apart = first.mean(0, keepdim=True), first - first.mean(0)
        cov = (apart.mT @ apart / len(first) + c.spread**2 * torch.eye(first.shape[1], dtype=obs.dtype))[None]

        def loss(theta: Tensor) -> Tensor:
            return expected_cost(model, self.policy(theta), mean, cov, c.horizon, self.goal).mean()

        def improved(theta: Tensor) -> tuple[float, Tensor]:
            theta = minimize(loss, theta, c.iterations)
            with torch.no_grad():
                return loss(theta).item(), theta

        with torch.no_grad():
            before = loss(self.theta).item()
        after, self.theta = improved(self.theta)
        if after > c.stuck:
            fresh, theta = improved(self.fresh_policy(obs))
            if fresh < after:
                after, self.theta = fresh, theta
        return {
            "loss/expected_cost": after,
            "loss/expected_cost_before": before,
            "model/noise_to_signal": (model.noise / model.signal).max().item(),
        }

    def fit_model(self, batch: Batch) -> GaussianProcess:
        obs, angle = batch.obs.double(), self.goal.angle
        x = torch.cat([obs, batch.action.double()], 1)
        y = state_of_obs(batch.next_obs.double(), angle) - state_of_obs(obs, angle)
        turn = torch.remainder(y[:, angle] + math.pi, 2 * math.pi) - math.pi
        y = torch.cat([y[:, :angle], turn[:, None], y[:, angle + 1 :]], 1)
        rows = far_apart(x, self.config.points)
        return fit(x[rows], y[rows], self.config.fit_iterations)
