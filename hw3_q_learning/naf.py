"""Normalised advantage functions (Gu et al. 2016): Q-learning whose max over continuous actions is closed.

Q(s, a) = V(s) - 1/2 (a - mu(s))' P(s) (a - mu(s)),   P = L L',  L lower triangular with positive diagonal
so that argmax_a Q = mu(s) and max_a Q = V(s)
y = r + gamma (1 - d) V'(s')

No gradient flows through y.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from common.networks import mlp, require_hidden
from common.optim import Adam, descend, polyak
from common.replay import Batch
from common.seeding import generator
from common.types import EnvSpec, require_at_least, require_positive, require_unit
from hw3_q_learning.dqn import td_target
from hw3_q_learning.sac import require_continuous


@dataclass(frozen=True)
class NAFConfig:
    gamma: float = 0.99  # discount
    lr: float = 1e-3  # learning rate of Adam
    hidden: tuple[int, ...] = (128, 128)  # units per layer of each of V, mu and L
    tau: float = 0.005  # part of the network in each update of the target network
    noise: float = 0.2  # standard deviation of exploration, of actions in [-1, 1]

    def __post_init__(self):
        require_unit(self, "gamma", "tau")
        require_positive(self, "lr")
        require_at_least(self, 0, "noise")
        require_hidden(self.hidden)


def quadratic_advantage(action: Tensor, mu: Tensor, L: Tensor) -> Tensor:
    """-1/2 (a - mu)' L L' (a - mu): [B, K], [B, K], [B, K, K] -> [B]."""
    z = ((action - mu)[:, None, :] @ L).squeeze(1)  # (L' (a - mu))'
    return -0.5 * z.square().sum(1)


class NAFNetwork(nn.Module):
    def __init__(self, obs_dim: int, action_dim: int, hidden: tuple[int, ...], generator: torch.Generator):
        super().__init__()
        options = {"generator": generator, "activation": nn.ReLU}
        self.v = mlp(obs_dim, *hidden, 1, **options)
        self.mu = mlp(obs_dim, *hidden, action_dim, **options).append(nn.Tanh())
        self.L = mlp(obs_dim, *hidden, action_dim * action_dim, **options)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """V [B], mu [B, K] in (-1, 1), L [B, K, K] lower triangular with positive diagonal."""
        mu = self.mu(obs)
        raw = self.L(obs).unflatten(1, (mu.shape[1], mu.shape[1]))
        diagonal = raw.diagonal(dim1=1, dim2=2).clamp(-5, 5).exp()  # far from where P is singular
        return self.v(obs).squeeze(1), mu, raw.tril(-1) + diagonal.diag_embed()


class NAF:
    def __init__(self, spec: EnvSpec, config: NAFConfig, total_updates: int, device: torch.device, seed: int):
        require_continuous(spec, "NAF")
        self.config, self.device = config, device
        self.generator, init = generator(seed, "explore", device=device), generator(seed, "init")
        self.net = NAFNetwork(spec.obs_dim, spec.action_dim, config.hidden, init).to(device)
        self.v_target = copy.deepcopy(self.net.v).requires_grad_(False)
        self.parameters = tuple(self.net.parameters())
        self.v_parameters, self.target_parameters = (
            tuple(net.parameters()) for net in (self.net.v, self.v_target)
        )
        self.optimizer = Adam(self.parameters, config.lr)

    @torch.inference_mode()
    def act(self, obs: np.ndarray) -> np.ndarray:
        return self.net.mu(torch.as_tensor(obs, dtype=torch.float32, device=self.device)).cpu().numpy()

    def explore(self, obs: np.ndarray, step: int) -> np.ndarray:
        action = self.act(obs)
        noise = torch.randn(action.shape, generator=self.generator, device=self.device).cpu().numpy()
        return (action + self.config.noise * noise).clip(-1, 1)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        c = self.config
        with torch.no_grad():
            v_next = self.v_target(batch.next_obs).squeeze(1)
            y = td_target(batch.reward, batch.terminated, v_next, c.gamma**batch.steps)
        v, mu, L = self.net(batch.obs)
        error = v + quadratic_advantage(batch.action, mu, L) - y
        loss = 0.5 * (batch.weight * error.square()).mean()
        descend(loss, self.optimizer, self.parameters)
        polyak(self.target_parameters, self.v_parameters, c.tau)
        return {"loss/q": loss.detach(), "value/v": v.detach(), "value/td_error": error.detach().abs()}
