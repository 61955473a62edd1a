"""LQR in a latent space that is learned from pixels (SOLAR, Zhang et al. 2019; E2C, Watter et al. 2015).

r(z) = b - 1/2 |W z + w|^2                               a reward model that LQR can plan with
z_{t+1} = A_t z_t + B_t u_t + c_t                        E2C's local models along the plan u^
min sum_t -r(z_{t+1}) + effort/2 |u_t|^2 + mu/2 |u_t - u^_t|^2      solved exactly: u_t = K_t z_t + k_t

1  roll the plan out in the model, take the local model of each step
2  solve the linear-quadratic problem for several mu at once: the longer a step, the less do local models hold
3  play each u = K z + k in the model, within the limits; the best of them, or of u^, is the new plan

SOLAR infers its local models from the data of each iteration by variational message passing; here a network
says what they are, and the model is learned as E2C's. The LQR comes from outside: it is homework 5's. No
gradient flows through a plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from common.types import require, require_positive
from hw4_model_based.e2c import E2C, E2CConfig, E2CModel, E2CModelConfig
from hw4_model_based.latent_dynamics import unroll

# F [N, T, Z, Z+K], f [N, T, Z], C [N, T, Z+K, Z+K], c [N, T, Z+K], C_final [Z, Z], c_final [Z]
# -> the gains K [N, T, K, Z] and k [N, T, K] of the least cost sum 1/2 y'C y + y'c, y = [z; u]
Solve = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class QuadraticModelConfig(E2CModelConfig):
    reward_weight: float = 300.0  # of the reward model's relative error: the space has to bend to a quadratic


@dataclass(frozen=True)
class LatentLQRConfig(E2CConfig):
    model: QuadraticModelConfig = field(default_factory=QuadraticModelConfig)  # settings of the latent space
    effort: float = 0.01  # cost of half a full action's square, in units of the reward's deviation
    damping: tuple[float, ...] = (0.0, 0.1, 1.0, 10.0)  # mu, tried side by side, in the same units

    def __post_init__(self):
        super().__post_init__()
        require_positive(self, "effort")
        ok = len(self.damping) > 0 and all(0 <= mu < float("inf") for mu in self.damping)
        require(ok, f"damping must hold numbers of at least 0, got {self.damping}")


class ConcaveQuadratic(nn.Module):
    """b - 1/2 |W z + w|^2: [..., Z] -> [..., 1]"""

    def __init__(self, latent: int, generator: torch.Generator):
        super().__init__()
        self.W = nn.Parameter(torch.empty(latent, latent))
        nn.init.orthogonal_(self.W, 0.5, generator=generator)
        self.w, self.b = nn.Parameter(torch.zeros(latent)), nn.Parameter(torch.zeros(1))

    def forward(self, z: Tensor) -> Tensor:
        return self.b - 0.5 * (z @ self.W.mT + self.w).square().sum(-1, keepdim=True)

    def cost(self) -> tuple[Tensor, Tensor]:
        """Q [Z, Z] and q [Z] of -r(z) = 1/2 z'Q z + z'q + constant."""
        return self.W.mT @ self.W, self.W.mT @ self.w


class QuadraticE2CModel(E2CModel):
    def __init__(
        self, obs_dim: int, action_dim: int, config: QuadraticModelConfig, generator: torch.Generator
    ):
        super().__init__(obs_dim, action_dim, config, generator)
        self.reward_net = ConcaveQuadratic(config.latent, generator)


class LatentLQR(E2C):
    """`iterations` of steps 1 to 3; `search`, `samples`, `elites`, `alpha` and `std` have no effect."""

    model_type = QuadraticE2CModel
    solve: Solve  # of whoever inherits

    def search(self, obs: Tensor, warm: Tensor) -> Tensor:
        """Latent states [N, Z], warm [N, T, K] -> [N, T, K]"""
        plan, z = warm, unroll(self.model.step, obs, warm.movedim(1, 0)).movedim(0, 1)  # [N, T+1, Z]
        for _ in range(self.config.iterations):
            plans, states = self.play(obs, *self.gains(z, plan))
            plans, states = torch.cat([plans, plan[None]]), torch.cat([states, z[None]])
            best, problem = self.value(states, plans).argmax(0), torch.arange(len(obs))
            plan, z = plans[best, problem], states[best, problem]
        return plan

    def gains(self, z: Tensor, plan: Tensor) -> tuple[Tensor, Tensor]:
        """K [M, N, T, K, Z] and k [M, N, T, K] for each of the M dampings, around the plan [N, T, K] and the
        states z [N, T+1, Z] that it leads to."""
        c, model, (N, T, K), Z = self.config, self.model, plan.shape, z.shape[-1]
        local = model.linearize(z[:, :-1])
        A = torch.eye(Z) + local.v[..., None] * local.r[..., None, :]
        mu = torch.tensor(c.damping)[:, None, None, None]  # [M, 1, 1, 1]
        Q, q = model.reward_net.cost()
        C = torch.zeros(len(c.damping), 1, T, Z + K, Z + K)
        C[..., :Z, :Z] = Q
        C[..., Z:, Z:] = (c.effort + mu)[..., None] * torch.eye(K)
        linear = torch.cat([q.expand(len(c.damping), N, T, Z), -mu * plan], -1)
        problem = (torch.cat([A, local.B], -1), local.c, C, linear, Q, q)
        return tuple(gain.float() for gain in self.solve(*(x.double() for x in problem)))

    def play(self, obs: Tensor, K: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """The controls of u = K z + k in the model, within the limits, and where they lead: [M, N, T, K] and
        [M, N, T+1, Z]"""
        states, controls = [obs.expand(len(K), *obs.shape)], []
        for K_t, k_t in zip(K.unbind(2), k.unbind(2), strict=True):
            controls.append(((K_t @ states[-1][..., None]).squeeze(-1) + k_t).clamp(-1, 1))
            states.append(self.model.step(states[-1], controls[-1]))
        return torch.stack(controls, 2), torch.stack(states, 2)

    def value(self, states: Tensor, plans: Tensor) -> Tensor:
        """sum_t r(z_{t+1}) - effort/2 |u_t|^2 in units of the reward's deviation, [M, N, T+1, Z] and
        [M, N, T, K] -> [M, N]; a plan that is not finite is worth nothing."""
        earned = self.model.reward_net(states[:, :, 1:]).squeeze(-1).sum(2)
        total = earned - 0.5 * self.config.effort * plans.square().sum((2, 3))
        return total.nan_to_num(-torch.inf, -torch.inf, -torch.inf)
