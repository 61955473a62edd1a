"""Gradients through rollouts: the adjoint, autograd, closed forms; then the agent."""

import copy

import numpy as np
import pytest
import torch
from scipy import linalg

from common import checkpoint
from common.envs.integration import discretize
from common.envs.linear_quadratic import random_linear_quadratic
from common.envs.model_tasks import ModelTask, never
from common.envs.systems import CartPole
from common.replay import Batch
from common.types import EnvSpec, UsageError
from hw4_model_based.dynamics import Dynamics, DynamicsConfig
from hw4_model_based.policy_backprop import (
    Backprop,
    BackpropConfig,
    adjoint,
    differentiate,
    mean_step,
    policy_return,
    sensitivity,
)
from tests.hw4.models import LINE, line

SMALL = DynamicsConfig(
    members=2, elites=2, hidden=(16,), probabilistic=False, lr=1e-2, batch_size=16, max_epochs=30
)
SPEC = EnvSpec(num_envs=1, obs_dim=1, action_dim=1, discrete=False)


def f64(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def gradients(step, reward, policy, theta, s, horizon) -> tuple[torch.Tensor, torch.Tensor]:
    """dJ/dtheta by the adjoint and by autograd."""
    theta = theta.clone().requires_grad_()
    total = policy_return(step, ModelTask(reward, never), lambda s: policy(theta, s), s, horizon)
    (by_autograd,) = torch.autograd.grad(total, theta)
    by_adjoint, _ = adjoint(differentiate(step, reward, policy, theta.detach(), s, horizon))
    return by_adjoint, by_autograd


def lqr():
    """A, B, Q, R, the policy u = -K x with theta = K, and the reward -x'Qx - u'Ru."""
    A, B = f64([[1.0, 0.3, 0.0], [0.0, 1.1, 0.2], [0.1, 0.0, 0.8]]), f64([[0.0, 0.2], [1.0, 0.0], [0.3, 1.0]])
    Q, R = torch.diag(f64([1.0, 2.0, 0.5])), f64([[0.5, 0.1], [0.1, 0.3]])

    def step(s, a):
        return A @ s + B @ a

    def reward(s, a, next_s):
        return -(s @ Q @ s) - a @ R @ a

    def policy(theta, s):
        return -theta.view(2, 3) @ s

    return A, B, Q, R, step, reward, policy


def test_the_adjoint_equals_autograd_on_a_linear_system(generator):
    """Time-varying costs left out: an affine policy on x' = F [x; u] + f with a full quadratic cost."""
    lq = random_linear_quadratic(1, 4, 2, generator)

    def step(s, a):
        return lq.F[0] @ torch.cat([s, a]) + lq.f[0]

    def reward(s, a, next_s):
        z = torch.cat([s, a])
        return -0.5 * z @ lq.C[0] @ z - z @ lq.c[0] + (next_s * lq.c_final).sum()

    def policy(theta, s):
        return theta[:8].view(2, 4) @ s + theta[8:]

    theta = 0.1 * torch.randn(10, generator=generator, dtype=torch.float64)
    by_adjoint, by_autograd = gradients(step, reward, policy, theta, lq.x0, 30)
    torch.testing.assert_close(by_adjoint, by_autograd, rtol=1e-10, atol=0)


def test_the_adjoint_equals_autograd_on_a_network():
    step = discretize(CartPole().dynamics, 0.04)

    def reward(s, a, next_s):
        return -(next_s[1].cos() + 1).square() - 0.1 * s[2].square() - 0.01 * a.square().sum()

    def policy(theta, s):
        W, v = theta[:20].view(5, 4), theta[20:]
        return 5 * (v * (W @ s).tanh()).sum(0, keepdim=True)

    theta = torch.linspace(-1, 1, 25, dtype=torch.float64)
    by_adjoint, by_autograd = gradients(step, reward, policy, theta, f64([0.1, 0.2, 0.0, 0.3]), 25)
    torch.testing.assert_close(by_adjoint, by_autograd, rtol=1e-10, atol=1e-10)


def test_gradient_of_a_linear_policy_is_that_of_lqr():
    """2 ((R + B'PB) K - B'PA) sum_t x_t x_t' for u = -K x: P the policy's cost-to-go."""
    A, B, Q, R, step, reward, policy = lqr()
    K = f64([[0.2, 0.9, 0.1], [0.1, 0.0, 0.6]])
    closed = A - B @ K
    P = torch.from_numpy(linalg.solve_discrete_lyapunov(closed.mT.numpy(), (Q + K.mT @ R @ K).numpy()))
    x0 = f64([1.0, -0.5, 2.0])
    states = torch.from_numpy(linalg.solve_discrete_lyapunov(closed.numpy(), torch.outer(x0, x0).numpy()))
    expected = -2 * ((R + B.mT @ P @ B) @ K - B.mT @ P @ A) @ states  # of the return
    for found in gradients(step, reward, policy, K.flatten(), x0, 400):
        torch.testing.assert_close(found.view(2, 3), expected, rtol=0, atol=1e-10)


def test_nothing_is_left_to_gain_at_the_gains_of_lqr():
    A, B, Q, R, step, reward, policy = lqr()
    P = linalg.solve_discrete_are(*(x.numpy() for x in (A, B, Q, R)))
    P = torch.from_numpy(P)
    K = torch.linalg.solve(R + B.mT @ P @ B, B.mT @ P @ A)
    for found in gradients(step, reward, policy, K.flatten(), f64([1.0, -0.5, 2.0]), 400):
        assert found.abs().max() < 1e-10


def test_costates_are_the_gradient_of_what_is_to_come():
    *_, step, reward, policy = lqr()
    theta, x0 = f64([0.2, 0.9, 0.1, 0.1, 0.0, 0.6]), f64([1.0, -0.5, 2.0])
    _, costates = adjoint(differentiate(step, reward, policy, theta, x0, 12))
    s = x0
    for t in (0, 1, 2):
        s = s.clone().requires_grad_()
        task = ModelTask(reward, never)
        total = policy_return(step, task, lambda s: policy(theta, s), s, 12 - t)
        torch.testing.assert_close(costates[t], torch.autograd.grad(total, s)[0], rtol=1e-12, atol=0)
        s = step(s.detach(), policy(theta, s.detach()))
    assert costates[-1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("closed", [0.5, 1.2])
def test_sensitivity_is_a_power_of_the_closed_loop(closed):
    """s' = a s + 2 u with u = k s: ds_T/da_0 = 2 (a + 2 k)^(T-1), which vanishes or explodes."""

    def step(s, a):
        return 1.1 * s + 2 * a

    def policy(theta, s):
        return theta * s

    theta = f64([(closed - 1.1) / 2])
    d = differentiate(step, lambda s, a, next_s: next_s[0], policy, theta, f64([1.0]), 20)
    expected = 2 * closed ** torch.arange(20, dtype=torch.float64)
    torch.testing.assert_close(sensitivity(d), expected, rtol=1e-12, atol=0)


def test_a_rollout_by_hand_ends_where_the_task_ends():
    """Two members s' = s + a and s' = 2 s + a, action 1, reward the state reached, at most 4."""
    factor = f64([[[1.0]], [[2.0]]])
    start = f64([[[1.0]], [[1.0]]])

    def play(task):
        return policy_return(lambda s, a: factor * s + a, task, lambda s: torch.ones_like(s), start, 3)

    assert play(LINE).tolist() == [[2 + 3 + 4], [3 + 7 + 15]]
    assert play(line(4)).tolist() == [[9], [3 + 7]]


def test_a_step_of_the_model_is_its_prediction_and_can_be_differentiated(generator):
    model = Dynamics(3, 2, SMALL, generator)
    model.inputs.fit(torch.randn(50, 5, generator=generator) * 3 + 1)
    model.change.fit(torch.randn(50, 3, generator=generator) * 0.2 + 0.1)
    obs, action = torch.randn(2, 4, 3, generator=generator), torch.randn(2, 4, 2, generator=generator)
    found = mean_step(model)(obs, action.requires_grad_())
    torch.testing.assert_close(found, model.predict(obs, action)[0])
    (slope,) = torch.autograd.grad(found.sum(), action)
    assert (slope != 0).all()


def walk(size: int = 200) -> Batch:
    """s' = s + a between -2 and 2."""
    g = torch.Generator().manual_seed(0)
    obs, action = 4 * torch.rand(size, 1, generator=g) - 2, 2 * torch.rand(size, 1, generator=g) - 1
    return Batch(obs, action, torch.zeros(size), obs + action, torch.zeros(size, dtype=torch.bool))


def homing(seed: int = 0, **settings) -> Backprop:
    """Rewarded for being at zero."""
    task = ModelTask(lambda obs, action, next_obs: -next_obs[..., 0].square(), never)
    small = {"horizon": 4, "updates": 60, "batch_size": 16, "hidden": (16,), "lr": 1e-2, "model": SMALL}
    return Backprop(SPEC, task, BackpropConfig(**(small | settings)), seed)


def test_the_policy_learns_to_go_home():
    """a = -s inside the reach of an action. Seeds 0 to 4: off by at most 0.09."""
    agent = homing()
    metrics = agent.update(walk())
    obs = np.linspace(-0.8, 0.8, 9, dtype=np.float32)[:, None]
    assert np.abs(agent.act(obs) + obs).max() < 0.25
    assert metrics["value/imagined_reward"] < 0
    assert np.abs(agent.act(np.full((1, 1), 2.0, np.float32)) + 1) < 0.1


def test_the_model_is_not_moved_by_the_policy_and_the_same_seed_learns_the_same():
    one = homing()
    before = [p.clone() for p in one.model.parameters()]
    one.policy_step(walk().obs)
    assert all(torch.equal(a, b) for a, b in zip(before, one.model.parameters(), strict=True))
    assert all(p.grad is None for p in one.model.parameters())
    one, two = homing(), homing()
    assert one.update(walk()) == two.update(walk())


@pytest.mark.parametrize("max_norm", [1e-3, 1e3])
def test_long_gradients_are_cut_and_short_ones_are_left(max_norm):
    agent = homing(max_norm=max_norm)
    _, norm = agent.policy_step(walk().obs)
    assert 1e-3 < norm < 1e3
    left = torch.cat([p.grad.flatten() for p in agent.parameters]).norm()
    assert left.item() == pytest.approx(min(norm.item(), max_norm), rel=1e-3)


def test_an_agent_put_back_goes_on_as_it_would_have():
    one, two = homing(), homing()
    one.update(walk())
    checkpoint.restore(two, copy.deepcopy(checkpoint.state_of(one)))
    assert one.update(walk()) == two.update(walk())
    obs = np.zeros((1, 1), np.float32)
    assert np.array_equal(one.explore(obs, 0), two.explore(obs, 0))


def test_exploring_adds_noise_within_the_limits():
    agent = homing()
    obs = np.zeros((2000, 1), np.float32)
    played = agent.explore(obs, 0)
    assert played.std() == pytest.approx(0.2, rel=0.1)
    wild = Backprop(SPEC, LINE, BackpropConfig(noise=5.0, model=SMALL), 0).explore(obs, 0)
    assert (wild.min(), wild.max()) == (-1, 1)
    assert len(np.unique(agent.act(obs))) == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"hidden": (8, 0)}, "hidden must lie in"),
        ({"noise": -0.1}, "noise must be finite and at least 0, got -0.1"),
        ({"max_norm": float("nan")}, "max_norm must be positive, got nan"),
    ],
)
def test_bad_settings_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        BackpropConfig(**settings)


def test_a_reward_without_a_gradient_is_refused():
    task = ModelTask(lambda obs, action, next_obs: (next_obs[..., 0] > 0).float(), never)
    with pytest.raises(UsageError, match="env_id must have a reward with a gradient"):
        Backprop(SPEC, task, BackpropConfig(model=SMALL), 0).policy_step(walk().obs)


def test_no_horizon_is_refused():
    *_, step, reward, policy = lqr()
    with pytest.raises(UsageError, match="horizon must be at least 1, got 0"):
        differentiate(step, reward, policy, torch.zeros(6).double(), torch.zeros(3).double(), 0)


def test_discrete_actions_are_refused():
    with pytest.raises(UsageError, match="env_id must have continuous actions"):
        Backprop(SPEC._replace(discrete=True), LINE, BackpropConfig(), 0)
