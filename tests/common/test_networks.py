import math

import pytest
import torch

from common.networks import GRU, MOST_UNITS, require_hidden
from common.types import UsageError


@pytest.fixture
def gru(generator):
    network = GRU(3, 8, generator)
    for parameter in network.parameters():  # away from its start, where the gates do not listen
        torch.nn.init.normal_(parameter, generator=generator)
    return network


def test_gru_by_its_equations(gru, generator):
    """One step, written out as in the paper."""
    x, h = torch.randn(1, 5, 3, generator=generator), torch.randn(5, 8, generator=generator)
    w, u = gru.cell.weight_ih.chunk(3), gru.cell.weight_hh.chunk(3)
    b, c = gru.cell.bias_ih.chunk(3), gru.cell.bias_hh.chunk(3)
    r = torch.sigmoid(x[0] @ w[0].T + b[0] + h @ u[0].T + c[0])
    z = torch.sigmoid(x[0] @ w[1].T + b[1] + h @ u[1].T + c[1])
    n = torch.tanh(x[0] @ w[2].T + b[2] + r * (h @ u[2].T + c[2]))
    states = gru(x, h, torch.zeros(1, 5, dtype=torch.bool))
    torch.testing.assert_close(states[0], z * h + (1 - z) * n)


def test_gru_forgets_at_the_start_of_an_episode_and_there_only(gru, generator):
    """Two episodes in one column equal each in a column of its own, the later one from zero."""
    x, h = torch.randn(7, 2, 3, generator=generator), torch.randn(2, 8, generator=generator)
    first = torch.zeros(7, 2, dtype=torch.bool)
    first[4, 0] = True
    states, never = gru(x, h, first), torch.zeros(7, 2, dtype=torch.bool)
    alone = gru(x, h, never)
    torch.testing.assert_close(states[:4], alone[:4])
    torch.testing.assert_close(states[4:, 1], alone[4:, 1])
    torch.testing.assert_close(states[4:, 0], gru(x[4:], torch.zeros(2, 8), never[4:])[:, 0])


def test_no_gradient_passes_the_start_of_an_episode(gru, generator):
    x = torch.randn(6, 1, 3, generator=generator, requires_grad=True)
    h = torch.randn(1, 8, generator=generator, requires_grad=True)
    first = torch.tensor([[False], [False], [True], [False], [False], [False]])
    gru(x, h, first)[-1].sum().backward()
    assert not x.grad[:2].any()
    assert x.grad[2:].all()
    assert not h.grad.any()


def test_gru_starts_as_filters_of_one_to_twenty_steps(generator):
    """Unit k keeps the share sigmoid(b_k) of itself per step, whatever it sees."""
    network = GRU(2, 16, generator)
    h = torch.ones(1, 16)
    still = network(torch.zeros(1, 1, 2), h, torch.tensor([[False]]))[0, 0]
    candidate = torch.tanh(0.5 * network.cell.weight_hh[32:].sum(1))  # r = 1/2
    kept = (still - candidate) / (1 - candidate)
    torch.testing.assert_close(kept, torch.linspace(-3, 3, 16).sigmoid())
    assert 1 / (1 - kept[-1].item()) == pytest.approx(1 + math.exp(3), rel=1e-4)


def test_layers_that_would_take_gigabytes_are_refused():
    require_hidden(())
    require_hidden((1, MOST_UNITS))
    for hidden in ((0,), (64, MOST_UNITS + 1), (-3,)):
        with pytest.raises(UsageError, match=r"hidden must lie in \[1, 4096\], got"):
            require_hidden(hidden)
