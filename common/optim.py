"""Gradient steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def gradient_step(
    loss: Tensor, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], max_norm: float
) -> Tensor:
    """Descend `loss` once, the gradient's norm cut to `max_norm`. Returns the norm before the cut.

    The norm stays on the device; log it. A loss or gradient that is not finite makes it so, and the logger
    stops the run there, before anything is saved.
    """
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(parameters, max_norm, foreach=True)
    optimizer.step()
    return norm
