"""A flow whose velocity is known in closed form, one that is fitted, and chunks played to their end."""

import numpy as np
import pytest
import torch

from common.types import EnvSpec, UsageError
from hw1_imitation.demonstrations import Demonstrations
from hw1_imitation.flow_matching import FlowConfig, FlowMatching, Player, euler, flow_loss
from tests.helpers import CPU

SPEC = EnvSpec(1, 3, 2, False)
M, S = 0.7, 0.2  # mean and deviation of the target


def exact(a: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
    """E[A_1 - A_0 | A_tau = a] for A_1 ~ N(m, s^2): by the conditional mean of jointly Gaussian numbers."""
    variance = (1 - tau) ** 2 + tau**2 * S**2
    return M + (tau * S**2 - (1 - tau)) / variance * (a - tau * M)


def test_exact_velocity_carries_noise_to_the_target(generator):
    """Euler's error halves with its step."""
    noise = torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
    found = euler(exact, noise, 200)
    assert found.mean().item() == pytest.approx(M, abs=0.01)
    assert found.std().item() == pytest.approx(S, abs=0.01)
    true = M + S * noise  # the flow keeps the order, and is linear here
    coarse, fine = ((euler(exact, noise, n) - true).abs().mean().item() for n in (50, 100))
    assert coarse / fine == pytest.approx(2, abs=0.15)


def test_exact_velocity_has_the_least_loss(generator):
    noise, draw = (torch.randn(50_000, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    tau = torch.rand(50_000, 1, generator=generator, dtype=torch.float64)
    data = (M + S * draw, noise, tau)
    best = flow_loss(exact, *data)
    for wrong in (0.9, 1.1):
        assert flow_loss(lambda a, t, by=wrong: by * exact(a, t), *data) > best + 1e-3
    aside = flow_loss(lambda a, t: exact(a, t) + 0.1, *data)
    assert (aside - best).item() == pytest.approx(0.01, abs=2e-3)


def test_loss_by_hand():
    """A_1 = 2, A_0 = 1, tau = 1/4: A_tau = 5/4, and v = A_tau misses 1 by 1/4."""
    loss = flow_loss(lambda a, _: a, torch.full((1, 1), 2.0), torch.ones(1, 1), torch.full((1, 1), 0.25))
    assert loss.item() == pytest.approx(1 / 16)


def test_fitted_flow_carries_a_gaussian_to_a_mixture():
    """Actions at -0.8 and 0.8, three to one."""
    config = FlowConfig(chunk=1, steps=20, lr=1e-2)
    agent = FlowMatching(EnvSpec(1, 1, 1, False), config, CPU, 0)
    g = torch.Generator().manual_seed(0)
    for k in range(600):
        action = torch.where(torch.rand(256, 1, generator=g) < 0.75, -0.8, 0.8)
        agent.update(torch.zeros(256, 1), action, 1 - k / 600)
    drawn = agent.draw(np.zeros((2_000, 1), np.float32))[:, 0, 0]
    assert (np.abs(np.abs(drawn) - 0.8) < 0.25).mean() > 0.9
    assert (drawn < 0).mean() == pytest.approx(0.75, abs=0.06)


def test_a_chunk_is_played_to_its_end_and_not_beyond_an_episode():
    asked = []

    def draw(obs):
        asked.append(obs[:, 0].tolist())
        return obs[:, None, :1] + np.arange(3, dtype=np.float32)[:, None] / 10  # o, o + 0.1, o + 0.2

    player = Player(draw, 3)
    player.begin(np.array([True, True]))

    def see(*numbers):
        return player(np.array(numbers, np.float32)[:, None])[:, 0].round(4).tolist()

    assert see(1, 2) == pytest.approx([1, 2])
    assert see(5, 5) == pytest.approx([1.1, 2.1])
    player.begin(np.array([False, True]))  # the second one starts again
    assert see(6, 7) == pytest.approx([1.2, 7])
    assert see(8, 9) == pytest.approx([8, 7.1])
    assert asked == [[1, 2], [7], [8]]


def test_chunks_of_demonstrations_stay_in_their_trajectory():
    action = torch.arange(5)[:, None] / 10
    data = Demonstrations(torch.zeros(5, 1), action, torch.tensor([3, 2])).chunked(3)
    expected = [[0, 1, 2], [1, 2, 2], [2, 2, 2], [3, 4, 4], [4, 4, 4]]
    torch.testing.assert_close(data.action, torch.tensor(expected) / 10)
    assert data.length.tolist() == [3, 2]


def test_bad_settings_are_refused():
    with pytest.raises(UsageError, match="chunk must be at least 1, got 0"):
        FlowConfig(chunk=0)
    with pytest.raises(UsageError, match="continuous actions for flow matching"):
        FlowMatching(EnvSpec(1, 3, 2, True), FlowConfig(), CPU, 0)
    with pytest.raises(UsageError, match="chunks need continuous actions"):
        Demonstrations(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64), torch.tensor([2])).chunked(2)
