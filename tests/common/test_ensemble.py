import pytest
import torch
from torch.nn import functional as F

from common import ensemble
from common.ensemble import EnsembleMLP
from common.types import UsageError


def member(net: EnsembleMLP, e: int, x: torch.Tensor) -> torch.Tensor:
    """The e-th network alone, layer by layer."""
    for k, layer in enumerate(net.layers):
        x = x @ layer.weight[e] + layer.bias[e]
        x = F.relu(x) if k < len(net.layers) - 1 else x
    return x


@pytest.mark.parametrize("hidden", [(), (8,), (8, 5)])
def test_each_member_is_a_network_of_its_own(hidden, generator):
    net = EnsembleMLP(3, 4, *hidden, 2, generator=generator)
    x = torch.randn(6, 4, generator=generator)
    for e, out in enumerate(net(x)):
        torch.testing.assert_close(out, member(net, e, x))
    assert not torch.allclose(net(x)[0], net(x)[1])


def test_large_members_in_turn_are_the_same_networks(generator, monkeypatch):
    """Outputs, gradients of what all share and of what they do not; some members only."""
    net = EnsembleMLP(3, 4, 8, 8, 2, generator=generator)
    found = []
    for large in (1, ensemble.LARGE):
        monkeypatch.setattr(ensemble, "LARGE", large)
        x = torch.linspace(-1, 1, 24).reshape(6, 4).requires_grad_()
        y = net(x, members=2)
        found.append((y, *torch.autograd.grad(y.square().sum(), [x, *net.parameters()])))
    for turns, beside in zip(*found, strict=True):
        torch.testing.assert_close(turns, beside)


def test_members_may_see_inputs_of_their_own(generator):
    net = EnsembleMLP(2, 4, 8, 1, generator=generator)
    x = torch.randn(2, 5, 4, generator=generator)
    torch.testing.assert_close(net(x)[1], member(net, 1, x[1]))


def test_the_first_members_alone(generator):
    net = EnsembleMLP(3, 4, 8, 2, generator=generator)
    x = torch.randn(5, 4, generator=generator)
    torch.testing.assert_close(net(x, members=2), net(x)[:2])


def test_gradients_do_not_cross(generator):
    net = EnsembleMLP(2, 3, 8, 1, generator=generator)
    net(torch.randn(4, 3, generator=generator))[0].sum().backward()
    for parameter in net.parameters():
        assert parameter.grad[0].abs().sum() > 0
        assert parameter.grad[1].abs().sum() == 0


def test_an_empty_ensemble_is_refused(generator):
    with pytest.raises(UsageError, match="members must be at least 1, got 0"):
        EnsembleMLP(0, 3, 1, generator=generator)
