"""Plain network builders."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


def mlp(*sizes: int, generator: torch.Generator, last_gain: float = 1.0) -> nn.Sequential:
    """Tanh network sizes[0] -> ... -> sizes[-1], linear at the end. [..., sizes[0]] -> [..., sizes[-1]].

    Orthogonal weights of gain sqrt(2), `last_gain` in the last layer, biases zero (Engstrom et al. 2020).
    A last gain near 0 starts a policy where it prefers no action.
    """
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        last = len(layers) == 2 * (len(sizes) - 2)
        linear = nn.Linear(n_in, n_out)
        nn.init.orthogonal_(linear.weight, last_gain if last else 2**0.5, generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear] if last else [linear, nn.Tanh()]
    return nn.Sequential(*layers)
