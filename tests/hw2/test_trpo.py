import copy
import math

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from common.types import EnvSpec, UsageError
from hw2_policy_gradient import trpo
from hw2_policy_gradient.natural_gradient import NaturalGradient, NaturalGradientConfig, policy_gradient
from hw2_policy_gradient.returns import critic_advantage, standardize
from hw2_policy_gradient.trpo import TRPO, TRPOConfig, line_search
from tests.helpers import CPU, random_rollout

DISCRETE = EnvSpec(num_envs=4, obs_dim=3, action_dim=3, discrete=True)
CONTINUOUS = EnvSpec(num_envs=4, obs_dim=3, action_dim=2, discrete=False)
BOTH = pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])


def agent(spec: EnvSpec = DISCRETE, **config) -> TRPO:
    return TRPO(spec, TRPOConfig(**config), total_updates=10, device=CPU, seed=0)


def theta(learner: TRPO | NaturalGradient) -> torch.Tensor:
    return parameters_to_vector(learner.policy.parameters()).detach()


def test_line_search_by_hand():
    """From 0 by steps 1, 1/2, 1/4: KL = x^2 / 2, gain = x - 2 x^2, so 1/2 keeps the KL and 1/4 gains."""
    zero, one = torch.zeros(1), torch.ones(1)
    tried = []

    def measure(x: torch.Tensor) -> tuple[float, float]:
        tried.append(x.item())
        return x.item() ** 2 / 2, x.item() - 2 * x.item() ** 2 - 0.01

    x, kl, gain, k = line_search(measure, zero, one, max_kl=0.2, shrink=0.5, backtracks=5)
    assert tried == [1.0, 0.5, 0.25]
    assert (x.item(), kl, k) == (0.25, 0.03125, 2)
    assert gain == pytest.approx(0.115)
    assert line_search(measure, zero, one, 0.2, 0.5, backtracks=2)[3] == 2
    assert line_search(measure, zero, one, 0.2, 0.5, backtracks=1)[1:] == (0.0, 0.0, 2)
    assert line_search(measure, zero, one, 0.2, 0.5, backtracks=1)[0] is zero


@pytest.mark.parametrize(
    ("kl", "gain", "taken"),
    [
        (0.1, 0.0, True), (0.1, 1.0, True), (0.1 + 1e-9, 1.0, False), (0.0, -1e-12, False),
        (math.nan, 1.0, False), (0.0, math.nan, False), (0.0, math.inf, False),
    ],
)  # fmt: skip
def test_conditions_hold_at_their_border_and_nothing_but_numbers_meets_them(kl, gain, taken):
    k = line_search(lambda x: (kl, gain), torch.zeros(1), torch.ones(1), 0.1, 0.5, 3)[3]
    assert k == (0 if taken else 4)


@BOTH
def test_direction_is_that_of_the_natural_gradient(spec):
    """Same networks and rollout: a step that is not shortened is NPG's own, a shortened one a part of it."""
    rollout = random_rollout(spec, 30)
    for max_kl, shortened in ((0.01, False), (1.0, True)):
        settings = {"max_kl": max_kl, "damping": 1e-4}
        npg = NaturalGradient(spec, NaturalGradientConfig(**settings), total_updates=10, device=CPU, seed=0)
        learner = agent(spec, **settings)
        start = theta(learner)
        assert torch.equal(theta(npg), start)
        npg.update(rollout)
        k = learner.update(rollout)["policy/backtracks"]
        assert (k > 0) == shortened
        torch.testing.assert_close(
            theta(learner) - start, 0.8**k * (theta(npg) - start), rtol=1e-3, atol=1e-5
        )


@BOTH
@pytest.mark.parametrize("max_kl", [1e-4, 0.01, 0.1, 1.0, 10.0])
def test_no_step_leaves_the_region_or_loses_by_the_surrogate(spec, max_kl):
    """Measured anew in float64 on the rollout that was learned from, over several updates."""
    learner = agent(spec, max_kl=max_kl, damping=1e-4, normalize_obs=True)
    for seed in range(4):
        rollout, before = random_rollout(spec, 40, seed), copy.deepcopy(learner)
        metrics = learner.update(rollout)
        obs, next_obs = before.policy.normalize(rollout.obs), before.policy.normalize(rollout.next_obs)
        advantage, _ = critic_advantage(before.value, rollout, obs, next_obs, 0.99, 0.95)
        old, new = before.policy.double()(obs.double()), copy.deepcopy(learner.policy).double()(obs.double())
        kl = old.kl(new).mean().item()
        ratio = (new.log_prob(rollout.action) - old.log_prob(rollout.action)).exp()
        gain = ((ratio - 1) * standardize(advantage)).mean().item()
        assert kl <= max_kl * (1 + 1e-5)
        assert gain >= 0
        assert kl == pytest.approx(metrics["policy/kl"], rel=1e-3, abs=1e-7)
        assert gain == pytest.approx(metrics["policy/improvement"], rel=1e-3, abs=1e-7)
        assert kl > 0 or metrics["policy/backtracks"] == 11


def test_refused_steps_leave_the_policy_as_it_was(monkeypatch):
    """Against the gradient every step loses."""
    learner, rollout = agent(), random_rollout(DISCRETE, 20)
    before = theta(learner)
    monkeypatch.setattr(trpo, "policy_gradient", lambda *args: -policy_gradient(*args))
    metrics = learner.update(rollout)
    assert metrics["policy/backtracks"] == 11
    assert (metrics["policy/kl"], metrics["policy/improvement"]) == (0.0, 0.0)
    assert torch.equal(theta(learner), before)


@pytest.mark.parametrize("decay", [True, False])
def test_bound_falls_to_zero_over_the_run_if_asked(decay, monkeypatch):
    """It is max_kl (1 - k / 10) in update k of 10."""
    learner, bounds = agent(max_kl_decay=decay), []
    search = lambda *args: bounds.append(args[3]) or line_search(*args)  # noqa: E731
    monkeypatch.setattr(trpo, "line_search", search)
    for _ in range(12):
        metrics = learner.update(random_rollout(DISCRETE, 8))
    factors = [*(1 - k / 10 for k in range(10)), 0, 0] if decay else [1] * 12
    assert bounds == pytest.approx([0.01 * f for f in factors])
    assert (metrics["policy/kl"] > 0) != decay


def test_an_advantage_without_differences_moves_nothing():
    learner, rollout = agent(), random_rollout(DISCRETE, 8)
    before = theta(learner)
    metrics = learner.actor_step(rollout.obs, rollout.action, torch.zeros(8, 4))
    torch.testing.assert_close(theta(learner), before, rtol=0, atol=0)
    assert metrics["policy/kl"] == pytest.approx(0, abs=1e-7)


def test_policy_and_critic_are_separate():
    learner, rollout = agent(), random_rollout(DISCRETE, 16)
    value = [p.clone() for p in learner.value.parameters()]
    learner.actor_step(rollout.obs, rollout.action, rollout.reward)
    assert all(torch.equal(a, b) for a, b in zip(value, learner.value.parameters(), strict=True))
    policy = theta(learner)
    learner.actor_step = lambda *args: {}
    learner.update(rollout)
    assert torch.equal(theta(learner), policy)
    assert not any(torch.equal(a, b) for a, b in zip(value, learner.value.parameters(), strict=True))


def test_observation_statistics_wait_until_the_update_is_over():
    learner, rollout = agent(normalize_obs=True), random_rollout(DISCRETE, 16)
    seen = []
    learner.actor_step = lambda obs, *others: seen.append(obs) or {}
    learner.update(rollout)
    learner.update(rollout)
    torch.testing.assert_close(seen[0], rollout.obs.clamp(-10, 10))
    assert abs(seen[1].mean((0, 1))).max() < 1e-5


def test_rewards_are_scaled_for_learning_only_if_asked():
    rollout = random_rollout(DISCRETE, 16)
    big = rollout._replace(reward=1000 * rollout.reward)
    assert agent().update(big)["loss/value"] > 1e4
    assert agent(normalize_reward=True).update(big)["loss/value"] < 100


def test_a_rollout_of_one_step_of_one_environment():
    spec = DISCRETE._replace(num_envs=1)
    assert agent(spec).update(random_rollout(spec, 1))["policy/kl"] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 1.01}, {"lam": -0.5}, {"max_kl": -0.1}, {"damping": 0.0}, {"cg_iterations": 0},
        {"shrink": 1.0}, {"shrink": math.nan}, {"backtracks": -1}, {"value_lr": 0.0}, {"value_epochs": 0},
        {"batch_size": 0}, {"hidden": (0,)}, {"log_std": 99.0},
    ],
)  # fmt: skip
def test_bad_settings_are_named(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        TRPOConfig(**change)
