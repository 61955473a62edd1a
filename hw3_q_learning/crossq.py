"""CrossQ (Bhatt et al. 2024, 1902.05605v4): SAC without target networks, by batch normalisation.

(Q_i(s, a); Q_i(s', a')) = one pass of the critics over both batches, so that they are normalised alike
y = r + gamma (1 - d) (min_i Q_i(s', a') - alpha log pi(a'|s')),      a' ~ pi(. | s')

Normalisation is batch renormalisation (Ioffe 2017): x^ = (x - mu_B) / sigma_B r + d with r = sigma_B / sigma
and d = (mu_B - mu) / sigma limited. Unlimited it is the running (x - mu) / sigma; at r = 1, d = 0 plain batch
normalisation, which it is for the first `warmup` passes. No gradient flows through y, r and d.

The paper's critics are 2048 units wide; these take a CPU's hours to days, ours are as wide as you say.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from common.networks import Layers, mlp, require_hidden
from common.optim import Adam
from common.replay import Batch
from common.seeding import generator
from common.types import EnvSpec, require_at_least, require_unit
from hw3_q_learning.dqn import td_target
from hw3_q_learning.sac import SAC, SACConfig, Temperature, require_continuous, soft_value

EPSILON = 1e-3  # added to variances


@dataclass(frozen=True)
class CrossQConfig(SACConfig):
    lr: float = 1e-3  # learning rate of each Adam
    beta1: float = 0.5  # decay of Adam's mean gradient
    actor_period: int = 3  # gradient steps of the critics per step of the actor
    critic_hidden: tuple[int, ...] = (256, 256)  # units per layer of the critics
    momentum: float = 0.01  # part of a batch in the running moments
    warmup: int = 100_000  # passes of plain batch normalisation
    tau: float = 1.0  # no effect: there are no target networks

    def __post_init__(self):
        super().__post_init__()
        require_unit(self, "beta1", "momentum")
        require_at_least(self, 0, "warmup")
        require_hidden(self.critic_hidden, "critic_hidden")


def renormalization(mean_b: Tensor, std_b: Tensor, mean: Tensor, std: Tensor, r_max: float, d_max: float):
    """r = clip(sigma_B / sigma, 1 / r_max, r_max) and d = clip((mu_B - mu) / sigma, -d_max, d_max)."""
    return (std_b / std).clamp(1 / r_max, r_max), ((mean_b - mean) / std).clamp(-d_max, d_max)


class BatchRenorm(nn.Module):
    """Normalises [B, n] over B; learning it uses the batch's moments, in `eval` the running ones."""

    def __init__(self, units: int, momentum: float, warmup: int, r_max: float = 3.0, d_max: float = 5.0):
        super().__init__()
        self.momentum, self.warmup, self.r_max, self.d_max = momentum, warmup, r_max, d_max
        self.scale, self.bias = nn.Parameter(torch.ones(units)), nn.Parameter(torch.zeros(units))
        self.register_buffer("mean", torch.zeros(units))
        self.register_buffer("var", torch.ones(units))
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        slope, shift = self.scale, self.bias
        if self.training:
            if self.passes >= self.warmup:
                r, d = self.corrections(x)
                slope, shift = slope * r, shift + slope * d
            self.passes += 1
        moments = (self.mean, self.var, self.training, self.momentum)
        return torch.batch_norm(x, slope, shift, *moments, eps=EPSILON, cudnn_enabled=False)

    @torch.no_grad()
    def corrections(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """r and d of this batch: [B, n] -> [n] each."""
        var, mean = torch.var_mean(x, 0, correction=0)
        std_b, std = (var + EPSILON).sqrt(), (self.var + EPSILON).sqrt()
        return renormalization(mean, std_b, self.mean, std, self.r_max, self.d_max)

    def get_extra_state(self) -> int:
        return self.passes

    def set_extra_state(self, state: int) -> None:
        self.passes = state


def normalized_mlp(*sizes: int, generator: torch.Generator, momentum: float, warmup: int) -> nn.Sequential:
    """Batch renormalisation before each layer: [B, n_in] -> [B, n_out]."""
    layers: list[nn.Module] = []
    for layer in mlp(*sizes, generator=generator, activation=partial(nn.ReLU, inplace=True)):
        if isinstance(layer, nn.Linear):
            layers.append(BatchRenorm(layer.in_features, momentum, warmup))
        layers.append(layer)
    return Layers(*layers)


class Critics(nn.Module):
    """E networks: [B, n_in] -> [E, B, 1]. One after the other: of E batches at once nothing fuses the
    normalisation, which would take as long as the products."""

    def __init__(self, members: int, *sizes: int, **options):
        super().__init__()
        self.members = nn.ModuleList(normalized_mlp(*sizes, **options) for _ in range(members))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members])


class CrossQ(SAC):
    """SAC's actor, temperature and order of steps; the critics are their own targets."""

    def __init__(
        self, spec: EnvSpec, config: CrossQConfig, total_updates: int, device: torch.device, seed: int
    ):
        require_continuous(spec, "CrossQ")
        self.config, self.device = config, device
        self.target_entropy = float(
            -spec.action_dim if config.target_entropy is None else config.target_entropy
        )
        self.generator, init = generator(seed, "explore", device=device), generator(seed, "init")
        options = {"generator": init, "momentum": config.momentum, "warmup": config.warmup}
        sizes = (spec.obs_dim + spec.action_dim, *config.critic_hidden, 1)
        self.critic = Critics(config.critics, *sizes, **options).to(device).eval()
        sizes = (spec.obs_dim, *config.hidden, 2 * spec.action_dim)
        self.actor = normalized_mlp(*sizes, **options).to(device).eval()
        self.temperature = Temperature(config.alpha, config.learn_alpha).to(device)
        self.critic_parameters = tuple(self.critic.parameters())
        learned = tuple(self.temperature.parameters()) if config.learn_alpha else ()
        self.actor_parameters = (*self.actor.parameters(), *learned)
        adam = {"lr": config.lr, "betas": (config.beta1, 0.999)}
        self.critic_optimizer = Adam(self.critic_parameters, **adam)
        self.actor_optimizer = Adam(self.actor_parameters, **adam)
        self.updates = 0

    def update(self, batch: Batch) -> dict[str, Tensor]:
        metrics = self.regress(*self.joint(batch), batch.weight)
        if self.updates % self.config.actor_period == 0:
            self.actor.train()
            metrics |= self.actor_step(batch.obs)
            self.actor.eval()
        self.updates += 1
        return metrics

    def joint(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Q_i(s, a) [E, B] and y [B] of one pass."""
        with torch.no_grad():
            next_action, log_prob = self.sample(batch.next_obs)
        obs, action = torch.cat((batch.obs, batch.next_obs)), torch.cat((batch.action, next_action))
        self.critic.train()
        q, q_next = self.q(self.critic, obs, action).chunk(2, 1)
        self.critic.eval()
        v_next = soft_value(q_next.detach(), log_prob, self.temperature())
        return q, td_target(batch.reward, batch.terminated, v_next, self.config.gamma**batch.steps)
