"""The bias of old actions on a bandit, exact and learned; the two steps; what is stored."""

import copy
import math

import pytest
import torch

from common import checkpoint
from common.distributions import Categorical
from common.replay import Batch, transitions
from common.types import EnvSpec, UsageError
from hw2_policy_gradient.off_policy_actor_critic import (
    OffPolicyActorCritic,
    OffPolicyActorCriticConfig,
    actor_loss,
    exact_actor_loss,
    td_target,
)
from tests.helpers import CPU, random_rollout

SPEC = EnvSpec(num_envs=3, obs_dim=2, action_dim=3, discrete=True)
CONTINUOUS = EnvSpec(num_envs=3, obs_dim=2, action_dim=4, discrete=False)
each_spec = pytest.mark.parametrize("spec", [SPEC, CONTINUOUS], ids=["discrete", "continuous"])
Q = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)  # the bandit's rewards


def agent(spec: EnvSpec = SPEC, **config) -> OffPolicyActorCritic:
    config = {"learning_starts": 1, "gradient_steps": 2, "batch_size": 16} | config
    return OffPolicyActorCritic(spec, OffPolicyActorCriticConfig(**config), 10, CPU, seed=0)


def expected_gradient(logits: torch.Tensor, behaviour: torch.Tensor) -> torch.Tensor:
    """sum_a behaviour(a) grad log pi(a) Q(a), through the shipped loss, one action at a time."""
    logits = logits.clone().requires_grad_()
    log_prob = Categorical(logits).log_p
    losses = torch.stack([actor_loss(log_prob[a].view(1, 1), Q[a].view(1, 1)) for a in range(3)])
    return torch.autograd.grad(-(behaviour * losses).sum(), logits)[0]


def test_fresh_actions_give_the_gradient_and_old_ones_another():
    """pi = (1/4, 1/4, 1/2), J = sum pi Q = 9/4: dJ/dlogits = pi (Q - J) = (-5, -1, 6)/16. With actions of a
    uniform policy: (Q - pi sum Q)/3 = (-1/2, 1/2, 0)/3, which takes nothing to the best action."""
    pi = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64)
    fresh = expected_gradient(pi.log(), pi)
    old = expected_gradient(pi.log(), torch.full((3,), 1 / 3, dtype=torch.float64))
    torch.testing.assert_close(fresh, torch.tensor([-5.0, -1.0, 6.0], dtype=torch.float64) / 16)
    torch.testing.assert_close(old, torch.tensor([-0.5, 0.5, 0.0], dtype=torch.float64) / 3)


def test_all_actions_give_the_gradient_without_a_draw():
    """The sum over them is what the draws of two states, each policy its own, have on average."""
    logits = torch.tensor([[0.3, -0.2, 0.5], [0.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    loss = exact_actor_loss(Categorical(logits).log_p, torch.stack((Q, 2 * Q), 1))
    (gradient,) = torch.autograd.grad(-loss, logits)
    for row, state, scale in zip(gradient, logits.detach(), (1, 2), strict=True):
        torch.testing.assert_close(2 * row, scale * expected_gradient(state, state.softmax(0)))


def test_old_actions_rest_at_the_wrong_policy():
    """The gradient vanishes at pi proportional to old(a) Q(a) = (1, 2, 3)/6: J = 14/6 of a possible 3."""
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
    rest = (Q / Q.sum()).log()
    torch.testing.assert_close(expected_gradient(rest, uniform), torch.zeros(3, dtype=torch.float64))
    assert expected_gradient(rest, rest.exp())[2] > 0.1  # fresh actions go on towards the best


@pytest.mark.parametrize("n", [2, 3])
def test_the_mean_of_the_other_actions_is_no_bias_and_lowers_the_variance(n):
    """Over all n-tuples of actions of one state."""
    logits = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    pi = Categorical(logits)
    exact = expected_gradient(logits.detach(), pi.log_p.exp().detach())
    mean, square, plain = torch.zeros(3), 0.0, 0.0
    for actions in torch.cartesian_prod(*[torch.arange(3)] * n):
        p = pi.log_p[actions].sum().exp().item()
        log_prob, q = pi.log_p[actions][:, None], 10 + Q[actions][:, None]
        (g,) = torch.autograd.grad(-actor_loss(log_prob, q), logits, retain_graph=True)
        (g0,) = torch.autograd.grad((log_prob * q).mean(), logits, retain_graph=True)
        mean, square, plain = mean + p * g, square + p * g.square().sum(), plain + p * g0.square().sum()
    torch.testing.assert_close(mean, exact)
    assert square < plain / 10


def bandit(steps: int = 400) -> Batch:
    """All three actions equally often, their rewards, every episode one step long."""
    action = torch.arange(steps) % 3
    obs = torch.zeros(steps, 2)
    return Batch(obs, action, Q.float()[action], obs, torch.ones(steps, dtype=torch.bool))


@pytest.mark.parametrize(("fresh", "expected"), [(True, 3.0), (False, 14 / 6)])
def test_the_agent_learns_the_bandit_from_fresh_actions_only(fresh, expected):
    """Expected reward after 150 gradient steps. Six seeds: 3.00 with new actions, 2.32 to 2.37 with those of
    the buffer, whose resting point is 14/6."""
    learner = agent(fresh_actions=fresh, lr=3e-2, q_lr=2e-2, entropy_weight=0.0, hidden=(16,))
    data = bandit()
    learner.replay.add(data)
    for _ in range(150):
        batch = learner.replay.sample(64, learner.generator)
        learner.critic_step(batch)
        learner.actor_step(batch)
    pi = learner.policy(data.obs[0]).log_p.exp().detach()
    assert (pi.double() @ Q).item() == pytest.approx(expected, abs=0.12)


def test_target_by_hand():
    """1 + 0.9 * 10, and 1 where s' is absorbing."""
    ones, over = torch.ones(2), torch.tensor([False, True])
    torch.testing.assert_close(td_target(ones, over, 10 * ones, 0.9), torch.tensor([10.0, 1.0]))


def test_q_of_a_self_loop_is_one_over_one_minus_gamma():
    """Reward 1 for ever: Q = 1/(1 - 1/2) = 2. Terminated after every step: 1. With the entropy of three equal
    actions worth 0.5 log 3 in every state but the first: 2 + 0.5 log 3."""
    obs, action = torch.zeros(60, 2), torch.arange(60) % 3
    for terminated, weight, value in (
        (False, 0.0, 2.0),
        (True, 0.5, 1.0),
        (False, 0.5, 2 + 0.5 * math.log(3)),
    ):
        learner = agent(gamma=0.5, q_lr=2e-2, hidden=(16,), entropy_weight=weight)
        batch = Batch(obs, action, torch.ones(60), obs, torch.full((60,), terminated))
        for _ in range(100):
            learner.critic_step(batch)
            torch._foreach_lerp_([*learner.q_target.parameters()], [*learner.q.parameters()], 0.2)
        q = learner.q(obs, action[None])
        torch.testing.assert_close(q, torch.full((2, 1, 60), value), rtol=0.02, atol=0)


def unlike(learner: OffPolicyActorCritic) -> OffPolicyActorCritic:
    """Make the policy care for its input, and the target network another one than Q."""
    with torch.no_grad():
        learner.policy.net[-1].weight.mul_(300)
        for p in learner.q_target.parameters():
            p.add_(0.3)
    return learner


@each_spec
def test_critic_step_goes_to_the_target_networks_value_of_new_next_actions(spec):
    """y = r + gamma (min over the critics of Q_target(s', a'), a' of pi as it is now in s', + alpha H)."""
    learner, batch = unlike(agent(spec, entropy_weight=0.3)), transitions(random_rollout(spec, 10))
    same = torch.Generator().set_state(learner.generator.get_state())
    with torch.no_grad():
        pi = learner.policy(batch.next_obs)
        if spec.discrete:
            q = torch.stack([net(batch.next_obs) for net in learner.q_target.nets]).amin(0)  # [B, A]
            value = (pi.log_p.exp() * q).sum(1)
        else:
            draws = torch.stack([pi.sample(same) for _ in range(4)])
            value = learner.q_target(batch.next_obs, draws).amin(0).mean(0)
        y = batch.reward + 0.99 * (value + 0.3 * pi.entropy()) * ~batch.terminated
        expected = (learner.q(batch.obs, batch.action[None]) - y).square().mean()
    loss, _ = learner.critic_step(batch)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("fresh", [True, False])
@each_spec
def test_actor_step_follows_its_loss_and_the_entropy(spec, fresh):
    learner = unlike(agent(spec, entropy_weight=0.3, fresh_actions=fresh, max_grad_norm=math.inf, actions=3))
    batch = transitions(random_rollout(spec, 10))
    same, pi = torch.Generator().set_state(learner.generator.get_state()), learner.policy(batch.obs)
    if fresh and spec.discrete:
        every = torch.arange(3)[:, None].expand(3, 30)
        loss = exact_actor_loss(pi.log_p, learner.q(batch.obs, every).amin(0))
    else:
        action = torch.stack([pi.sample(same) for _ in range(3)]).detach() if fresh else batch.action[None]
        log_prob = torch.stack([pi.log_prob(a) for a in action])
        loss = actor_loss(log_prob, learner.q(batch.obs, action).amin(0))
    expected = torch.autograd.grad(loss - 0.3 * pi.entropy().mean(), [*learner.policy.parameters()])
    learner.actor_step(batch)
    for p, g in zip(learner.policy.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g)


@each_spec
def test_q_of_many_actions_is_q_of_each(spec):
    learner, batch = agent(spec), transitions(random_rollout(spec, 5))
    other = batch.action.flip(0)
    both = learner.q(batch.obs, torch.stack((batch.action, other)))
    assert both.shape == (2, 2, 15)
    torch.testing.assert_close(both[:, :1], learner.q(batch.obs, batch.action[None]))
    torch.testing.assert_close(both[:, 1:], learner.q(batch.obs, other[None]))


def test_critics_start_and_stay_apart():
    learner, batch = agent(critics=3), transitions(random_rollout(SPEC, 10))
    learner.critic_step(batch)
    q = learner.q(batch.obs, batch.action[None])[:, 0]
    assert not any(torch.allclose(q[i], q[j]) for i, j in ((0, 1), (1, 2), (0, 2)))


def test_q_sees_the_action_that_the_environment_does():
    learner, obs = agent(CONTINUOUS), torch.ones(3, 2)
    far, edge = torch.full((1, 3, 4), 7.0), torch.ones(1, 3, 4)
    assert torch.equal(learner.q(obs, far), learner.q(obs, edge))


@each_spec
def test_each_step_moves_its_own_network_only(spec):
    learner, batch = agent(spec), transitions(random_rollout(spec, 10))
    networks = {"policy": learner.policy, "q": learner.q, "q_target": learner.q_target}
    for step, moved in ((learner.critic_step, "q"), (learner.actor_step, "policy")):
        before = {name: [p.clone() for p in net.parameters()] for name, net in networks.items()}
        step(batch)
        for name, net in networks.items():
            same = [torch.equal(a, b) for a, b in zip(before[name], net.parameters(), strict=True)]
            assert not any(same) if name == moved else all(same), f"{name} after the step of {moved}"


def test_the_target_follows_slowly():
    learner = agent(tau=0.25, gradient_steps=1)
    before = [p.clone() for p in learner.q_target.parameters()]
    learner.update(random_rollout(SPEC, 10))
    for old, new, q in zip(before, learner.q_target.parameters(), learner.q.parameters(), strict=True):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * q)


@each_spec
def test_update_reports_finite_numbers(spec):
    learner = agent(spec)
    for k in range(2):
        metrics = learner.update(random_rollout(spec, 10, seed=k))
    assert {"loss/q", "loss/policy", "policy/entropy", "value/q", "grad/norm"} == metrics.keys()
    assert all(math.isfinite(value) for value in metrics.values())
    assert (learner.updates, len(learner.replay)) == (2, 60)


def test_nothing_is_learned_before_learning_starts():
    """Rollouts of 30 transitions."""
    for start, metrics_are_empty in ((31, [True, False]), (30, [False, False])):
        learner = agent(learning_starts=start)
        assert [learner.update(random_rollout(SPEC, 10)) == {} for _ in range(2)] == metrics_are_empty


@pytest.mark.parametrize("decay", [True, False])
def test_rates_fall_to_zero_over_the_run_if_asked(decay):
    """Those of update k of 10 are 1 - k / 10 of the first."""
    learner, rollout = agent(lr=1e-2, q_lr=2e-2, lr_decay=decay), random_rollout(SPEC, 8)
    seen = []
    for _ in range(3):
        learner.update(rollout)
        seen.append([o.param_groups[0]["lr"] for o in (learner.optimizer, learner.q_optimizer)])
    share = [1, 0.9, 0.8] if decay else [1, 1, 1]
    for k, row in zip(share, seen, strict=True):
        assert row == pytest.approx([1e-2 * k, 2e-2 * k])


@each_spec
def test_the_buffer_is_part_of_the_checkpoint(spec):
    """Go on from a saved state: the same numbers, bit for bit."""
    first, second = agent(spec), agent(spec)
    first.update(random_rollout(spec, 10))
    checkpoint.restore(second, copy.deepcopy(checkpoint.state_of(first)))
    after = random_rollout(spec, 10, seed=1)
    assert first.update(after) == second.update(after)
    assert all(map(torch.equal, first.replay.memory[:5], second.replay.memory[:5]))


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 1.1}, {"tau": -0.1}, {"lr": math.nan}, {"q_lr": 0.0}, {"capacity": 0}, {"batch_size": 0},
        {"gradient_steps": 0}, {"learning_starts": 0}, {"actions": 1}, {"entropy_weight": -1.0},
        {"critics": 0}, {"hidden": (0,)}, {"max_grad_norm": 0.0}, {"log_std": math.inf},
    ],
)  # fmt: skip
def test_bad_settings_are_named(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        OffPolicyActorCriticConfig(**change)
