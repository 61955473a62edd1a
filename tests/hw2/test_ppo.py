import math

import pytest
import torch

from common.types import EnvSpec, Rollout, UsageError
from hw2_policy_gradient.ppo import PPO, PPOConfig, clipped_surrogate
from hw2_policy_gradient.returns import critic_advantage, standardize
from tests.helpers import CPU, random_rollout

SPEC = EnvSpec(num_envs=4, obs_dim=3, action_dim=2, discrete=True)
CONTINUOUS = EnvSpec(num_envs=4, obs_dim=3, action_dim=2, discrete=False)


def agent(spec: EnvSpec = SPEC, **config) -> PPO:
    return PPO(spec, PPOConfig(**config), total_updates=10, device=CPU, seed=0)


def test_clipped_surrogate_by_hand():
    """eps = .2: the better side is cut off, the worse one never is."""
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
    advantage = torch.tensor([2.0, -2.0, 2.0, -2.0, 1.0])
    expected = torch.tensor([2.4, -3.0, 1.0, -1.6, 1.1])
    torch.testing.assert_close(clipped_surrogate(ratio, advantage, 0.2), expected)


def test_clipped_surrogate_bounds_the_plain_one_and_has_no_gradient_beyond():
    ratio = torch.linspace(0.1, 3, 100, dtype=torch.float64, requires_grad=True)
    advantage = torch.linspace(-1, 1, 100, dtype=torch.float64).flip(0)
    surrogate = clipped_surrogate(ratio, advantage, 0.2)
    assert (surrogate <= ratio * advantage).all()
    (slope,) = torch.autograd.grad(surrogate.sum(), ratio)
    beyond = ((ratio > 1.2) & (advantage > 0)) | ((ratio < 0.8) & (advantage < 0))
    assert not slope[beyond].any()
    torch.testing.assert_close(slope[~beyond], advantage[~beyond])


@pytest.mark.parametrize("spec", [SPEC, CONTINUOUS], ids=["discrete", "continuous"])
def test_first_minibatch_gradient_is_the_policy_gradient(spec):
    """At theta = theta_old: grad E[min(r A, clip(r) A)] = E[grad log pi A]."""
    learner, rollout = agent(spec, max_grad_norm=math.inf, value_weight=0.0), random_rollout(spec, 16)
    obs, action = rollout.obs.flatten(0, 1), rollout.action.flatten(0, 1)
    advantage = torch.randn(64, generator=torch.Generator().manual_seed(1))
    log_prob = learner.policy(obs).log_prob(action)
    loss = -(log_prob * standardize(advantage)).mean()
    expected = torch.autograd.grad(loss, [*learner.policy.parameters()])
    learner.step(obs, action, log_prob.detach(), advantage, torch.zeros(64))
    for p, g in zip(learner.policy.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-7)


def recorded(learner: PPO, rollout: Rollout) -> list[tuple]:
    """The minibatches of one update, the learner standing still."""
    calls = []
    learner.step = lambda *minibatch: calls.append(minibatch) or torch.zeros(3)
    learner.update(rollout)
    return calls


def test_every_epoch_sees_every_transition_once_in_another_order():
    learner = agent(epochs=3, batch_size=24)
    rollout = random_rollout(SPEC, 20)
    calls = recorded(learner, rollout)
    assert [len(call[0]) for call in calls] == [24, 24, 24, 8] * 3
    orders = [torch.cat([call[0] for call in calls[4 * k : 4 * k + 4]])[:, 0] for k in range(3)]
    for order in orders:
        torch.testing.assert_close(order.sort().values, rollout.obs[..., 0].flatten().sort().values)
    assert not torch.equal(orders[0], orders[1])


def test_rows_of_a_minibatch_belong_together():
    learner, rollout = agent(epochs=1, batch_size=16), random_rollout(SPEC, 16)
    log_prob = learner.policy(rollout.obs).log_prob(rollout.action).detach()
    critic = (learner.value, rollout, rollout.obs, rollout.next_obs)
    advantage, target = critic_advantage(*critic, learner.config.gamma, learner.config.lam)
    place = {tuple(x.tolist()): k for k, x in enumerate(rollout.obs.flatten(0, 1))}
    for obs, *others in recorded(learner, rollout):
        k = [place[tuple(x.tolist())] for x in obs]
        for got, whole in zip(others, (rollout.action, log_prob, advantage, target), strict=True):
            torch.testing.assert_close(got, whole.flatten()[k])


@pytest.mark.parametrize("recompute", [True, False])
def test_advantages_are_recomputed_before_every_epoch_if_asked(recompute, monkeypatch):
    learner, rollout = agent(epochs=3, recompute_advantage=recompute, lr=0.1), random_rollout(SPEC, 16)
    seen = []
    record = lambda *args: seen.append(critic_advantage(*args)) or seen[-1]  # noqa: E731
    monkeypatch.setattr("hw2_policy_gradient.ppo.critic_advantage", record)
    learner.update(rollout)
    assert len(seen) == (3 if recompute else 1)
    if recompute:
        assert not torch.equal(seen[0][0], seen[1][0])


def test_target_kl_ends_the_epochs_early():
    counts = []
    for target_kl in (None, 1e-9):
        learner = agent(epochs=5, batch_size=80, target_kl=target_kl, lr=1e-2)
        step, calls = learner.step, []
        learner.step = lambda *batch, step=step, calls=calls: calls.append(1) or step(*batch)
        learner.update(random_rollout(SPEC, 20))
        counts.append(len(calls))
    assert counts == [5, 1]


def test_learning_rate_falls_linearly_to_zero():
    learner, seen = agent(lr=1.0), []
    learner.step = lambda *batch: seen.append(learner.optimizer.param_groups[0]["lr"]) or torch.zeros(3)
    for _ in range(4):
        learner.update(random_rollout(SPEC, 4))
    assert seen[::10] == pytest.approx([1.0, 0.9, 0.8, 0.7])


def test_kl_is_zero_for_a_policy_that_stands_still_and_grows_when_it_moves():
    """Also of a Gaussian whose deviation moves: the old one must be a copy, not the parameter itself."""
    for spec in (SPEC, CONTINUOUS):
        learner, rollout = agent(spec), random_rollout(spec, 16)
        learner.step = lambda *batch: torch.zeros(3)
        assert learner.update(rollout)["policy/kl"] == pytest.approx(0, abs=1e-7)
    learner = agent(CONTINUOUS)

    def widen(*batch):
        learner.policy.log_std.data += 0.01
        return torch.zeros(3)

    learner.step = widen
    assert learner.update(rollout)["policy/kl"] > 1e-3


def test_checklist_of_implementation_details():
    """The details that decide PPO's returns (Huang et al. 2022), as far as they are settings or shapes."""
    learner = agent(CONTINUOUS)
    assert learner.optimizer.defaults["eps"] == 1e-5
    assert learner.policy.net[-1].weight.norm().item() == pytest.approx(0.01 * 2**0.5, rel=1e-4)
    assert learner.value[-1].weight.norm().item() == pytest.approx(1.0, rel=1e-4)
    own = {id(p) for p in learner.policy.parameters()}
    assert not own & {id(p) for p in learner.value.parameters()}  # nothing shared
    assert learner.policy.log_std.shape == (2,)  # no function of the state
    assert len(learner.parameters) == 13
    assert PPOConfig().max_grad_norm == 0.5


def test_observation_statistics_wait_until_the_update_is_over():
    learner = agent(normalize_obs=True, epochs=2, batch_size=200)
    rollout = random_rollout(SPEC, 16)
    first = recorded(learner, rollout)
    seen = torch.cat([call[0] for call in first[:1]])
    torch.testing.assert_close(seen.sum(0), rollout.obs.flatten(0, 1).clamp(-10, 10).sum(0))
    assert learner.policy.normalize.count == 64
    second = recorded(learner, rollout)
    assert abs(second[0][0].mean(0)).max() < 1e-5  # now with the statistics of these very rows


def test_rewards_are_scaled_for_learning_only_if_asked():
    rollout = random_rollout(SPEC, 16)
    big = rollout._replace(reward=1000 * rollout.reward)
    plain, scaled = agent(), agent(normalize_reward=True)
    assert plain.update(big)["loss/value"] > 1e4
    assert scaled.update(big)["loss/value"] < 100


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 1.01}, {"lam": -0.5}, {"lr": 0.0}, {"clip": 0.0}, {"epochs": 0}, {"batch_size": 1},
        {"value_weight": -1.0}, {"entropy_weight": math.nan}, {"max_grad_norm": math.nan}, {"target_kl": 0.0},
        {"hidden": (64, -1)}, {"log_std": math.inf},
    ],
)  # fmt: skip
def test_bad_settings_are_named(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        PPOConfig(**change)


def test_clip_falls_to_zero_over_the_run_if_asked():
    fixed, falling = agent(clip=0.2), agent(clip=0.2, clip_decay=True)
    assert [fixed.clip(k) for k in (0, 5, 10)] == pytest.approx([0.2, 0.2, 0.2])
    assert [falling.clip(k) for k in (0, 5, 10)] == pytest.approx([0.2, 0.1, 0.0])
