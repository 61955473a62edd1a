import numpy as np
import pytest
import torch

from common.distributions import Categorical
from common.envs import registry
from common.rollout import Collector
from common.types import EnvSpec, Rollout, UsageError
from hw2_policy_gradient import ladder as module
from hw2_policy_gradient.ladder import (
    ESTIMATORS,
    Rung,
    control_coefficient,
    episode_gradients,
    fit_critic,
    ladder,
    measure,
    spread,
)
from hw2_policy_gradient.policies import Policy
from hw2_policy_gradient.reinforce import Reinforce, ReinforceConfig
from tests.helpers import CPU

SPEC = EnvSpec(8, 4, 2, True)


@pytest.fixture
def few_fits(monkeypatch):
    monkeypatch.setattr(module, "FIT_STEPS", 100)


def cartpole(episodes: int, seed: int = 0) -> tuple[Reinforce, Rollout]:
    agent = Reinforce(SPEC, ReinforceConfig(), 10, CPU, seed)
    collector = Collector(registry.make_envs("CartPole-v1", episodes), CPU)
    collector.reset(seed, 0)
    return agent, collector.collect(agent.explore, 120)[0]


def estimates(agent: Reinforce, rollout: Rollout) -> dict[str, torch.Tensor]:
    return ladder(agent, rollout, torch.Generator().manual_seed(0))


def test_episode_gradients_are_sums_over_steps_and_actions(generator):
    policy = Policy(SPEC, (8,), 0.0, False, generator)
    obs, c = torch.randn(5, 4, generator=generator), torch.randn(3, 5, 2, generator=generator)
    rows = episode_gradients(policy, obs, c)
    for row, each in zip(rows, c, strict=True):
        loss = sum(each[t, a] * policy(obs[t]).log_p[a] for t in range(5) for a in range(2))
        expected = torch.autograd.grad(loss, [*policy.parameters()])
        torch.testing.assert_close(row, torch.cat([g.flatten() for g in expected]))


def test_control_takes_out_what_it_puts_back(generator):
    """Averaged over the action taken, the coefficients of a weight w are pi(a|s) w, whatever Q."""
    pi, q = Categorical(torch.randn(4, 3, generator=generator)), torch.randn(4, 3, generator=generator)
    w = torch.randn(4, generator=generator)
    p = pi.log_p.exp()
    mean = sum(p[:, [a]] * control_coefficient(pi, torch.full((4,), a), w, q) for a in range(3))
    torch.testing.assert_close(mean, p * w[:, None])


def test_control_coefficients_by_hand():
    """pi = (1/4, 3/4), action 1, w = 5, Q = (1, 2): 5 - 2 at the action, and 1/4, 3/2 for the correction."""
    pi = Categorical(torch.tensor([0.25, 0.75]).log())
    c = control_coefficient(pi, torch.tensor(1), torch.tensor(5.0), torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(c, torch.tensor([0.25, 4.5]))


def test_critic_learns_each_action_by_itself(few_fits, generator):
    """100 x_1 for action 0 and 50 for action 1, after 100 steps to 5 % of the largest value."""
    obs = torch.randn(2000, 2, generator=generator).clamp(-1, 1)
    action = torch.arange(2000) % 2
    target = torch.where(action == 0, 100 * obs[:, 0], torch.tensor(50.0))
    value = fit_critic(2, obs, action, target, generator)(obs)
    assert (value[:, 0] - 100 * obs[:, 0]).abs().mean() < 5
    assert (value[:, 1] - 50).abs().mean() < 5
    assert not value.requires_grad


def test_unbiased_estimators_agree(few_fits):
    """M |mean d|^2 / Var(d) of the difference d of two of them is one in expectation; GAE may differ."""
    g = estimates(*cartpole(80))
    for name in set(ESTIMATORS) - {"reward-to-go", "GAE"}:
        d = g[name] - g["reward-to-go"]
        assert len(d) * d.mean(0).square().sum() / d.var(0).sum() < 3, name


def test_each_rung_is_quieter(few_fits):
    """Half of 200 episodes of the untrained policy. Six seeds: total return to reward-to-go 0.21 to 0.28, on
    to the average 0.40 to 0.70, from there to V 0.37 to 0.83; the optimal constant's is 0.60 to 1.19
    times the average's, an order that only the exact tests settle."""
    g = estimates(*cartpole(200))
    variance = {name: each.var(0).sum().item() for name, each in g.items()}
    assert variance["reward-to-go"] < 0.5 * variance["total return"]
    assert variance["average"] < 0.9 * variance["reward-to-go"]
    assert variance["learned V"] < 0.95 * variance["average"]


def test_no_baseline_knows_the_episode_that_it_is_subtracted_from(few_fits):
    """Other rewards in a column of the second half change its own estimate and no other."""
    agent, rollout = cartpole(12)
    before = estimates(agent, rollout)
    for column in (0, 5):
        reward, others = rollout.reward.clone(), torch.arange(6) != column
        reward[:, 6 + column] *= 3
        after = estimates(agent, rollout._replace(reward=reward))
        for name in ESTIMATORS:
            assert torch.equal(before[name][others], after[name][others]), name
            assert not torch.equal(before[name][column], after[name][column]), name


def test_every_step_of_the_first_episode_counts(few_fits):
    """The last column by itself: its return times the sum of the scores up to the step that ended it."""
    agent, rollout = cartpole(12)
    end = int(rollout.ended[:, -1].int().argmax()) + 1
    log_prob = agent.policy(rollout.obs[:end, -1]).log_prob(rollout.action[:end, -1]).sum()
    whole = (0.99 ** torch.arange(end) * rollout.reward[:end, -1]).sum()
    expected = torch.autograd.grad(log_prob * whole, [*agent.policy.parameters()])
    got = estimates(agent, rollout)["total return"][-1]
    torch.testing.assert_close(got, torch.cat([g.flatten() for g in expected]), rtol=1e-4, atol=1e-3)


def test_only_the_first_episode_of_a_column_counts(few_fits):
    agent, rollout = cartpole(12)
    before = estimates(agent, rollout)
    later = (rollout.ended.cumsum(0) - rollout.ended.long()) > 0
    assert later.any()
    after = estimates(agent, rollout._replace(reward=torch.where(later, 99.0, rollout.reward)))
    assert all(torch.equal(before[name], after[name]) for name in ESTIMATORS)


def test_spread_is_the_sum_of_the_variances():
    """4 + 9 = 13 from 4,000 draws: standard error 0.25."""
    rng = np.random.default_rng(0)
    variance, low, high = spread(torch.tensor(rng.normal(5, [2, 3], (4000, 2))), rng)
    assert low < 13 < high
    assert abs(variance - 13) < 1
    assert 0.5 < high - low < 2
    two = torch.tensor([[0.0], [2.0]])
    assert spread(two, rng)[0] == pytest.approx(2)  # unbiased: (1 + 1) / (2 - 1)


def test_measure_repeats_itself(few_fits):
    first, second = measure(4, seed=1, updates=(0, 1)), measure(4, seed=1, updates=(0,))
    assert first[: len(second)] == second
    assert [(r.updates, r.estimator) for r in first] == [(k, name) for k in (0, 1) for name in ESTIMATORS]
    assert all(isinstance(r, Rung) and r.low <= r.high and r.length >= 8 for r in first)


def test_too_few_episodes_are_refused():
    with pytest.raises(UsageError, match="episodes must be at least 4"):
        measure(3, 0)
