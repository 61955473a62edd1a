"""RSSM: a recurrent stochastic state-space model, which remembers what one picture hides (PlaNet, Hafner et
al. 2019).

h_t = GRU(h_{t-1}, [z_{t-1}, a_{t-1}])                  deterministic path
p(z_t | h_t)                                            prior: what is predicted
q(z_t | h_t, o_t)                                       posterior: what is believed once o_t is seen
p(o_t | h_t, z_t),  p(r_t | h_t, z_t)                   decoder, reward model

max sum_t E_q[log p(o_t | h_t, z_t) + log p(r_t | h_t, z_t)]
          - max(free nats, KL(q(z_t | h_t, o_t) || p(z_t | h_t)))

Of an observation only the newest picture is shown to it: how fast things move it has to remember. Up to
`free_nats` the KL costs nothing and has no gradient, or the latent state would be emptied before the decoder
has learned to use it. CEM plans through the means of the prior; the belief is carried from step to step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.envs.pixels import FRAMES
from common.networks import mlp
from common.types import EnvSpec, require_at_least
from hw4_model_based.latent_dynamics import (
    LatentConfig,
    LatentModelConfig,
    LatentMPC,
    newest,
    reconstruction_loss,
    unroll,
)
from hw4_model_based.sequences import Sequences

MIN_STD = 0.1  # of every latent variable, as in PlaNet


@dataclass(frozen=True)
class RSSMModelConfig(LatentModelConfig):
    memory: int = 64  # H, size of the deterministic path
    unroll: int = 12  # T, steps of the sequences in the loss
    dynamics_weight: float = 1.0  # of the KL from the posterior to the prior
    free_nats: float = 3.0  # of that KL, per step

    def __post_init__(self):
        super().__post_init__()
        require_at_least(self, 1, "memory")
        require_at_least(self, 0, "free_nats")


@dataclass(frozen=True)
class RSSMConfig(LatentConfig):
    model: RSSMModelConfig = field(default_factory=RSSMModelConfig)  # settings of the latent space


def gaussian_kl(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    """D_KL(N(mean, diag std^2) || N(other_mean, diag other_std^2)): [..., Z] each -> [...], in nats."""
    ratio, z = std / other_std, (mean - other_mean) / other_std
    return 0.5 * (ratio.square() + z.square() - 1 - 2 * ratio.log()).sum(-1)


def free(kl: Tensor, nats: float) -> Tensor:
    """max(nats, kl) of the batch's mean, as in PlaNet: below the threshold it is constant."""
    return kl.mean().clamp(min=nats)


class RSSM(nn.Module):
    """A state is [h, z] in one vector, [..., H+Z]."""

    PARTS = ("loss/pixels", "loss/dynamics", "loss/reward")

    def __init__(self, obs_dim: int, action_dim: int, config: RSSMModelConfig, generator: torch.Generator):
        super().__init__()
        self.config = c = config
        self.picture = obs_dim // FRAMES
        nets = {"generator": generator, "activation": nn.SiLU}
        self.encoder = mlp(self.picture, *c.hidden, **nets)
        self.inputs = mlp(c.latent + action_dim, c.memory, **nets)
        self.cell = nn.GRUCell(c.memory, c.memory)
        for parameter in self.cell.parameters():
            nn.init.uniform_(parameter, -(c.memory**-0.5), c.memory**-0.5, generator=generator)
        self.prior_net = mlp(c.memory, c.memory, 2 * c.latent, **nets)
        self.posterior_net = mlp(c.memory + c.hidden[-1], c.memory, 2 * c.latent, **nets)
        self.decoder = mlp(c.memory + c.latent, *reversed(c.hidden), self.picture, **nets)
        self.reward_net = mlp(c.memory + c.latent, *c.dynamics_hidden, 1, **nets)
        self.register_buffer("reward_mean", torch.zeros(()))
        self.register_buffer("reward_std", torch.ones(()))
        self.draws = generator  # the agent's, which keeps it

    def remember(self, s: Tensor, action: Tensor) -> Tensor:
        """h' [B, H] of [h, z] and a."""
        h, z = s.split([self.config.memory, self.config.latent], -1)
        return self.cell(F.silu(self.inputs(torch.cat([z, action], -1))), h)

    def prior(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """p(z|h): mean and standard deviation, [..., Z] each."""
        return moments(self.prior_net(h))

    def posterior(self, h: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """q(z|h, o), seen [..., D] the encoded picture."""
        return moments(self.posterior_net(torch.cat([h, seen], -1)))

    def see(self, obs: Tensor) -> Tensor:
        """The newest picture, encoded."""
        return F.silu(self.encoder(obs[..., -self.picture :]))

    def filter(self, s: Tensor, action: Tensor, obs: Tensor) -> Tensor:
        """The belief [h', mean of q(z'|h', o')] after s, the action and what it led to: [B, H+Z]."""
        h = self.remember(s, action)
        return torch.cat([h, self.posterior(h, self.see(obs))[0]], -1)

    def step(self, s: Tensor, action: Tensor) -> Tensor:
        """The mean of the prior: [..., H+Z], [..., K] -> [..., H+Z]"""
        h = self.remember(s.flatten(0, -2), action.flatten(0, -2)).view(*s.shape[:-1], -1)
        return torch.cat([h, self.prior(h)[0]], -1)

    def reward(self, s: Tensor) -> Tensor:
        """The mean of r: [..., H+Z] -> [...]"""
        return self.reward_mean + self.reward_std * self.reward_net(s).squeeze(-1)

    def pictures(self, s: Tensor) -> Tensor:
        """E[o|s]: [..., H+Z] -> [..., SIZE, SIZE]"""
        return newest(self.decoder(s).sigmoid())

    def loss(self, data: Sequences) -> tuple[Tensor, Tensor]:
        """The ELBO's negative; h_0 and the action before the first are zero."""
        c, (_, B, K) = self.config, data.action.shape
        seen = self.see(data.obs)
        before = torch.cat([data.action.new_zeros(1, B, K), data.action])
        s, states, kls = seen.new_zeros(B, c.memory + c.latent), [], []
        for action, each in zip(before, seen, strict=True):
            h = self.remember(s, action)
            mean, std = self.posterior(h, each)
            kls.append(gaussian_kl(mean, std, *self.prior(h)))
            s = torch.cat([h, mean + std * torch.randn(mean.shape, generator=self.draws)], -1)
            states.append(s)
        states, kl = torch.stack(states), torch.stack(kls)  # [T+1, B, .]
        pictures = data.obs[..., -self.picture :]
        pixels = reconstruction_loss(self.decoder(states), pictures).mean()
        reward = (self.reward(states[:-1]) - data.reward).square().mean() / self.reward_std**2
        total = pixels + c.dynamics_weight * free(kl, c.free_nats) + c.reward_weight * reward
        return total, torch.stack([pixels, kl.mean(), reward]).detach()


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, [..., Z] each, of a network's outputs [..., 2 Z]."""
    mean, raw = x.chunk(2, -1)
    return mean, MIN_STD + F.softplus(raw)


class PlaNet(LatentMPC):
    """Plans from what it has come to believe."""

    model_type = RSSM

    def __init__(self, spec: EnvSpec, config: RSSMConfig, seed: int):
        super().__init__(spec, config, seed)
        self.belief = torch.zeros(spec.num_envs, config.model.memory + config.model.latent)
        self.action = torch.zeros(spec.num_envs, spec.action_dim)  # the last one

    def begin(self, first: np.ndarray) -> None:
        super().begin(first)
        if len(first) != len(self.belief):
            self.belief = self.belief.new_zeros(len(first), self.belief.shape[1])
            self.action = self.action.new_zeros(len(first), self.action.shape[1])
        self.belief[torch.from_numpy(first)] = 0.0
        self.action[torch.from_numpy(first)] = 0.0

    @torch.no_grad()
    def __call__(self, obs: np.ndarray, step: int = 0) -> np.ndarray:
        """[N, D] -> [N, K]"""
        action = super().__call__(obs, step)
        self.action = torch.from_numpy(action).clone()
        return action

    def believe(self, obs: Tensor) -> Tensor:
        self.belief = self.model.filter(self.belief, self.action, obs)
        return self.belief

    def imagine(self, obs: Tensor, actions: Tensor) -> Tensor:
        """From the belief, which has seen obs."""
        return self.model.pictures(unroll(self.model.step, self.belief, actions))
