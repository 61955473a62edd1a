"""Windows of the past: how they are cut, that acting sees what fitting saw, and that the GRU uses them."""

import numpy as np
import pytest
import torch

from common.envs import registry
from common.evaluation import evaluate
from common.types import EnvSpec, UsageError
from hw1_imitation.behavior_cloning import BCConfig, BehaviorCloning
from hw1_imitation.demonstrations import Demonstrations, collect
from hw1_imitation.experts import Differences, expert
from hw1_imitation.recurrent import HistoryCloning, HistoryConfig, RecurrentCloning, RecurrentConfig, Window
from tests.helpers import CPU

SPEC, BLIND = EnvSpec(1, 2, 3, False), "course/CartPoleNoVelocity-v0"


def test_windows_of_demonstrations_stay_in_their_trajectory():
    obs = torch.arange(5.0)[:, None]
    data = Demonstrations(obs, torch.zeros(5, 1), torch.tensor([3, 2])).with_history(3)
    assert data.obs.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [3, 3, 3], [3, 3, 4]]


def test_acting_sees_the_windows_that_fitting_saw():
    """Two environments, the second of which begins anew at the third step."""
    seen = []
    window = Window(lambda obs: seen.append(obs.tolist()) or obs, 3)
    for k, first in enumerate([(True, True), (False, False), (False, True), (False, False)]):
        if any(first):
            window.begin(np.array(first))
        window(np.array([[k], [10 + k]], np.float32))
    assert [rows[0] for rows in seen] == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]
    assert [rows[1] for rows in seen] == [[10, 10, 10], [10, 10, 11], [12, 12, 12], [12, 12, 13]]


def test_another_number_of_environments_begins_anew():
    window = Window(lambda obs: obs, 2)
    window(np.zeros((3, 1), np.float32))
    assert window(np.ones((2, 1), np.float32)).tolist() == [[1, 1], [1, 1]]


def test_history_of_one_is_behaviour_cloning(generator):
    plain = BehaviorCloning(SPEC, BCConfig(), CPU, 0)
    history = HistoryCloning(SPEC, HistoryConfig(window=1), CPU, 0)
    obs, action = torch.randn(16, 2, generator=generator), torch.rand(16, 3, generator=generator)
    for agent in (plain, history):
        agent.observe(obs)
        agent.update(obs, action)
    assert np.array_equal(plain.act(obs.numpy()), history.act(obs.numpy()))


def test_gru_reads_the_whole_window_in_its_order(generator):
    policy = RecurrentCloning(SPEC, RecurrentConfig(window=4), CPU, 0).policy
    obs = torch.randn(1, 8, generator=generator, requires_grad=True)
    slope = torch.autograd.grad(policy(obs).square().sum(), obs)[0].unflatten(1, (4, 2)).abs().sum(2)[0]
    assert (slope > 0).all()
    turned = obs.unflatten(1, (4, 2)).flip(1).flatten(1)
    assert not torch.allclose(policy(obs), policy(turned))


def test_statistics_count_every_observation_once():
    agent = RecurrentCloning(SPEC, RecurrentConfig(window=2), CPU, 0)
    data = Demonstrations(torch.tensor([[0.0, 0], [2, 4]]), torch.zeros(2, 3), torch.tensor([2]))
    agent.observe(data.with_history(2).obs)
    assert agent.policy.normalize.mean.tolist() == pytest.approx([1, 2], abs=1e-3)


def test_expert_takes_differences_and_forgets_between_episodes():
    act = Differences(lambda x: x, dt=0.5)
    act.begin(np.array([True, True]))
    assert act(np.array([[1.0, 2], [3, 4]])).tolist() == [[1, 0, 2, 0], [3, 0, 4, 0]]
    assert act(np.array([[2.0, 2], [3, 3]])).tolist() == [[2, 2, 2, 0], [3, 0, 3, -2]]
    act.begin(np.array([False, True]))
    assert act(np.array([[2.0, 3], [9, 9]])).tolist() == [[2, 0, 3, 2], [9, 0, 9, 0]]


def test_expert_balances_by_memory_alone():
    """And its demonstrations are what it did itself, not what a second call would have said."""
    act = expert(BLIND)
    assert evaluate(act, registry.make_envs(BLIND, 5), seed=0)["return_mean"] == 500
    data = collect(act, registry.make_envs(BLIND, 1), 600, seed=0)
    assert data.length.tolist() == [500, 100]
    x = np.stack([data.obs.numpy(), np.zeros_like(data.obs)], -1)
    x[1:500, :, 1] = np.diff(data.obs[:500].numpy(), axis=0) / 0.02
    again = expert("CartPole-v1")(x[:500].reshape(500, 4))
    assert (again == data.action[:500].numpy()).mean() > 0.999


@pytest.mark.parametrize(("kind", "settings", "sentence"), [
    (HistoryConfig, {"window": 0}, "window must lie in"),
    (RecurrentConfig, {"window": 0}, "window must lie in"),
    (RecurrentConfig, {"units": 0}, "units must be at least 1"),
])  # fmt: skip
def test_bad_settings_are_refused(kind, settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        kind(**settings)
