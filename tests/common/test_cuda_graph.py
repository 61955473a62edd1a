"""Bookkeeping of recorded updates with a stand-in for CUDA; on a device that has it, the numbers."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from common.cuda_graph import CapturedUpdate
from common.types import UsageError
from hw3_q_learning.ddpg import DDPG, TD3Config
from hw3_q_learning.sac import SAC, SACConfig
from tests.hw3.batches import CONTINUOUS, noise


class Learner:
    """Writes down which turn it is and what it reads."""

    device, generator = torch.device("cuda"), "its generator"

    def __init__(self):
        self.updates, self.launched = 0, []

    def update(self, batch):
        phase = self.updates % 2
        self.launched.append(lambda: (phase, batch.reward.sum().item()))
        self.updates += 1
        return {"phase": phase}


@pytest.fixture
def stand_in(monkeypatch):
    """What is launched while a graph records is not computed, but with every replay."""
    learner, computed = Learner(), []

    def compute(kernels):
        computed.extend(kernel() for kernel in kernels)

    class Graph:
        def register_generator_state(self, generator):
            assert generator == learner.generator

        def replay(self):
            compute(self.kernels)

    @contextmanager
    def record(graph):
        yield
        graph.kernels = learner.launched[:]
        learner.launched.clear()

    @contextmanager
    def at_once(stream):
        yield
        compute(learner.launched)
        learner.launched.clear()

    def stream():
        return SimpleNamespace(wait_stream=lambda other: None)

    for name, fake in (("CUDAGraph", Graph), ("graph", record), ("stream", at_once)):
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    return learner, computed


def test_every_update_is_computed_once_in_its_turn_on_its_batch(stand_in):
    learner, computed = stand_in
    update, batches = CapturedUpdate(learner, period=2), [noise(CONTINUOUS, seed=k) for k in range(20)]
    returned = [update(batch)["phase"] for batch in batches]
    assert computed == [(k % 2, pytest.approx(batch.reward.sum().item())) for k, batch in enumerate(batches)]
    assert returned == [k % 2 for k in range(20)]
    assert learner.updates == 20
    assert len(update.graphs) == 2


def test_a_cpu_has_no_graphs():
    with pytest.raises(UsageError, match="capture must run on device cuda, got cpu"):
        CapturedUpdate(SAC(CONTINUOUS, SACConfig(hidden=(8,)), 1, torch.device("cpu"), 0), 1)


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "config"), [(SAC, SACConfig()), (DDPG, TD3Config())])
def test_replayed_updates_move_the_networks_as_plain_ones_do(kind, config):
    cuda = torch.device("cuda")
    plain, captured = (kind(CONTINUOUS, config, 1, cuda, seed=0) for _ in range(2))
    update = CapturedUpdate(captured, config.actor_period)
    for k in range(20):
        batch = type(b := noise(CONTINUOUS, seed=k))(*(x.cuda() if torch.is_tensor(x) else x for x in b))
        plain.update(batch)
        update(batch)
    for a, b in zip(captured.critic_parameters, plain.critic_parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert torch.equal(captured.generator.get_state(), plain.generator.get_state())
    assert captured.updates == plain.updates == 20
