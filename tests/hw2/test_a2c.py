import math
from copy import deepcopy

import numpy as np
import pytest
import torch

from common.checkpoint import restore, state_of
from common.types import EnvSpec, Rollout, UsageError
from hw2_policy_gradient.a2c import A2C, A2CConfig
from tests.helpers import CPU, random_rollout

SPEC = EnvSpec(num_envs=1, obs_dim=3, action_dim=2, discrete=True)


def agent(spec: EnvSpec = SPEC, **config) -> A2C:
    return A2C(spec, A2CConfig(hidden=(8,), **config), total_updates=10, device=CPU, seed=0)


def gradients(network: torch.nn.Module) -> list[torch.Tensor]:
    return [p.grad for p in network.parameters()]


@pytest.mark.parametrize("end", ["goes on", "terminated", "truncated"])
def test_one_step_of_one_environment_is_the_temporal_difference_actor_critic(end):
    """delta = r + gamma V(s') - V(s), without V(s') where terminated: the policy's gradient is
    -delta grad log pi, the critic's -2 value_weight delta grad V. Standardised, delta would be zero."""
    learner, terminated = agent(gamma=0.9, value_weight=0.25), torch.tensor([[end == "terminated"]])
    obs, next_obs = torch.tensor([[[0.5, -1.0, 2.0]]]), torch.tensor([[[1.0, 0.0, -1.0]]])
    truncated = torch.tensor([[end == "truncated"]])
    rollout = Rollout(obs, torch.tensor([[1]]), torch.tensor([[3.0]]), next_obs, terminated, truncated)
    learner.backward(rollout)
    value, next_value = learner.value(obs)[0, 0, 0], learner.value(next_obs)[0, 0, 0]
    delta = (3 + 0.9 * next_value * (end != "terminated") - value).item()
    assert abs(delta) > 1
    grad_log_pi = torch.autograd.grad(
        learner.policy.net(obs[0, 0]).log_softmax(-1)[1], [*learner.policy.parameters()]
    )
    grad_v = torch.autograd.grad(value, [*learner.value.parameters()])
    torch.testing.assert_close(gradients(learner.policy), [-delta * g for g in grad_log_pi])
    torch.testing.assert_close(gradients(learner.value), [-2 * 0.25 * delta * g for g in grad_v])


def test_lambda_one_is_the_n_step_advantage_of_the_paper():
    """R_t = r_t + gamma R_{t+1}, from V behind the last row (Mnih et al. 2016, algorithm S3)."""
    spec = SPEC._replace(num_envs=3)
    learner, rollout = agent(spec, gamma=0.9, lam=1.0), random_rollout(spec, 5)
    with torch.no_grad():
        value, next_value = learner.value(rollout.obs)[..., 0], learner.value(rollout.next_obs)[..., 0]
    target = torch.empty(5, 3)
    for n in range(3):
        for t in reversed(range(5)):
            if rollout.terminated[t, n]:
                behind = 0.0
            elif rollout.truncated[t, n] or t == 4:
                behind = next_value[t, n]
            else:
                behind = target[t + 1, n]
            target[t, n] = rollout.reward[t, n] + 0.9 * behind
    log_prob = learner.policy(rollout.obs).log_prob(rollout.action)
    loss = -(log_prob * (target - value)).mean()
    expected = torch.autograd.grad(loss, [*learner.policy.parameters()])
    learner.backward(rollout)
    torch.testing.assert_close(gradients(learner.policy), [*expected])


@pytest.mark.parametrize("spec", [SPEC, SPEC._replace(discrete=False)], ids=["discrete", "continuous"])
def test_the_gradient_of_a_shared_trunk_is_the_sum_of_both(spec):
    """Beside two separate networks with the same weights: each head has its own network's gradient, which
    for the policy's is the policy gradient, and the trunk has the sum."""
    shared, separate, rollout = agent(spec, shared=True), agent(spec), random_rollout(spec, 6)
    separate.policy.load_state_dict(shared.policy.state_dict())
    separate.value.load_state_dict(shared.value.state_dict())
    for learner in (shared, separate):
        learner.backward(rollout)
    for of_policy, of_value, of_both in zip(
        separate.policy.net[:-1].parameters(),
        separate.value[:-1].parameters(),
        shared.policy.net[:-1].parameters(),
        strict=True,
    ):
        torch.testing.assert_close(of_both.grad, of_policy.grad + of_value.grad)
    for part in (lambda learner: learner.policy.net[-1], lambda learner: learner.value[-1]):
        torch.testing.assert_close(gradients(part(shared)), gradients(part(separate)))


def test_what_is_shared_is_stepped_once_and_stays_shared():
    shared, rollout = agent(shared=True), random_rollout(SPEC, 6)
    sizes = [p.numel() for p in shared.parameters]
    assert sum(sizes) == 3 * 8 + 8 + (8 * 2 + 2) + (8 * 1 + 1)
    shared.update(rollout)
    assert shared.value[0].weight is shared.policy.net[0].weight


def test_a_restored_agent_goes_on_bit_for_bit_with_its_trunk_shared():
    first, config = agent(shared=True), A2CConfig(hidden=(8,), shared=True)
    other = A2C(SPEC, config, 10, CPU, seed=1)
    for seed in range(3):
        rollout = random_rollout(SPEC, 6, seed)
        first.update(rollout)
    restore(other, deepcopy(state_of(first)))  # as a file would part them
    assert first.update(rollout) == other.update(rollout)
    assert all(torch.equal(p, q) for p, q in zip(first.parameters, other.parameters, strict=True))
    assert other.value[0].weight is other.policy.net[0].weight
    obs = np.ones((50, 3), np.float32)
    assert np.array_equal(first.explore(obs, 0), other.explore(obs, 0))


def test_without_hidden_layers_there_is_nothing_to_share():
    linear = A2C(SPEC, A2CConfig(hidden=(), shared=True), total_updates=10, device=CPU, seed=0)
    linear.update(random_rollout(SPEC, 6))
    assert len(linear.parameters) == 4


def test_entropy_weight_adds_the_gradient_of_the_entropy():
    rollout = random_rollout(SPEC, 6)
    plain, rewarded = agent(), agent(entropy_weight=0.3)
    plain.backward(rollout)
    rewarded.backward(rollout)
    log_pi = plain.policy.net(rollout.obs).log_softmax(-1)
    entropy = -(log_pi.exp() * log_pi).sum(-1).mean()
    grad_entropy = torch.autograd.grad(entropy, [*plain.policy.parameters()])
    expected = [g - 0.3 * h for g, h in zip(gradients(plain.policy), grad_entropy, strict=True)]
    torch.testing.assert_close(gradients(rewarded.policy), expected)


def test_one_norm_cuts_the_gradient_of_both_networks():
    learner, rollout = agent(max_grad_norm=0.01), random_rollout(SPEC, 6)
    learner.backward(rollout)
    before = torch.cat([p.grad.flatten() for p in learner.parameters])
    assert learner.descend()["grad/norm"] == pytest.approx(before.norm().item())
    after = torch.cat([p.grad.flatten() for p in learner.parameters])
    torch.testing.assert_close(after, 0.01 * before / before.norm(), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("decay", [True, False])
def test_learning_rate_falls_to_zero_over_the_run_if_asked(decay):
    learner, rollout = agent(lr=1e-2, lr_decay=decay), random_rollout(SPEC, 4)
    rates = []
    for _ in range(3):
        learner.update(rollout)
        rates.append(learner.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-2, 0.9e-2, 0.8e-2] if decay else [1e-2] * 3)


@pytest.mark.parametrize(
    ("shared", "steps", "num_envs"), [(False, 1, 1), (True, 1, 1), (False, 3, 4), (True, 3, 4)]
)
def test_learns_which_action_pays(shared, steps, num_envs):
    """One state, action 1 pays 1, action 0 nothing. Five seeds of each kind: from 0.5 to 0.98 or more."""
    config = A2CConfig(gamma=0.0, lr=2e-2, hidden=(8,), shared=shared)
    learner = A2C(SPEC, config, total_updates=150, device=CPU, seed=0)
    obs, no = torch.ones(steps, num_envs, 3), torch.zeros(steps, num_envs, dtype=torch.bool)
    for _ in range(150):
        drawn = learner.explore(obs.flatten(0, 1).numpy(), step=0)
        action = torch.from_numpy(drawn).view(steps, num_envs)
        learner.update(Rollout(obs, action, action.float(), obs, ~no, no))
    assert learner.policy.net(obs)[0, 0].softmax(-1)[1] > 0.9


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": -0.1}, {"lam": 1.1}, {"lr": math.nan}, {"lr": 0.0}, {"value_weight": -1.0},
        {"value_weight": math.nan}, {"entropy_weight": -1.0}, {"entropy_weight": math.inf},
        {"max_grad_norm": 0.0}, {"hidden": (8, 0)}, {"log_std": math.inf},
    ],
)  # fmt: skip
def test_bad_settings_are_named(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        A2CConfig(**change)
