"""Deep Q-learning: targets by hand, the value of a state that never ends, what each setting changes."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from common.types import UsageError
from hw3_q_learning.dqn import DQN, DQNConfig, Hold, td_target, value_of_greedy
from hw3_q_learning.q_networks import QNetwork, duel
from tests.helpers import CPU
from tests.hw3.batches import CONTINUOUS, DISCRETE, noise, self_loop

LINEAR = DQNConfig(gamma=0.9, lr=0.05, lr_decay=False, hidden=(), target_period=1, tau=1.0)


def agent(config: DQNConfig = LINEAR, updates: int = 1000) -> DQN:
    return DQN(DISCRETE, config, updates, CPU, seed=0)


def with_values(online: list[float], target: list[float], **options) -> DQN:
    """Whatever it observes, these are its values."""
    made = agent(dataclasses.replace(LINEAR, **options))
    for net, values in ((made.q, online), (made.q_target, target)):
        net.net[0].weight.data.zero_()
        net.net[0].bias.data.copy_(torch.tensor(values))
    return made


def test_target_by_hand():
    """1 + 0.9 x 10, and 1 where it ended; after three steps 0.9^3 counts."""
    reward, value = torch.ones(3), torch.full((3,), 10.0)
    terminated = torch.tensor([False, True, False])
    y = td_target(reward[:2], terminated[:2], value[:2], gamma=0.9)
    assert y.tolist() == pytest.approx([10, 1])
    y = td_target(reward, terminated, value, 0.9 ** torch.tensor([1.0, 1.0, 3.0]))
    assert y.tolist() == pytest.approx([10, 1, 8.29])


def test_no_value_of_an_absorbing_state_leaks():
    """Not even one that is infinite, which a product with zero would let through as nan."""
    y = td_target(torch.ones(1), torch.tensor([True]), torch.tensor([torch.inf]), 0.9)
    assert y.tolist() == [1]


def test_target_keeps_double_precision():
    y = td_target(*(torch.tensor([x], dtype=torch.float64) for x in (0.1, 0.0, 0.3)), gamma=0.7)
    assert y.item() == 0.1 + 0.7 * 0.3


def test_bad_targets_are_named():
    one = torch.ones(2)
    with pytest.raises(UsageError, match="must have one shape"):
        td_target(one, one > 2, torch.ones(2, 1), 0.9)
    with pytest.raises(UsageError, match=r"gamma must lie in \[0, 1\], got 1.1"):
        td_target(one, one > 2, one, 1.1)


def test_double_q_selects_by_one_network_and_evaluates_by_the_other():
    q_evaluate, q_select = torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, 2.0]])
    assert value_of_greedy(q_evaluate, q_evaluate).item() == 5
    assert value_of_greedy(q_evaluate, q_select).item() == 1
    batch = self_loop(DISCRETE, 1)
    for double, value in ((False, 5), (True, 1)):
        assert with_values([3.0, 2.0], [1.0, 5.0], double=double).target(batch).item() == pytest.approx(
            1 + 0.9 * value
        )


@pytest.mark.parametrize(
    ("double", "duelling", "period", "tau"),
    [(False, False, 1, 1.0), (True, False, 10, 1.0), (True, True, 1, 0.2)],
)
def test_value_of_the_state_that_never_ends(double, duelling, period, tau):
    """Reward 1 for ever: 1 / (1 - gamma) = 10, by copies and by averages."""
    config = dataclasses.replace(LINEAR, double=double, duelling=duelling, target_period=period, tau=tau)
    made, batch = agent(config), self_loop(DISCRETE)
    for _ in range(400):
        made.update(batch)
    assert made.values(batch.obs[:1]).detach().numpy() == pytest.approx(10, rel=0.02)


def test_value_where_every_step_ends():
    made = agent()
    for _ in range(200):
        made.update(self_loop(DISCRETE, terminated=True))
    assert made.values(torch.ones(1, 3)).detach().numpy() == pytest.approx(1, rel=0.02)


def test_target_follows_every_period_only():
    made, batch = agent(dataclasses.replace(LINEAR, target_period=3, tau=0.25)), self_loop(DISCRETE)
    before = made.q_target.net[0].weight.clone()
    for _ in range(2):
        made.update(batch)
    assert torch.equal(made.q_target.net[0].weight, before)
    made.update(batch)
    torch.testing.assert_close(
        made.q_target.net[0].weight, 0.75 * before + 0.25 * made.q.net[0].weight.detach()
    )


def test_no_gradient_reaches_the_target():
    made = agent()
    made.update(noise(DISCRETE))
    assert all(parameter.grad is None for parameter in made.q_target.parameters())
    assert not made.target(noise(DISCRETE)).requires_grad


def test_loss_is_hubers_with_weights():
    """Q = 3, y = 1 + 0.9 x 5 = 5.5: error 2.5, Huber 2.5 - 1/2; weights 1 and 3 of two such errors."""
    made = with_values([3.0, 3.0], [5.0, 5.0], double=False)
    batch = self_loop(DISCRETE, 2)._replace(weight=torch.tensor([1.0, 3.0]))
    metrics = made.update(batch)
    assert metrics["loss/q"].item() == pytest.approx(2 * (1 + 3) / 2)
    assert metrics["value/td_error"].tolist() == pytest.approx([2.5, 2.5])


def test_long_gradients_are_cut():
    """A step of SGD as long as the limit, whatever the error; with Adam its length would not show."""
    made = agent(dataclasses.replace(LINEAR, max_grad_norm=0.01, huber=1e6))
    made.optimizer = torch.optim.SGD(made.parameters, lr=1.0)
    made.lr = lambda step: 1.0
    before = [p.detach().clone() for p in made.parameters]
    batch = self_loop(DISCRETE)
    metrics = made.update(batch._replace(reward=1e4 * batch.reward))
    length = sum((p.detach() - q).square().sum() for p, q in zip(made.parameters, before, strict=True)).sqrt()
    assert metrics["grad/norm"] > 1
    assert length.item() == pytest.approx(0.01, rel=1e-3)


def test_learning_rate_and_epsilon_run_down():
    made = agent(dataclasses.replace(LINEAR, lr=1e-3, lr_decay=True, epsilon_steps=100), updates=10)
    for k in range(10):
        made.update(noise(DISCRETE))
        assert made.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * (1 - k / 10))
    assert [made.epsilon(step) for step in (0, 50, 100, 10**6)] == pytest.approx([1, 0.525, 0.05, 0.05])


def test_exploration_is_epsilon_greedy():
    """A quarter at random, of which half are greedy too: 1/8 +- 4 standard deviations of 5,000 draws."""
    made = with_values([1.0, 0.0], [0.0, 0.0], epsilon=0.25, epsilon_final=0.25)
    actions = made.explore(np.zeros((5000, 3), np.float32), 0)
    assert abs(actions.mean() - 1 / 8) < 4 * (1 / 8 * 7 / 8 / 5000) ** 0.5
    assert not made.act(np.zeros((7, 3), np.float32)).any()


def test_a_random_action_is_held_as_long_as_was_drawn(generator):
    """Of durations 1 and 2 with 4/5 and 1/5 (mu = 2): mean 1.2, and nothing else begins meanwhile."""
    hold = Hold(1, 2.0)
    hold.law = torch.tensor([0.8, 1.0], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.bool)
    begins = 0
    for k in range(3_000):
        held, before = hold.left.item() > 0, hold.action.item()
        random, action = hold(one, torch.tensor([k]), generator)
        assert random.item()
        assert action.item() == (before if held else k)
        begins += not held
    share = 1 / 1.2
    assert abs(begins / 3_000 - share) < 4 * (share * (1 - share) / 3_000) ** 0.5


def test_durations_follow_the_zeta_law(generator):
    """P(1) = 6 / pi^2 but for the end of the sum, P(2) a quarter of it; who does not begin stays greedy."""
    hold = Hold(20_000, 2.0)
    begin = torch.arange(20_000) % 2 == 0
    random, _ = hold(begin, torch.zeros(20_000, dtype=torch.int64), generator)
    assert torch.equal(random, begin)
    for n, p in ((1, 6 / math.pi**2), (2, 1.5 / math.pi**2)):
        found = (hold.left[begin] == n - 1).float().mean().item()
        assert abs(found - p) < 4 * (p * (1 - p) / 10_000) ** 0.5 + 1e-3


def test_duelling_by_hand():
    """V = 2, A = (1, 3): the mean of A is taken off, so that the mean of Q is V."""
    assert duel(torch.tensor([[2.0]]), torch.tensor([[1.0, 3.0]])).tolist() == [[1, 3]]


@pytest.mark.parametrize("atoms", [None, 7])
def test_duelling_network_has_v_as_the_mean_of_its_values(atoms, generator):
    net = QNetwork(3, (8,), 4, generator, duelling=True, atoms=atoms)
    obs = torch.randn(5, 3, generator=generator)
    v = net.net(obs)[:, : atoms or 1]
    torch.testing.assert_close(net(obs).mean(1), v if atoms else v.squeeze(1))
    assert net(obs).shape == ((5, 4, 7) if atoms else (5, 4))


def test_overestimation_of_the_max_and_its_absence_in_double_q(generator):
    """True values 0, estimates N(0, 1) of 10 actions: the max of one estimate is 1.54 too high on average
    (the mean largest of ten), one estimate at the other's argmax 0: within 4 standard errors."""
    first, second = torch.randn(2, 20_000, 10, generator=generator)
    zero = torch.zeros(20_000)
    single = td_target(zero, zero, value_of_greedy(first, first), 1.0)
    double = td_target(zero, zero, value_of_greedy(first, second), 1.0)
    assert single.mean().item() == pytest.approx(1.5388, abs=4 * 0.587 / 20_000**0.5)
    assert double.mean().item() == pytest.approx(0, abs=4 / 20_000**0.5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"zeta": 1.0}, "zeta must be above 1 and finite, got 1.0"),
        ({"gamma": 1.01}, "gamma must lie in"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"huber": float("nan")}, "huber must be positive"),
        ({"target_period": 0}, "target_period must be at least 1"),
        ({"tau": -0.1}, "tau must lie in"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be positive"),
        ({"hidden": (0,)}, "hidden must lie in"),
    ],
)
def test_bad_settings_are_named(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        DQNConfig(**options)


def test_continuous_actions_are_refused():
    with pytest.raises(UsageError, match="env_id must have discrete actions for DQN"):
        DQN(CONTINUOUS, LINEAR, 1, CPU, seed=0)
