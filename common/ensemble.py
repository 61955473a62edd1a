"""E networks of one shape beside each other: one batched product per layer instead of a loop over members."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.types import require


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
        self.members, self.activation = members, activation

    def forward(self, x: Tensor, members: int | None = None) -> Tensor:
        """Of the first `members` only, if given: what is not needed costs nothing."""
        x = x.expand(members or self.members, *x.shape[-2:])
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)
