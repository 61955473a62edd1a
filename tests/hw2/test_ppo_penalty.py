import copy
import math

import pytest
import torch

from common import checkpoint
from common.distributions import Categorical
from common.types import EnvSpec, UsageError
from hw2_policy_gradient.ppo_penalty import PPOPenalty, PPOPenaltyConfig, dual_step, lagrangian
from hw2_policy_gradient.returns import standardize
from tests.helpers import CPU, random_rollout

DISCRETE = EnvSpec(num_envs=4, obs_dim=3, action_dim=2, discrete=True)
CONTINUOUS = EnvSpec(num_envs=4, obs_dim=3, action_dim=2, discrete=False)
BOTH = pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])


def agent(spec: EnvSpec = DISCRETE, **config) -> PPOPenalty:
    return PPOPenalty(spec, PPOPenaltyConfig(**config), total_updates=10, device=CPU, seed=0)


def test_lagrangian_by_hand():
    ratio, advantage, kl = torch.tensor([1.5, 0.5]), torch.tensor([2.0, -4.0]), torch.tensor([0.1, 0.3])
    value = lagrangian(ratio, advantage, kl, multiplier=3.0, max_kl=0.05)
    assert value.item() == pytest.approx((3 - 2) / 2 - 3 * (0.2 - 0.05))


@pytest.mark.parametrize(
    ("multiplier", "kl", "expected"), [(2.0, 0.03, 2.2), (2.0, 0.0, 1.9), (0.05, 0.0, 0.01), (2.0, 0.01, 2.0)]
)
def test_dual_step_by_hand(multiplier, kl, expected):
    """alpha = 10, eps = .01: up where the update went too far, down where it did not, never to 0."""
    assert dual_step(multiplier, kl, max_kl=0.01, lr=10.0, floor=0.01) == pytest.approx(expected)


@pytest.mark.parametrize("start", [1.0, 7.0, 30.0])
@pytest.mark.parametrize("max_kl", [0.01, 0.1])
def test_multiplier_converges_to_the_solution_of_the_constrained_problem(start, max_kl):
    """Two actions, A = 1 and -1, an even old policy, q the new probability of the good one.

    L = (2q - 1) - lambda (-log(4 q (1 - q)) / 2 - eps). KL = eps at q = (1 + sqrt(1 - exp(-2 eps))) / 2, and
    dL/dq = 0 there for lambda = 4 q (1 - q) / (2q - 1).
    """
    advantage, action = torch.tensor([1.0, -1.0]).double(), torch.tensor([0, 1])
    pi_old, logit = Categorical(torch.zeros(2, 2).double()), torch.zeros((), dtype=torch.float64)
    logit.requires_grad_(True)
    multiplier = start
    for _ in range(60):
        for _ in range(4):  # Newton's method: theta all the way to the maximum
            pi = Categorical(torch.stack((logit, -logit)).expand(2, 2))
            ratio = (pi.log_prob(action) - pi_old.log_prob(action)).exp()
            value = lagrangian(ratio, advantage, pi_old.kl(pi), multiplier, max_kl)
            (slope,) = torch.autograd.grad(value, logit, create_graph=True)
            (curvature,) = torch.autograd.grad(slope, logit)
            logit.data += (slope / curvature.abs()).clamp(-0.5, 0.5).detach()
        kl = pi_old.kl(Categorical(torch.stack((logit, -logit)).expand(2, 2))).mean().item()
        multiplier = dual_step(multiplier, kl, max_kl, lr=2 / max_kl, floor=1e-3)
    q = (1 + math.sqrt(1 - math.exp(-2 * max_kl))) / 2
    assert kl == pytest.approx(max_kl, rel=1e-3)
    assert multiplier == pytest.approx(4 * q * (1 - q) / (2 * q - 1), rel=1e-3)


@BOTH
def test_first_minibatch_gradient_is_the_policy_gradient(spec):
    """At theta = theta_old the KL has no slope, so that the penalty says nothing yet."""
    learner = agent(spec, max_grad_norm=math.inf, value_weight=0.0, multiplier=50.0)
    rollout = random_rollout(spec, 16)
    obs, action = rollout.obs.flatten(0, 1), rollout.action.flatten(0, 1)
    advantage = torch.randn(64, generator=torch.Generator().manual_seed(1))
    loss = -(learner.policy(obs).log_prob(action) * standardize(advantage)).mean()
    expected = torch.autograd.grad(loss, [*learner.policy.parameters()])
    policy_old = copy.deepcopy(learner.policy).requires_grad_(False)
    learner.step(policy_old, obs, action, advantage, torch.zeros(64))
    for p, g in zip(learner.policy.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-7)


@BOTH
def test_a_heavier_penalty_keeps_the_policy_nearer(spec):
    rollout = random_rollout(spec, 30)
    kls = [
        agent(spec, multiplier=m, lr=1e-2, max_grad_norm=math.inf).update(rollout)["policy/kl"]
        for m in (1e-3, 1.0, 10.0, 100.0)
    ]
    assert kls == sorted(kls, reverse=True)
    assert kls[0] > 10 * kls[-1]


@BOTH
def test_mean_divergence_of_the_updates_is_the_bound(spec):
    """Each adds alpha (KL - eps) to the multiplier: while that stays bounded, KL is eps on average."""
    learner = agent(spec, multiplier=2.0, multiplier_lr=100.0, lr=3e-3, lr_decay=False, epochs=3)
    seen = [learner.update(random_rollout(spec, 20, seed)) for seed in range(25)]
    multipliers = [metrics["policy/multiplier"] for metrics in seen]
    assert multipliers[0] == 2.0
    assert max(multipliers) < 8
    assert 0.005 < sum(metrics["policy/kl"] for metrics in seen) / 25 < 0.02


def test_every_epoch_sees_every_transition_once_and_rows_belong_together():
    learner, rollout = agent(epochs=2, batch_size=24), random_rollout(DISCRETE, 20)
    calls = []
    learner.step = lambda old, *minibatch: calls.append(minibatch) or torch.zeros(3)
    learner.update(rollout)
    assert [len(call[0]) for call in calls] == [24, 24, 24, 8] * 2
    place = {tuple(x.tolist()): k for k, x in enumerate(rollout.obs.flatten(0, 1))}
    for epoch in (calls[:4], calls[4:]):
        rows = [place[tuple(x.tolist())] for call in epoch for x in call[0]]
        assert sorted(rows) == list(range(80))
        assert torch.equal(torch.cat([call[1] for call in epoch]), rollout.action.flatten()[rows])


def test_multiplier_is_saved_with_the_agent():
    one, two, rollout = agent(), agent(), random_rollout(DISCRETE, 20)
    one.update(rollout)
    assert one.multiplier != two.multiplier
    checkpoint.restore(two, copy.deepcopy(checkpoint.state_of(one)))
    assert two.update(rollout) == one.update(rollout)


def test_learning_rate_falls_linearly_to_zero():
    learner, seen = agent(lr=1.0), []
    learner.step = lambda *batch: seen.append(learner.optimizer.param_groups[0]["lr"]) or torch.zeros(3)
    for _ in range(4):
        learner.update(random_rollout(DISCRETE, 4))
    assert seen[::10] == pytest.approx([1.0, 0.9, 0.8, 0.7])


def test_observation_statistics_wait_until_the_update_is_over():
    learner, rollout = agent(normalize_obs=True, epochs=1, batch_size=64), random_rollout(DISCRETE, 16)
    seen = []
    learner.step = lambda old, obs, *others: seen.append(obs) or torch.zeros(3)
    learner.update(rollout)
    learner.update(rollout)
    torch.testing.assert_close(seen[0].sum(0), rollout.obs.flatten(0, 1).clamp(-10, 10).sum(0))
    assert abs(seen[1].mean(0)).max() < 1e-5


def test_rewards_are_scaled_for_learning_only_if_asked():
    rollout = random_rollout(DISCRETE, 16)
    big = rollout._replace(reward=1000 * rollout.reward)
    assert agent().update(big)["loss/value"] > 1e4
    assert agent(normalize_reward=True).update(big)["loss/value"] < 100


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 1.01}, {"lam": -0.5}, {"lr": 0.0}, {"max_kl": 0.0}, {"multiplier": 0.0}, {"epochs": 0},
        {"multiplier_lr": math.nan}, {"multiplier_floor": 0.0}, {"batch_size": 1}, {"value_weight": -1.0},
        {"max_grad_norm": math.nan}, {"hidden": (64, -1)}, {"log_std": math.inf},
    ],
)  # fmt: skip
def test_bad_settings_are_named(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        PPOPenaltyConfig(**change)
