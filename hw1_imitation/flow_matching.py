"""Cloning by a flow: a velocity field carries noise to actions (Lipman et al. 2023; Black et al. 2024).

A_0 ~ N(0, 1), A_1 the expert's next H actions, A_tau = (1 - tau) A_0 + tau A_1, tau ~ U(0, 1)
theta <- argmin E |v_theta(o, A_tau, tau) - (A_1 - A_0)|^2
A_{tau + 1/S} = A_tau + v_theta(o, A_tau, tau) / S: S steps of Euler make a chunk of actions, which is played
without looking, so that what was begun on one side is not taken up on the other (Zhao et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from common.networks import mlp
from common.normalizer import ObsNormalizer
from common.types import EnvSpec, require, require_at_least
from hw1_imitation.behavior_cloning import Drawing, NetworkConfig


@dataclass(frozen=True)
class FlowConfig(NetworkConfig):
    chunk: int = 2  # H, actions that are played one after the other
    steps: int = 10  # S, of Euler

    def __post_init__(self):
        super().__post_init__()
        require_at_least(self, 1, "chunk", "steps")
        require(max(self.chunk, self.steps) <= 256, "chunk and steps must be at most 256")


Velocity = Callable[[Tensor, Tensor], Tensor]  # A_tau [B, K], tau [B, 1] -> [B, K]


def flow_loss(velocity: Velocity, target: Tensor, noise: Tensor, tau: Tensor) -> Tensor:
    """Mean over the batch of |v(A_tau, tau) - (A_1 - A_0)|^2: target A_1 and noise A_0 [B, K], tau [B, 1]."""
    return (velocity(torch.lerp(noise, target, tau), tau) - (target - noise)).square().sum(-1).mean()


def euler(velocity: Velocity, noise: Tensor, steps: int) -> Tensor:
    """A_1 [B, K] from A_0 [B, K]."""
    a = noise
    for k in range(steps):
        a = a + velocity(a, a.new_full((len(a), 1), k / steps)) / steps
    return a


class FlowPolicy(nn.Module):
    def __init__(self, spec: EnvSpec, config: FlowConfig, generator: torch.Generator):
        super().__init__()
        self.size = config.chunk * spec.action_dim
        self.normalize = ObsNormalizer(spec.obs_dim)
        self.net = mlp(spec.obs_dim + self.size + 1, *config.hidden, self.size, generator=generator)

    def velocity(self, obs: Tensor) -> Velocity:
        """v(., .) at obs [B, D]"""
        x = self.normalize(obs)
        return lambda a, tau: self.net(torch.cat([x, a, tau], -1))


class Player:
    """Plays a chunk to its end before it asks for the next; a new episode begins with a new one."""

    def __init__(self, draw: Callable[[np.ndarray], np.ndarray], chunk: int):
        self.draw, self.chunk = draw, chunk
        self.left = None  # [N] actions of the chunks that are still to be played

    def begin(self, first: np.ndarray) -> None:
        if self.left is None or len(self.left) != len(first):
            self.left = np.zeros(len(first), np.int64)
        self.left[first] = 0

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """[N, D] -> [N, K]"""
        if self.left is None or len(self.left) != len(obs):
            self.begin(np.ones(len(obs), bool))
        if (empty := self.left == 0).any():
            drawn = self.draw(obs[empty])  # [., H, K]
            if empty.all():
                self.actions = np.zeros((len(obs), *drawn.shape[1:]), np.float32)
            self.actions[empty], self.left[empty] = drawn, self.chunk
        now = self.actions[np.arange(len(obs)), self.chunk - self.left]
        self.left -= 1
        return now

    def state_dict(self) -> dict:
        return {}  # no episode outlives a checkpoint

    def load_state_dict(self, state: dict) -> None:
        self.left = None


class FlowMatching(Drawing):
    kind = "flow matching"

    def __init__(self, spec: EnvSpec, config: FlowConfig, device: torch.device, seed: int):
        super().__init__(spec, config, device, seed)
        self.act = Player(self.draw, config.chunk)

    def network(self, generator: torch.Generator) -> FlowPolicy:
        return FlowPolicy(self.spec, self.config, generator)

    def loss(self, obs: Tensor, action: Tensor) -> Tensor:
        """action [B, H K], the next H one after the other"""
        target, g = action.to(self.device), self.generator
        noise = torch.randn(target.shape, generator=g, device=self.device)
        tau = torch.rand(len(target), 1, generator=g, device=self.device)
        return flow_loss(self.policy.velocity(obs.to(self.device)), target, noise, tau)

    @torch.inference_mode()
    def draw(self, obs: np.ndarray) -> np.ndarray:
        """[N, D] -> chunks [N, H, K]"""
        x = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        noise = torch.randn(len(x), self.policy.size, generator=self.generator, device=self.device)
        chunks = euler(self.policy.velocity(x), noise, self.config.steps)
        return chunks.unflatten(-1, (self.config.chunk, -1)).cpu().numpy()
