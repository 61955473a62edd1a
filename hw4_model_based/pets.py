"""PETS: probabilistic ensembles with trajectory sampling (Chua et al. 2018).

s_{t+1} ~ N(mu_e(s_t, a_t), sigma_e(s_t, a_t)^2),   J = 1/P sum_p sum_t r(s_{t,p}, a_t, s_{t+1,p})

Each plan is tried by P particles, each of which belongs to a member e of the ensemble:

TS1     the member is drawn anew at every step    E s_T = (E a)^T s_0 of a linear model s' = a_e s
TSinf   the member stays                          E s_T = E a^T s_0: what is not known stays the same unknown

The particles are spread evenly over the members, in batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from common.types import require, require_at_least
from hw4_model_based.mpc import MPC, MPCConfig, Step, plan

Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # [E, B, D], [E, B, K] -> mean, std [E, B, D]


@dataclass(frozen=True)
class PETSConfig(MPCConfig):
    particles: int = 10  # P per plan, a multiple of the elites of the model
    propagation: Literal["ts1", "tsinf"] = "tsinf"  # a member per step, or per rollout

    def __post_init__(self):
        super().__post_init__()
        require_at_least(self, 1, "particles")
        elites = self.model.elites
        ok = self.particles % elites == 0
        require(ok, f"particles must be a multiple of the model's elites = {elites}, got {self.particles}")


def trajectory_sampling(predict: Predict, members: int, anew: bool, draws: torch.Generator) -> Step:
    """One step of all particles: state [P, B, D], action [B, K] -> [P, B, D]. The P / E particles in a row
    belong to one member, or with `anew` (TS1) are dealt to the members at random at every step."""

    def step(state: Tensor, action: Tensor) -> Tensor:
        P, B, D = state.shape
        per_member = P // members
        order = torch.randperm(P, generator=draws) if anew else None
        dealt = (state[order] if anew else state).reshape(members, per_member * B, D)
        action = action.expand(members, per_member, -1, -1).reshape(members, per_member * B, -1)
        mean, std = predict(dealt, action)
        noise = torch.randn(mean.shape, generator=draws, dtype=torch.float32).to(mean)
        following = torch.addcmul(mean, std, noise).view(P, B, D)
        return following[order.argsort()] if anew else following

    return step


class PETS(MPC):
    """Plans by particles instead of by the members' mean predictions."""

    def search(self, obs: Tensor, warm: Tensor) -> Tensor:
        c = self.config
        step = trajectory_sampling(self.model.predict, self.model.elites, c.propagation == "ts1", self.draws)
        return plan(step, self.task, obs, warm, c, c.particles, self.draws)
