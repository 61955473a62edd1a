"""Plain network builders."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from common.types import require

MOST_UNITS = 4096  # of a layer: two such layers have 17 million weights, more take gigabytes before they fail


def require_hidden(hidden: tuple[int, ...], name: str = "hidden") -> None:
    """Units per layer, of any number of layers. None means a linear function."""
    ok = all(1 <= units <= MOST_UNITS for units in hidden)
    require(ok, f"{name} must lie in [1, {MOST_UNITS}], got {hidden}")


def mlp(
    *sizes: int,
    generator: torch.Generator,
    last_gain: float = 1.0,
    activation: type[nn.Module] = nn.Tanh,
) -> nn.Sequential:
    """Network sizes[0] -> ... -> sizes[-1], linear at the end. [..., sizes[0]] -> [..., sizes[-1]].

    Orthogonal weights of gain sqrt(2), `last_gain` in the last layer, biases zero (Engstrom et al. 2020).
    A last gain near 0 starts a policy where it prefers no action.
    """
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        last = len(layers) == 2 * (len(sizes) - 2)
        linear = nn.Linear(n_in, n_out)
        nn.init.orthogonal_(linear.weight, last_gain if last else 2**0.5, generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear] if last else [linear, activation()]
    return Layers(*layers)


class Layers(nn.Sequential):
    """One after the other, without a look for hooks at each, which is dear where layers are small."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer.forward(x)
        return x


class GRU(nn.Module):
    """h_t = z_t h_{t-1} + (1 - z_t) n_t, gates z and r and candidate n of x_t and h_{t-1} (Cho et al. 2014).

    It starts as a bank of filters: the gates do not listen yet, and their biases b_k let unit k forget within
    1 / (1 - sigmoid(b_k)) steps, from one to twenty (Tallec and Ollivier 2018). What changes from step to
    step is then a difference of units, where equal filters would have to be torn apart first.
    """

    def __init__(self, inputs: int, units: int, generator: torch.Generator):
        super().__init__()
        self.units = units
        self.cell = nn.GRUCell(inputs, units)
        for parameter in self.cell.parameters():
            nn.init.zeros_(parameter)
        with torch.no_grad():
            self.cell.bias_ih[units : 2 * units] = torch.linspace(-3, 3, units)
        nn.init.normal_(self.cell.weight_ih[2 * units :], std=inputs**-0.5, generator=generator)
        nn.init.orthogonal_(self.cell.weight_hh[2 * units :], generator=generator)

    def forward(self, x: Tensor, h: Tensor, first: Tensor) -> Tensor:
        """h_1 ... h_T of the inputs x [T, N, D] and h_0 = h [N, H]: [T, N, H].

        first [T, N] bool: x_t opens an episode, h_{t-1} belongs to another one and counts as zero.
        """
        goes_on, states = first.logical_not().unsqueeze(-1).to(x), []
        for x_t, goes_on_t in zip(x, goes_on, strict=True):
            h = self.cell(x_t, h * goes_on_t)
            states.append(h)
        return torch.stack(states)
