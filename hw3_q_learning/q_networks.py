"""Networks over observations and discrete actions. B batch, A actions, Z numbers per action."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.networks import mlp


def duel(value: Tensor, advantage: Tensor) -> Tensor:
    """Q = V + A - mean_a A, so that V is told from A (Wang et al. 2016, eq. 9).

    [B, 1, ...], [B, A, ...] -> [B, A, ...]
    """
    return value + advantage - advantage.mean(1, keepdim=True)


class QNetwork(nn.Module):
    """Q(s, a) of all actions, [B, D] -> [B, A]; with `atoms` Z, that many numbers for each, [B, A, Z].

    Duelling: the last layer gives V and the advantages instead. The paper parts them one layer earlier.
    """

    def __init__(
        self,
        obs_dim: int,
        hidden: tuple[int, ...],
        actions: int,
        generator: torch.Generator,
        duelling: bool = False,
        atoms: int | None = None,
    ):
        super().__init__()
        self.actions, self.duelling, self.atoms = actions, duelling, atoms
        outputs = (actions + duelling) * (atoms or 1)
        self.net = mlp(obs_dim, *hidden, outputs, generator=generator, activation=nn.ReLU)

    def forward(self, obs: Tensor) -> Tensor:
        q = self.net(obs)
        if self.atoms:
            q = q.unflatten(1, (-1, self.atoms))
        return duel(q[:, :1], q[:, 1:]) if self.duelling else q
