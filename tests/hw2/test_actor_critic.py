import math

import pytest
import torch

from common.types import EnvSpec, Rollout, UsageError
from hw2_policy_gradient.actor_critic import ActorCritic, ActorCriticConfig
from hw2_policy_gradient.reinforce import Reinforce, ReinforceConfig
from hw2_policy_gradient.returns import critic_advantage
from tests.helpers import CPU, random_rollout

SPEC = EnvSpec(num_envs=3, obs_dim=2, action_dim=2, discrete=True)
CONTINUOUS = EnvSpec(num_envs=3, obs_dim=2, action_dim=4, discrete=False)


def agent(spec: EnvSpec = SPEC, **config) -> ActorCritic:
    return ActorCritic(spec, ActorCriticConfig(**config), total_updates=10, device=CPU, seed=0)


def test_lambda_one_is_reinforce_with_a_learned_baseline():
    rollout = random_rollout(SPEC, 20)
    reinforce = Reinforce(SPEC, ReinforceConfig(normalize=False), total_updates=10, device=CPU, seed=0)
    critic = agent().value
    advantage, target = critic_advantage(critic, rollout, rollout.obs, rollout.next_obs, 0.99, lam=1.0)
    to_go, weight = reinforce.advantage(rollout)
    torch.testing.assert_close(advantage, weight)
    torch.testing.assert_close(target, to_go)


def test_actor_step_follows_the_policy_gradient():
    """The gradient it leaves behind is that of -mean log pi A, A standardised, whatever the critic."""
    learner, rollout = agent(max_grad_norm=math.inf), random_rollout(SPEC, 20)
    advantage = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    standard = (advantage - advantage.mean()) / advantage.std(correction=0)
    loss = -(learner.policy(rollout.obs).log_prob(rollout.action) * standard).mean()
    expected = torch.autograd.grad(loss, [*learner.policy.parameters()])
    learner.actor_step(rollout.obs, rollout.action, advantage)
    for p, g in zip(learner.policy.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-7)


def test_critic_step_fits_the_targets_and_leaves_the_policy():
    learner, rollout = agent(value_steps=300), random_rollout(SPEC, 20)
    before = [p.clone() for p in learner.policy.parameters()]
    metrics = learner.critic_step(rollout.obs, rollout.obs.sum(-1))
    assert metrics["value/explained_variance"] > 0.95
    assert all(torch.equal(a, b) for a, b in zip(before, learner.policy.parameters(), strict=True))


def test_entropy_weight_widens_the_policy():
    obs = torch.ones(50, 3, 2)
    over = torch.ones(50, 3, dtype=torch.bool)
    action = torch.arange(50)[:, None].expand(50, 3) % 2
    paid = Rollout(obs, action, action.float(), obs, over, ~over)
    entropy = []
    for weight in (0.0, 10.0):
        learner = agent(entropy_weight=weight)
        for _ in range(8):
            metrics = learner.update(paid)
        entropy.append(metrics["policy/entropy"])
    assert entropy[0] < entropy[1] - 0.05


@pytest.mark.parametrize("spec", [SPEC, CONTINUOUS], ids=["discrete", "continuous"])
def test_statistics_move_only_after_learning(spec):
    learner, rollout = agent(spec, normalize_obs=True), random_rollout(spec, 10)
    seen = []
    learner.critic_step = lambda obs, target: seen.append(obs) or {}
    learner.update(rollout)
    assert torch.equal(seen[0], rollout.obs.clamp(-10, 10))
    assert learner.policy.normalize.count == 30


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": -0.1}, {"lam": 1.1}, {"lr": math.nan}, {"value_lr": 0.0}, {"value_steps": 0},
        {"entropy_weight": -1.0}, {"hidden": (8, 0)}, {"max_grad_norm": 0.0}, {"log_std": math.inf},
    ],
)  # fmt: skip
def test_bad_settings_are_named(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        ActorCriticConfig(**change)


@pytest.mark.parametrize("decay", [True, False])
def test_learning_rate_falls_to_zero_over_the_run_if_asked(decay):
    """The rate of update k of 10 is lr (1 - k / 10)."""
    learner, rollout = agent(lr=1e-2, lr_decay=decay), random_rollout(SPEC, 8)
    rates = []
    for _ in range(3):
        learner.update(rollout)
        rates.append(learner.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-2, 0.9e-2, 0.8e-2] if decay else [1e-2] * 3)
