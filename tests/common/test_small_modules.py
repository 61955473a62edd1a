"""device, schedules, networks, optim."""

import math

import pytest
import torch

from common import device
from common.networks import mlp
from common.optim import gradient_step
from common.schedules import Constant, Linear
from common.types import UsageError


def test_device_sets_the_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    device.setup("cpu", 1)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


def test_numbers_that_are_slow_to_compute_with_count_as_zero():
    torch.set_flush_denormal(False)
    assert torch.tensor([1e-30]) * 1e-10 > 0
    device.setup("cpu", 1)
    assert torch.tensor([1e-30]) * 1e-10 == 0
    torch.set_flush_denormal(False)


def test_more_threads_than_cores_are_refused():
    with pytest.raises(UsageError, match="threads must be at most"):
        device.setup("cpu", 10**6)


@pytest.mark.parametrize("name", ["cuda:99", "gpu", ""])
def test_unknown_device_is_one_sentence(name):
    with pytest.raises(UsageError, match="use cpu, cuda or auto"):
        device.setup(name, 1)


def test_auto_is_cpu_without_a_gpu():
    assert device.setup("auto", 1).type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_linear_schedule_by_hand():
    schedule = Linear(1.0, 0.2, 4)
    assert [schedule(k) for k in (0, 1, 4, 9)] == pytest.approx([1.0, 0.8, 0.2, 0.2])
    assert Constant(0.3)(7) == 0.3


def test_mlp_layers_are_orthogonal_with_their_gain(generator):
    net = mlp(5, 8, 8, 3, last_gain=0.01, generator=generator)
    first, hidden, last = net[0].weight, net[2].weight, net[4].weight
    torch.testing.assert_close(first.T @ first, 2 * torch.eye(5))
    torch.testing.assert_close(hidden @ hidden.T, 2 * torch.eye(8))
    torch.testing.assert_close(last @ last.T, 1e-4 * torch.eye(3), rtol=1e-4, atol=1e-8)
    assert all(not layer.bias.any() for layer in net[::2])
    assert [type(layer).__name__ for layer in net] == ["Linear", "Tanh", "Linear", "Tanh", "Linear"]


def test_mlp_draws_from_its_generator_only():
    torch.manual_seed(0)
    one = mlp(4, 8, 2, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(1)
    two = mlp(4, 8, 2, generator=torch.Generator().manual_seed(5))
    assert torch.equal(one[2].weight, two[2].weight)


def test_mlp_without_hidden_layer_is_linear(generator):
    net = mlp(3, 2, last_gain=1.0, generator=generator)
    assert len(net) == 1
    torch.testing.assert_close(net[0].weight @ net[0].weight.T, torch.eye(2))


def test_gradient_step_cuts_the_norm_and_reports_it_uncut():
    w = torch.nn.Parameter(torch.zeros(2))
    sgd = torch.optim.SGD([w], lr=1.0)
    norm = gradient_step((torch.tensor([3.0, 4.0]) * w).sum(), sgd, [w], max_norm=0.5)
    assert norm.item() == pytest.approx(5.0)
    torch.testing.assert_close(w.data, torch.tensor([-0.3, -0.4]), rtol=1e-4, atol=0)
    norm = gradient_step((torch.tensor([3.0, 4.0]) * w).sum(), sgd, [w], max_norm=math.inf)
    torch.testing.assert_close(w.data, torch.tensor([-3.3, -4.4]), rtol=1e-4, atol=0)


def test_gradient_step_shows_a_nan():
    w = torch.nn.Parameter(torch.zeros(1))
    norm = gradient_step((w * math.nan).sum(), torch.optim.SGD([w], lr=1.0), [w], 1.0)
    assert math.isnan(norm.item())
