"""Moments through one step and through a rollout, then the agent."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from common import checkpoint
from common.envs.model_tasks import model_task
from common.envs.pendulum_dense import STEP, SYSTEM
from common.envs.pendulum_dense import observe as pendulum_obs
from common.replay import Batch
from common.types import EnvSpec, UsageError
from hw4_model_based.gp_dynamics import GaussianProcess, MomentMatching, bell, fit, predict
from hw4_model_based.pilco import (
    GOALS,
    PILCO,
    PILCOConfig,
    act_moments,
    expected_cost,
    far_apart,
    first_rows,
    goal_of,
    observe,
    state_of_obs,
    step_moments,
)
from tests.hw4.test_gp_dynamics import assert_equal, f64, normal, quadrature

ENV = "course/PendulumSwingUpDense-v0"
SPEC = EnvSpec(num_envs=1, obs_dim=3, action_dim=1, discrete=False)
TINY = PILCOConfig(horizon=4, basis=5, points=30, fit_iterations=20, iterations=4)
MEAN = f64([[0.3, -0.2], [2.8, 1.5]])
ROOT = f64([[[0.5, 0.0], [0.2, 0.3]], [[0.3, 0.0], [-0.4, 0.2]]])


ONE = torch.ones(1, dtype=torch.float64)
# Known, in [cos, sin, w].
POLICY = GaussianProcess(normal(6, 3), normal(1, 6), None, f64([[0.9, 1.2, 2.0]]), ONE, 0 * ONE)


def pendulum(size: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """[angle, w, action] and the change of [angle, w], at random states: [N, 3], [N, 2]."""
    g = torch.Generator().manual_seed(0)
    z = (2 * torch.rand(size, 3, generator=g, dtype=torch.float64) - 1) * f64([math.pi, 6.0, 1.0])
    return z, STEP(z[:, :2], SYSTEM.u_max * z[:, 2:]) - z[:, :2]


@pytest.fixture(scope="module")
def model() -> GaussianProcess:
    z, change = pendulum()
    return fit(torch.cat([pendulum_obs(z[:, :2]), z[:, 2:]], 1), change, 60)


def batch(size: int = 40) -> Batch:
    """As the replay has them."""
    z, change = (x.float() for x in pendulum(size))
    obs, next_obs = pendulum_obs(z[:, :2]), pendulum_obs(z[:, :2] + change)
    return Batch(obs, z[:, 2:], torch.zeros(size), next_obs, torch.zeros(size, dtype=torch.bool))


def decide(obs: torch.Tensor) -> torch.Tensor:
    return predict(POLICY, obs)[0].sin()


def lead(model: GaussianProcess, x: torch.Tensor) -> torch.Tensor:
    """The step of the means."""
    obs = pendulum_obs(x)
    return x + predict(model, torch.cat([obs, decide(obs)], -1))[0]


def matched(
    model: GaussianProcess, mean: torch.Tensor, cov: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return step_moments(MomentMatching(model), MomentMatching(POLICY), mean, cov, observe(mean, cov, 0))


@pytest.mark.parametrize("angle", [0, 1])
def test_moments_of_an_observed_angle_equal_quadrature(angle):
    """[cos, sin, w] of [angle, w], and [v, cos, sin] of [v, angle]; exact, as both are Gaussian before."""

    def show(x):
        parts = [
            x[:, :angle],
            x[:, angle : angle + 1].cos(),
            x[:, angle : angle + 1].sin(),
            x[:, angle + 1 :],
        ]
        obs = torch.cat(parts, 1)
        return obs, torch.zeros_like(obs)

    assert_equal(observe(MEAN, ROOT @ ROOT.mT, angle), quadrature(show, MEAN, ROOT), 1e-10)
    obs, _ = show(MEAN)
    torch.testing.assert_close(state_of_obs(obs, angle), MEAN, rtol=0, atol=1e-12)


def test_a_certain_observation_gives_the_policy_and_its_slope():
    obs = pendulum_obs(MEAN)
    found = act_moments(MomentMatching(POLICY), obs, torch.zeros(2, 3, 3, dtype=torch.float64))
    torch.testing.assert_close(found.mean, decide(obs), rtol=0, atol=1e-12)
    assert found.cov.abs().max() < 1e-12
    slope = torch.func.vmap(torch.func.jacrev(lambda o: decide(o[None])[0]))(obs)
    torch.testing.assert_close(found.slope.mT, slope, rtol=0, atol=1e-10)


def test_a_certain_state_is_led_by_the_means_and_widened_by_what_is_not_known(model):
    mean, cov = matched(model, MEAN, torch.zeros(2, 2, 2, dtype=torch.float64))
    torch.testing.assert_close(mean, lead(model, MEAN), rtol=0, atol=1e-10)
    obs = pendulum_obs(MEAN)
    _, var = predict(model, torch.cat([obs, decide(obs)], 1))
    torch.testing.assert_close(cov, torch.diag_embed(var), rtol=0, atol=1e-8)


def test_a_small_covariance_goes_through_the_jacobian_of_the_closed_loop(model):
    """J S J' of state -> observation -> action -> change -> state, every input-output covariance in place."""
    known = model._replace(inverse=None)
    S = 1e-6 * ROOT @ ROOT.mT
    _, cov = matched(known, MEAN, S)
    J = torch.func.vmap(torch.func.jacrev(lambda x: lead(known, x[None])[0]))(MEAN)
    torch.testing.assert_close(cov, J @ S @ J.mT, rtol=0, atol=2e-3 * float(S.abs().max()))


def test_a_wide_covariance_is_near_that_of_particles(model):
    """Matching is approximate where functions follow each other: within a tenth of 40,000 particles."""
    mean, cov = matched(model._replace(inverse=None), MEAN, ROOT @ ROOT.mT)
    for i in range(2):
        following = lead(model, MEAN[i] + normal(40_000, 2) @ ROOT[i].mT)
        truth = following.T.cov()
        torch.testing.assert_close(
            mean[i], following.mean(0), rtol=0, atol=0.1 * truth.diagonal().sqrt().max()
        )
        torch.testing.assert_close(cov[i], truth, rtol=0, atol=0.15 * truth.abs().max())


def test_the_expected_cost_of_a_certain_world_is_that_of_its_rollout(model):
    known, goal = model._replace(inverse=None, noise=torch.zeros(2, dtype=torch.float64)), GOALS[ENV]
    found = expected_cost(known, POLICY, MEAN, torch.zeros(2, 2, 2, dtype=torch.float64), 8, goal)
    x, earned = MEAN, 0.0
    for _ in range(8):
        x = lead(known, x)
        earned = earned + model_task(ENV).reward(x, x, pendulum_obs(x))
    torch.testing.assert_close(found, 1 - earned / 8, rtol=0, atol=1e-8)


def test_the_noise_of_the_world_widens_every_state(model):
    """One step from a certain state: N(led, diag noise^2), seen through [cos, sin, w]."""
    known, goal = model._replace(inverse=None, noise=f64([0.3, 0.2])), GOALS[ENV]
    found = expected_cost(known, POLICY, MEAN, torch.zeros(2, 2, 2, dtype=torch.float64), 1, goal)
    o = observe(lead(known, MEAN), torch.diag(f64([0.09, 0.04])).expand(2, 2, 2), 0)
    expected = 1 - bell(o.mean, o.cov, f64(goal.target), f64(goal.weight))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


def test_the_gradient_of_the_expected_cost_is_that_of_differences(model):
    agent = PILCO(SPEC, GOALS[ENV], TINY, 0)
    agent.theta = agent.fresh_policy(batch().obs.double())
    cov = 0.01 * torch.eye(2, dtype=torch.float64)[None]

    def loss(theta):
        return expected_cost(model, agent.policy(theta), MEAN[:1], cov, 4, GOALS[ENV]).mean()

    theta = agent.theta.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(theta), theta)
    assert len(theta) == 5 * 3 + 5 + 3
    for i in (0, 7, 16, 21):
        step = 1e-3 * torch.eye(len(theta), dtype=torch.float64)[i]  # in smaller ones rounding shows
        difference = (loss(agent.theta + step) - loss(agent.theta - step)) / 2e-3
        assert slope[i].item() == pytest.approx(difference.item(), abs=1e-8)


def test_goals_are_the_rewards_of_their_environments():
    for env_id, goal in GOALS.items():
        obs = pendulum_obs(3 * normal(20, 2))
        still = torch.zeros(20, 3, 3, dtype=torch.float64)
        found = bell(obs, still, f64(goal.target), f64(goal.weight))
        expected = model_task(env_id).reward(obs, obs[:, :1], obs)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_episodes_begin_where_the_last_step_did_not_lead():
    """Two environments side by side, three steps, then a new trial of one step."""
    obs = torch.tensor([0.0, 10, 1, 11, 2, 12, 5, 15])[:, None]
    next_obs = torch.tensor([1.0, 11, 2, 12, 3, 13, 6, 16])[:, None]
    rows = first_rows(Batch(obs, obs, obs, next_obs, obs), num_envs=2)
    assert rows.tolist() == [0, 1, 6, 7]


def test_rows_far_apart_leave_out_the_crowd():
    x = f64([0.0, 0.1, 0.05, 9.0, 5.0, 0.02])[:, None]
    assert far_apart(x, 3).tolist() == [0, 3, 4]
    assert sorted(far_apart(x, 99).tolist()) == [0, 1, 2, 3, 4, 5]
    assert far_apart(torch.ones(4, 2), 2).tolist() == [0, 0]


def test_a_turn_through_the_bottom_is_a_small_change():
    """Angles of 3.1 and -3.1 are 0.083 apart."""
    agent = PILCO(SPEC, GOALS[ENV], TINY, 0)
    angle = torch.linspace(3.0, 3.3, 20)
    obs, following = (torch.stack([a.cos(), a.sin(), torch.ones(20)], 1) for a in (angle, angle + 0.083))
    action = torch.linspace(-1, 1, 20)[:, None]
    gp = agent.fit_model(Batch(obs, action, angle, following, angle > 0))
    mean, _ = predict(gp, torch.cat([obs, action], 1).double())
    assert (mean[:, 0] - 0.083).abs().max() < 1e-3


def test_an_update_lowers_the_expected_cost_and_acts_within_limits():
    agent = PILCO(SPEC, GOALS[ENV], TINY, 0)
    metrics = agent.update(batch())
    assert metrics["loss/expected_cost"] < metrics["loss/expected_cost_before"]
    obs = batch().obs.numpy()
    action = agent.act(obs)
    assert action.shape == (40, 1)
    assert np.abs(action).max() <= 1
    assert np.array_equal(action, agent.explore(obs, 0))


def test_the_first_state_varies_as_those_seen_and_by_the_spread():
    """Each row of the batch begins an episode."""
    config = replace(TINY, spread=0.5, points=10, fit_iterations=2, iterations=2)
    agent = PILCO(SPEC, GOALS[ENV], config, 0)
    metrics = agent.update(batch())
    first = state_of_obs(batch().obs.double(), 0)
    cov = first.T.cov(correction=0) + 0.25 * torch.eye(2, dtype=torch.float64)
    policy, mean = agent.policy(agent.theta), first.mean(0, keepdim=True)
    expected = expected_cost(agent.fit_model(batch()), policy, mean, cov[None], 4, GOALS[ENV])
    assert metrics["loss/expected_cost"] == pytest.approx(expected.item(), abs=1e-9)


def test_where_the_last_policy_is_stuck_a_better_fresh_one_takes_its_place():
    """A policy whose centres lie where nobody comes has no gradient. It stays, or is replaced."""
    costs = []
    for stuck in (1.0, 0.0):
        agent = PILCO(SPEC, GOALS[ENV], replace(TINY, stuck=stuck), 0)
        agent.update(batch())
        agent.theta[: TINY.basis * SPEC.obs_dim] = 1e3
        far = agent.theta.clone()
        metrics = agent.update(batch())
        costs.append(metrics["loss/expected_cost"])
        assert torch.equal(agent.theta, far) == (stuck == 1.0)
    assert costs[1] < costs[0]


def test_an_agent_put_back_goes_on_as_it_would_have():
    one, two = (PILCO(SPEC, GOALS[ENV], TINY, 0) for _ in range(2))
    one.update(batch())
    checkpoint.restore(two, copy.deepcopy(checkpoint.state_of(one)))
    assert one.update(batch()) == two.update(batch())
    assert torch.equal(one.theta, two.theta)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"points": 1}, "points must be at least 2, got 1"),
        ({"spread": 0.0}, "spread must be positive, got 0.0"),
    ],
)
def test_bad_settings_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        PILCOConfig(**settings)


def test_an_environment_without_a_goal_is_refused():
    with pytest.raises(
        UsageError, match="env_id must have a goal for PILCO, one of course/PendulumSwingUpDense"
    ):
        goal_of("Ant-v5")
    with pytest.raises(UsageError, match="env_id must have continuous actions"):
        PILCO(SPEC._replace(discrete=True), GOALS[ENV], TINY, 0)
