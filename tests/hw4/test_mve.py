"""Targets that look ahead: hand numbers, the limits that join them to DDPG, and slow loops."""

import copy

import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

from common.envs.model_tasks import ModelTask, never
from common.replay import Batch
from common.types import EnvSpec, UsageError
from hw3_q_learning.ddpg import DDPG, DDPGConfig
from hw3_q_learning.dqn import td_target
from hw3_q_learning.sac import SAC, SACConfig
from hw4_model_based.dynamics import DynamicsConfig
from hw4_model_based.imagination import imagine
from hw4_model_based.mve import (
    MVE,
    STEVE,
    MVEConfig,
    STEVEConfig,
    backups,
    expansions,
    handed_over,
    inverse_variance_weights,
    reached,
    steve_target,
)
from tests.helpers import CPU

SPEC = EnvSpec(num_envs=1, obs_dim=2, action_dim=1, discrete=False)
GAMMA = 0.9


def small(task_limit: float = float("inf")) -> ModelTask:
    """Reward s'_0 + a^2, the end beyond the limit."""

    def reward(obs, action, next_obs):
        return next_obs[..., 0] + action[..., 0].square()

    return ModelTask(reward, lambda next_obs: next_obs[..., 0] > task_limit)


def some_batch(size: int = 12) -> Batch:
    g = torch.Generator().manual_seed(1)
    obs, next_obs = torch.randn(2, size, 2, generator=g)
    action = 2 * torch.rand(size, 1, generator=g) - 1
    reward, terminated = torch.randn(size, generator=g), torch.rand(size, generator=g) < 0.3
    return Batch(obs, action, reward, next_obs, terminated)


def ddpg(critics: int = 1) -> DDPG:
    """Its target networks are not its networks."""
    learner = DDPG(SPEC, DDPGConfig(gamma=GAMMA, hidden=(8,), critics=critics), 10, CPU, seed=0)
    other = DDPG(SPEC, learner.config, 10, CPU, seed=1)
    learner.actor_target, learner.critic_target = other.actor_target, other.critic_target
    return learner


def linear_quadratic() -> tuple:
    """A world, a policy and their exact value in float64: r = -s'Qs - a^2, V = -s'Ps."""
    F = torch.tensor([[1.0, 0.1], [-0.2, 0.9]]).double()
    B, K = torch.tensor([[0.0], [0.3]]).double(), torch.tensor([[-0.4, -0.7]]).double()
    Q = torch.tensor([[1.0, 0.2], [0.2, 0.5]]).double()
    closed = F + B @ K
    P = torch.from_numpy(solve_discrete_lyapunov((GAMMA**0.5 * closed.T).numpy(), (Q + K.T @ K).numpy()))

    def reward(obs, action, next_obs):
        return -((obs @ Q) * obs).sum(-1) - action[..., 0].square()

    def value(obs):
        return -((obs @ P) * obs).sum(-1)

    return lambda s, a: s @ F.T + a @ B.T, lambda s: s @ K.T, ModelTask(reward, never), value


def test_targets_by_hand():
    """Rewards 1, 2, 3, values 8, 16, 32, gamma 1/2; the second column ends in its second step."""
    reward, value = (torch.tensor(x).double()[:, None].expand(3, 2) for x in ([1, 2, 3], [8, 16, 32]))
    terminated = torch.tensor([[False, False], [False, True], [False, False]])
    found = expansions(reward, terminated, value, 0.5)
    assert found.T.tolist() == [[5, 6, 6.75], [5, 2, 2]]
    assert backups(reward, terminated, value[-1], 0.5).T.tolist() == [[6.75, 11.5, 19], [2, 2, 19]]
    assert reached(terminated).T.tolist() == [[True, True, True], [True, True, False]]


@pytest.mark.parametrize("horizon", [1, 2, 7])
def test_with_a_perfect_model_and_exact_values_every_horizon_agrees(horizon, generator):
    step, policy, task, value = linear_quadratic()
    start = torch.randn(20, 2, generator=generator).double()
    path = imagine(step, task, policy, start, horizon + 1)
    found = expansions(path.reward, path.terminated, value(path.next_obs), GAMMA)
    torch.testing.assert_close(found, value(start).expand_as(found), rtol=1e-12, atol=1e-12)
    y = backups(path.reward, path.terminated, value(path.next_obs[-1]), GAMMA)
    torch.testing.assert_close(y, value(path.obs), rtol=1e-12, atol=1e-12)
    members = torch.stack([found, found], 1)
    torch.testing.assert_close(steve_target(members), value(start), rtol=1e-12, atol=1e-12)


def test_so_it_does_where_episodes_end():
    """One step to the right, reward 1, the end beyond 4: from s there are 5 - s rewards left."""
    task = ModelTask(lambda obs, action, next_obs: torch.ones_like(obs[..., 0]), lambda s: s[..., 0] > 4)

    def value(obs):
        return (1 - GAMMA ** (5 - obs[..., 0])) / (1 - GAMMA)

    start = torch.arange(5.0).double()[:, None]
    path = imagine(lambda s, a: s + 1, task, torch.zeros_like, start, 6)
    found = expansions(path.reward, path.terminated, value(path.next_obs), GAMMA)
    torch.testing.assert_close(found, value(start).expand(6, 5), rtol=1e-12, atol=1e-12)


def test_horizon_zero_is_ddpgs_target_bit_for_bit():
    batch, learner = some_batch(), ddpg()
    with torch.no_grad():
        v = learner.q(learner.critic_target, batch.next_obs, learner.actor_target(batch.next_obs))[0]
    found = expansions(batch.reward[None], batch.terminated[None], v[None], GAMMA)
    assert torch.equal(found[0], learner.target(batch))
    assert torch.equal(found[0], td_target(batch.reward, batch.terminated, v, GAMMA))
    assert torch.equal(backups(batch.reward[None], batch.terminated[None], v, GAMMA), found)


def test_the_longest_target_is_the_whole_backup(generator):
    reward, value = torch.randn(2, 5, 30, generator=generator).double()
    terminated = torch.rand(5, 30, generator=generator) < 0.2
    longest = expansions(reward, terminated, value, GAMMA)[-1]
    torch.testing.assert_close(
        backups(reward, terminated, value[-1], GAMMA)[0], longest, rtol=1e-12, atol=1e-12
    )


def test_nothing_behind_an_end_counts():
    reward = torch.tensor([1.0, torch.nan])[:, None]
    terminated = torch.tensor([[True], [False]])
    value = torch.tensor([torch.inf, torch.nan])[:, None]
    assert expansions(reward, terminated, value, GAMMA).tolist() == [[1.0], [1.0]]


def test_weights_are_inverse_variances_and_sum_to_one(generator):
    """Variances 1, 4, 1/4: weights 4/21, 1/21, 16/21."""
    sign = torch.tensor([1.0, -1.0]).double()
    targets = torch.stack([sign, 2 * sign, sign / 2])[..., None]
    weights = inverse_variance_weights(targets)[:, 0]
    assert weights.tolist() == pytest.approx([4 / 21, 1 / 21, 16 / 21], rel=1e-6)
    targets = (
        torch.randn(4, 8, 50, generator=generator).double() * torch.tensor([1, 5, 0.1, 0])[:, None, None]
    )
    weights = inverse_variance_weights(targets)
    torch.testing.assert_close(weights.sum(0), torch.ones(50).double(), rtol=0, atol=1e-12)
    assert (weights >= 0).all()


def test_the_weighted_target_varies_least(generator):
    """Of independent estimates with variances v_H the best mean has 1 / sum 1/v_H, here 1 / (1 + 4 + 16)."""
    std = torch.tensor([1.0, 0.5, 0.25]).double()[:, None, None]
    told = std * torch.randn(3, 4_000, 1, generator=generator).double()
    weights = inverse_variance_weights(told)
    drawn = std[..., 0] * torch.randn(3, 100_000, generator=generator).double()
    assert (weights * drawn).sum(0).var().item() == pytest.approx(1 / 21, rel=0.03)


def test_identical_members_trust_every_horizon_alike():
    targets = torch.tensor([3.0, 5.0, 10.0]).double()[:, None, None].expand(3, 4, 2)
    torch.testing.assert_close(inverse_variance_weights(targets), torch.full((3, 2), 1 / 3).double())
    assert steve_target(targets).tolist() == pytest.approx([6, 6], rel=1e-12)


def test_where_only_the_models_disagree_nothing_but_the_real_step_is_trusted():
    """Then STEVE is DDPG."""
    targets = torch.tensor([[3.0, 3.0], [4.0, 6.0], [1.0, 9.0]]).double()[..., None]
    assert steve_target(targets).tolist() == pytest.approx([3.0], abs=1e-6)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_a_horizon_at_which_the_model_diverges_counts_for_nothing(bad):
    """The rest share the weight; where nothing is finite, neither is the target, which stops the run."""
    targets = torch.tensor([[3.0, 5.0], [2.0, 6.0], [bad, 1.0]])[..., None]
    assert inverse_variance_weights(targets)[:, 0].tolist() == pytest.approx([0.8, 0.2, 0], abs=1e-6)
    assert steve_target(targets).tolist() == pytest.approx([4], abs=1e-6)
    assert not steve_target(torch.full((2, 2, 1), torch.nan)).isfinite()


@pytest.mark.parametrize("make", [DDPG, SAC])
def test_the_target_that_is_handed_over_is_the_learners_own(make, generator):
    config = {DDPG: DDPGConfig, SAC: SACConfig}[make](hidden=(8,))
    batch = some_batch()
    y = torch.randn(len(batch.reward), generator=generator)
    assert torch.equal(make(SPEC, config, 10, CPU, seed=0).target(handed_over(batch, y)), y)


MODEL = DynamicsConfig(members=3, elites=2, hidden=(8,))


def slow_paths(made: MVE, batch: Batch, learner: DDPG, row: int, member: int) -> list[tuple]:
    """(obs, action, reward, terminated, next_obs) of one row in one member's world, up to its end."""
    steps = [tuple(x[row] for x in (batch.obs, batch.action, batch.reward, batch.terminated, batch.next_obs))]
    while len(steps) <= made.config.horizon and not steps[-1][3]:
        obs = steps[-1][4]
        action = learner.actor_target(obs)
        next_obs = made.model.predict(obs[None], action[None])[0][member, 0]
        reward, end = made.task.reward(obs, action, next_obs), made.task.terminated(next_obs)
        steps.append((obs, action, reward, end, next_obs))
    return steps


def slow_target(steps: list[tuple], value) -> float:
    """The sum along a path, and what is left behind it."""
    total = sum(GAMMA**i * float(step[2]) for i, step in enumerate(steps))
    return total if steps[-1][3] else total + GAMMA ** len(steps) * value(steps[-1][4])


@torch.no_grad()
def slow_q(learner: DDPG, critic: int):
    def value(obs):
        q = learner.q(learner.critic_target, obs[None], learner.actor_target(obs)[None])
        return float(q[critic, 0])

    return value


@pytest.mark.parametrize("critics", [1, 2])
@torch.no_grad()
def test_mve_equals_the_loop(critics):
    """Of several critics the least counts, as in the learner's own target."""
    batch, learner = some_batch(), ddpg(critics)
    made = MVE(SPEC, small(0.8), MVEConfig(horizon=3, model=MODEL), seed=0)
    found = made.augment(batch, learner)
    for row, y in enumerate(found.reward.tolist()):
        paths = [slow_paths(made, batch, learner, row, e) for e in range(2)]
        expected = 0.0
        for path in paths:
            expected += min(slow_target(path, slow_q(learner, critic)) for critic in range(critics)) / 2
        assert y == pytest.approx(expected, abs=1e-5)
    assert found.terminated.all()
    assert torch.equal(found.obs, batch.obs)
    assert torch.equal(found.action, batch.action)


@torch.no_grad()
def test_states_on_the_way_are_fitted_to_what_is_left():
    """Each imagined step of every path that is reached is one row, with the target from there on."""
    batch, learner = some_batch(), ddpg()
    made = MVE(SPEC, small(0.8), MVEConfig(horizon=3, td_k=True, model=MODEL), seed=0)
    found = made.augment(batch, learner)
    expected = []
    for e in range(2):
        for row in range(len(batch.reward)):
            path = slow_paths(made, batch, learner, row, e)
            for i in range(1, len(path)):
                y = slow_target(path[i:], slow_q(learner, 0))
                expected.append([*path[i][0].tolist(), *path[i][1].tolist(), y])
    rest = torch.cat([found.obs, found.action, found.reward[:, None]], 1)[len(batch.reward) :]
    assert len(rest) == len(expected) > 20
    torch.testing.assert_close(
        torch.tensor(sorted(expected)), torch.tensor(sorted(rest.tolist())), atol=1e-5, rtol=0
    )
    plain = MVE(SPEC, small(0.8), MVEConfig(horizon=3, model=MODEL), seed=0).augment(batch, learner)
    assert torch.equal(found.reward[: len(batch.reward)], plain.reward)


@torch.no_grad()
def test_steve_equals_the_loop():
    batch, learner = some_batch(), ddpg(critics=3)
    made = STEVE(SPEC, small(0.8), STEVEConfig(horizon=2, model=MODEL), seed=0)
    found = made.augment(batch, learner)
    for row, y in enumerate(found.reward.tolist()):
        targets = torch.empty(3, 6).double()
        for e in range(2):
            path = slow_paths(made, batch, learner, row, e)
            for critic in range(3):
                for horizon in range(3):
                    target = slow_target(path[: horizon + 1], slow_q(learner, critic))
                    targets[horizon, 3 * e + critic] = target
        weights = 1 / (targets.var(1, correction=0) + 1e-8)
        assert y == pytest.approx(float((weights * targets.mean(1)).sum() / weights.sum()), abs=1e-4)


@pytest.mark.parametrize(("make", "config"), [(MVE, MVEConfig), (STEVE, STEVEConfig)])
def test_without_a_horizon_it_is_the_learner_itself(make, config):
    batch, learner = some_batch(), ddpg(critics=2)
    made = make(SPEC, small(), config(horizon=0), seed=0)
    assert made.fit(batch, learner) == {}
    assert made.augment(batch, learner) is batch


@pytest.mark.parametrize(("make", "config"), [(MVE, MVEConfig), (STEVE, STEVEConfig)])
def test_a_fit_moves_all_of_the_model(make, config):
    batch = some_batch(60)
    made = make(SPEC, small(), config(horizon=1, model=MODEL), seed=0)
    before = copy.deepcopy(made.model.state_dict())
    metrics = made.fit(batch, ddpg())
    assert set(metrics) == {"loss/held_out", "model/squared_error", "model/epochs"}
    assert not any(torch.equal(before[name], x) for name, x in made.model.state_dict().items())
    torch.testing.assert_close(made.model.change.mean, (batch.next_obs - batch.obs).mean(0))


def test_discrete_actions_and_negative_horizons_are_refused():
    with pytest.raises(UsageError, match="env_id must have continuous actions for value expansion"):
        MVE(SPEC._replace(discrete=True), small(), MVEConfig(), 0)
    for config in (MVEConfig, STEVEConfig):
        with pytest.raises(UsageError, match="horizon must be at least 0, got -1"):
            config(horizon=-1)


def test_shapes_that_would_be_broadcast_are_refused():
    reward, terminated = torch.ones(3, 4), torch.zeros(3, 4, dtype=torch.bool)
    with pytest.raises(UsageError, match=r"value must be \[3, 4\], got \[3, 2, 4\]"):
        expansions(reward, terminated, torch.ones(3, 2, 4), GAMMA)
    with pytest.raises(UsageError, match=r"terminated must be \[3, 4\], got \[4\]"):
        expansions(reward, terminated[0], reward, GAMMA)
    with pytest.raises(UsageError, match=r"value must be \[4\], got \[3, 4\]"):
        backups(reward, terminated, reward, GAMMA)
    with pytest.raises(UsageError, match=r"gamma must lie in \[0, 1\], got 1.1"):
        backups(reward, terminated, reward[0], 1.1)
    with pytest.raises(UsageError, match="reward must hold the real step, got none"):
        expansions(reward[:0], terminated[:0], reward[:0], GAMMA)
    with pytest.raises(UsageError, match=r"targets must be \[H\+1, M, B\], got \[3, 4\]"):
        inverse_variance_weights(reward)
