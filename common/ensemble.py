"""E networks of one shape beside each other: one batched product per layer instead of a loop over members,
but where a member's numbers alone fill the cache of a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.types import require

LARGE = 2**16  # values of one member's widest layer, B times its units, with which a CPU takes turns


class EnsembleLinear(nn.Module):
    """y_e = x_e W_e + b_e: [E, B, n_in] -> [E, B, n_out]. Orthogonal weights, biases zero."""

    def __init__(self, members: int, n_in: int, n_out: int, gain: float, generator: torch.Generator):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, n_in, n_out))
        self.bias = nn.Parameter(torch.zeros(members, 1, n_out))
        for weight in self.weight:
            nn.init.orthogonal_(weight, gain, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Of the first E members, as many as x has."""
        if len(x) == len(self.weight):  # a slice of everything has a gradient of its own to be filled in
            return torch.baddbmm(self.bias, x, self.weight)
        return torch.baddbmm(self.bias[: len(x)], x, self.weight[: len(x)])

    def members(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Bias [n_out] and weight [n_in, n_out] of each member."""
        return zip(self.bias.squeeze(1).unbind(), self.weight.unbind(), strict=True)


class EnsembleMLP(nn.Module):
    """E networks sizes[0] -> ... -> sizes[-1], `activation` between, linear at the end.

    [B, n_in], the same for each, or [E, B, n_in] -> [E, B, n_out].
    """

    def __init__(
        self,
        members: int,
        *sizes: int,
        generator: torch.Generator,
        activation: Callable[[Tensor], Tensor] = F.relu,
    ):
        super().__init__()
        require(members >= 1, f"members must be at least 1, got {members}")
        gains = [2**0.5] * (len(sizes) - 2) + [1.0]
        layers = zip(pairwise(sizes), gains, strict=True)
        self.layers = nn.ModuleList(EnsembleLinear(members, *pair, gain, generator) for pair, gain in layers)
        self.members, self.activation, self.width = members, activation, max(sizes)

    def forward(self, x: Tensor, members: int | None = None) -> Tensor:
        """Of the first `members` only, if given: what is not needed costs nothing."""
        x = x.expand(members or self.members, *x.shape[-2:])
        if x.is_cpu and x.shape[1] * self.width >= LARGE:
            parameters = zip(*(layer.members() for layer in self.layers), strict=True)
            return torch.stack([self.member(*pair) for pair in zip(x, parameters, strict=False)])
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)

    def member(self, x: Tensor, parameters: tuple[tuple[Tensor, Tensor], ...]) -> Tensor:
        """One of the networks, [B, n_in] -> [B, n_out]; its bias and weight per layer."""
        *inner, (bias, weight) = parameters
        for b, W in inner:
            x = self.activation(torch.addmm(b, x, W))
        return torch.addmm(bias, x, weight)
