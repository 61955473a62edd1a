"""Plan in a latent space that is learned from pixels, with a deterministic encoder s_t = g(o_t).

max sum_t log p(g(o_{t+1}) | g(o_t), a_t) + log p(o_t | g(o_t)) + log p(r_t | g(o_t))
          latent dynamics                   decoder             reward model

Levine's lecture on model-based reinforcement learning with images. p(o|s) is Bernoulli in every pixel. The
density of g(o) itself would be best where g shrinks everything to a point, so errors in the latent space are
counted in units of the variance of g(o_{t+1}) in the batch. The planner unrolls the dynamics, so the loss
does: from s_0 = g(o_0) on, s_k = f(s_{k-1}, a_{k-1}) has to agree with g(o_k), and to show o_k and r_k as
well, or the decoder and the reward model would never have seen what they are asked about. Gradients flow
everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.envs.model_tasks import ModelTask, never
from common.envs.pixels import SIZE
from common.networks import mlp, require_hidden
from common.optim import Adam, gradient_step
from common.replay import Batch
from common.types import EnvSpec, Metrics, require, require_at_least, require_positive
from hw4_model_based.mpc import MPC, MPCConfig, plan
from hw4_model_based.sequences import Sequences, cut, starts


@dataclass(frozen=True)
class LatentModelConfig:
    latent: int = 8  # Z, size of the latent state
    hidden: tuple[int, ...] = (128, 64)  # units per layer of the encoder; of the decoder in reverse
    dynamics_hidden: tuple[int, ...] = (64, 64)  # units per layer of the dynamics and the reward model
    unroll: int = 8  # T, steps that the dynamics are unrolled in the loss
    dynamics_weight: float = 300.0  # of the latent dynamics' relative error in the loss, in nats
    reward_weight: float = 50.0  # of the reward model's relative error in the loss, in nats
    lr: float = 1e-3  # Adam's
    max_grad_norm: float = 100.0  # longer gradients are cut to it
    batch_size: int = 16  # sequences per gradient step
    first_updates: int = 600  # gradient steps of the first fit
    updates: int = 200  # gradient steps of every other fit

    def __post_init__(self):
        require_at_least(self, 1, "latent", "unroll", "batch_size", "first_updates", "updates")
        require_hidden(self.hidden)
        require_hidden(self.dynamics_hidden, "dynamics_hidden")
        require(len(self.hidden) > 0, "hidden must name at least one layer")
        require_positive(self, "dynamics_weight", "reward_weight", "lr", "max_grad_norm")


@dataclass(frozen=True)
class LatentConfig(MPCConfig):
    model: LatentModelConfig = field(default_factory=LatentModelConfig)  # settings of the latent space


def reconstruction_loss(logits: Tensor, obs: Tensor) -> Tensor:
    """-log p(o|s) of Bernoulli pixels, summed over them: [..., D] -> [...], in nats."""
    return F.binary_cross_entropy_with_logits(logits, obs, reduction="none").sum(-1)


def relative_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error over variance, [B, Z] each -> scalar: 1 is to predict the mean of the batch.

    The same for c times both, so that nothing is won by a small latent space.
    """
    variance = (target - target.mean(0)).square().mean(0).sum()
    return (prediction - target).square().mean(0).sum() / (variance + 1e-8)


def unroll(step: Callable[[Tensor, Tensor], Tensor], s: Tensor, actions: Tensor) -> Tensor:
    """s_0 ... s_T, s_{k+1} = step(s_k, a_k): s [B, Z], actions [T, B, K] -> [T+1, B, Z]."""
    states = [s]
    for action in actions:
        states.append(step(states[-1], action))
    return torch.stack(states)


def newest(obs: Tensor) -> Tensor:
    """The last of the pictures in obs: [..., D] -> [..., SIZE, SIZE]."""
    return obs[..., -(SIZE**2) :].unflatten(-1, (SIZE, SIZE))


class LatentModel(nn.Module):
    """g, its inverse, f and R: the encoder, the decoder, the dynamics and the reward model."""

    PARTS = ("loss/pixels", "loss/dynamics", "loss/reward")

    def __init__(self, obs_dim: int, action_dim: int, config: LatentModelConfig, generator: torch.Generator):
        super().__init__()
        self.config = c = config
        nets = {"generator": generator, "activation": nn.SiLU}
        self.encoder = mlp(obs_dim, *c.hidden, c.latent, **nets)
        self.decoder = mlp(c.latent, *reversed(c.hidden), obs_dim, **nets)
        self.change = mlp(c.latent + action_dim, *c.dynamics_hidden, c.latent, last_gain=0.1, **nets)
        self.reward_net = mlp(c.latent, *c.dynamics_hidden, 1, **nets)
        self.register_buffer("reward_mean", torch.zeros(()))
        self.register_buffer("reward_std", torch.ones(()))

    def encode(self, obs: Tensor) -> Tensor:
        """g: [..., D] -> [..., Z]"""
        return self.encoder(obs)

    def step(self, s: Tensor, action: Tensor) -> Tensor:
        """[..., Z], [..., K] -> the mean of s' [..., Z]"""
        return s + self.change(torch.cat([s, action], -1))

    def reward(self, s: Tensor) -> Tensor:
        """The mean of r: [..., Z] -> [...]"""
        return self.reward_mean + self.reward_std * self.reward_net(s).squeeze(-1)

    def pictures(self, s: Tensor) -> Tensor:
        """The newest picture of E[o|s]: [..., Z] -> [..., SIZE, SIZE]"""
        return newest(self.decoder(s).sigmoid())

    def loss(self, data: Sequences) -> tuple[Tensor, Tensor]:
        """The objective's negative, and its three parts [3]: nats per picture, and relative errors."""
        c = self.config
        encoded = self.encode(data.obs)  # [T+1, B, Z]
        predicted = unroll(self.step, encoded[0], data.action)
        pixels = reconstruction_loss(self.decoder(predicted), data.obs).mean()
        pairs = zip(predicted[1:], encoded[1:], strict=True)
        dynamics = torch.stack([relative_error(*pair) for pair in pairs]).mean()
        reward = (self.reward(predicted[:-1]) - data.reward).square().mean() / self.reward_std**2
        total = pixels + c.dynamics_weight * dynamics + c.reward_weight * reward
        return total, torch.stack([pixels, dynamics, reward]).detach()


class LatentMPC(MPC):
    """MPC that sees s = g(o) instead of o, and whose reward is learned as well."""

    model_type: type[nn.Module] = LatentModel

    def __init__(self, spec: EnvSpec, config: LatentConfig, seed: int):
        super().__init__(spec, ModelTask(self.reward_to_come, never), config, seed)
        self.parameters = tuple(self.model.parameters())
        self.optimizer = Adam(self.parameters, config.model.lr)
        self.fitted = False

    def new_model(self, spec: EnvSpec) -> nn.Module:
        return self.model_type(spec.obs_dim, spec.action_dim, self.config.model, self.fits)

    @torch.no_grad()
    def __call__(self, obs: np.ndarray, step: int = 0) -> np.ndarray:
        """[N, D] -> [N, K]"""
        return super().__call__(self.believe(torch.from_numpy(obs)).numpy(), step)

    def believe(self, obs: Tensor) -> Tensor:
        """The latent state now that obs is seen: [N, D] -> [N, Z]"""
        return self.model.encode(obs)

    def search(self, obs: Tensor, warm: Tensor) -> Tensor:
        """What is observed here are latent states: [N, Z], warm [N, T, K] -> [N, T, K]."""

        def step(s: Tensor, action: Tensor) -> Tensor:
            return self.model.step(s, action.expand(len(s), -1, -1))

        return plan(step, self.task, obs, warm, self.config, 1, self.draws)

    def reward_to_come(self, s: Tensor, action: Tensor, next_s: Tensor) -> Tensor:
        """R(s'): what a plan can change. It has no say in R of the state that it starts from."""
        return self.model.reward(next_s)

    def show(self, obs: Tensor) -> Tensor:
        """[N, D] -> [N, SIZE, SIZE]"""
        return newest(obs)

    def imagine(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Pictures that follow obs [N, D] by the actions [T, N, K]: [T+1, N, SIZE, SIZE]."""
        return self.model.pictures(unroll(self.model.step, self.model.encode(obs), actions))

    def update(self, batch: Batch) -> Metrics:
        """Fit everything to all data, from the parameters of the last fit."""
        c, N = self.config.model, self.num_envs
        self.model.reward_mean.copy_(batch.reward.mean())
        self.model.reward_std.copy_(batch.reward.std().clamp(min=1e-4))
        start = starts(batch, N, c.unroll)
        losses = []  # [3] each, left alone until all are there
        for _ in range(c.updates if self.fitted else c.first_updates):
            index = torch.randint(len(start), (c.batch_size,), generator=self.fits)
            loss, parts = self.model.loss(cut(batch, start[index], N, c.unroll))
            gradient_step(loss, self.optimizer, self.parameters, c.max_grad_norm)
            losses.append(parts)
        self.fitted = True
        last = torch.stack(losses[-100:]).mean(0).tolist()
        return dict(zip(self.model.PARTS, last, strict=True))
