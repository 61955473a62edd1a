"""Input remapping: plan on states, act on pixels (the lecture; Levine, Finn, Darrell and Abbeel 2016).

The teacher knows x, in simulation or from instruments that the finished robot will not have. The pupil sees
o = camera(x_{t-1}), camera(x_t) and the clock, and learns
  min_theta E_{x ~ p}[|mu_theta(o(x, t)) - pi(x, t)|^2],
p the states of the teacher at first, then more and more the pupil's own: DAgger, by plato.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.networks import mlp
from hw5_planning_control.gps import StatePolicy


def pendulum_image(angle: Tensor, size: int = 20, width: float = 0.1) -> Tensor:
    """A rod of length 1 from the middle of [-1.2, 1.2]^2, hanging at angle 0: [...] -> [..., size, size].

    Brightness exp(-d^2 / (2 width^2)) at the distance d from the rod; row 0 is on top.
    """
    axis = torch.linspace(-1.2, 1.2, size, dtype=angle.dtype)
    right, up = axis.expand(size, size), -axis[:, None].expand(size, size)
    s, c = angle.sin()[..., None, None], -angle.cos()[..., None, None]  # the tip: right, up
    along = (right * s + up * c).clamp(0, 1)
    distance = (right - along * s).square() + (up - along * c).square()
    return (-0.5 * distance / width**2).exp()


class Camera:
    """o of a pendulum x = [angle, w]: the last two pictures and t/T, [N, 2 size^2 + 1]."""

    def __init__(self, dt: float, steps: int, size: int = 20):
        self.dt, self.steps, self.size = dt, steps, size

    def __call__(self, x: Tensor, t: int) -> Tensor:
        """The picture before is taken where the angle was, had it moved at w all along."""
        angle, w = x.unbind(-1)
        pictures = pendulum_image(torch.stack([angle - self.dt * w, angle], 1), self.size).flatten(1)
        return torch.cat([pictures, x.new_full((len(x), 1), t / self.steps)], 1)


class PixelPolicy(nn.Module):
    """mu_theta(o) [..., m] of what Camera sees: two convolutions, two layers."""

    def __init__(
        self,
        size: int,
        scale: float,
        generator: torch.Generator,
        actions: int = 1,
        channels: int = 16,
        units: int = 64,
    ):
        super().__init__()
        self.size, self.scale = size, scale
        side = ((size - 5) // 2 + 1 - 3) // 2 + 1
        self.see = nn.Sequential(
            nn.Conv2d(2, channels, 5, stride=2),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=2),
            nn.ReLU(),
        )
        for layer in self.see[::2]:
            nn.init.orthogonal_(layer.weight, 2**0.5, generator=generator)
            nn.init.zeros_(layer.bias)
        sizes = channels * side**2 + 1, units, actions
        self.think = mlp(*sizes, generator=generator, last_gain=0.1, activation=nn.ReLU)

    def forward(self, obs: Tensor) -> Tensor:
        """Computed in float32, which halves the time; returned as obs is."""
        x = obs.float()
        seen = self.see(x[..., :-1].reshape(-1, 2, self.size, self.size)).flatten(1)
        u = self.think(torch.cat([seen, 2 * x[..., -1:].reshape(-1, 1) - 1], 1))
        return self.scale * u.to(obs).reshape(*obs.shape[:-1], -1)


class StateTeacher:
    """A policy of the state in the place of MPC: a batch of episodes, step by step."""

    def __init__(self, policy: StatePolicy, steps: int, limit: float):
        self.policy, self.steps, self.limit, self.t = policy, steps, limit, 0

    @torch.no_grad()
    def plan(self, x: Tensor) -> Tensor:
        """pi(x, t) [N, m] within the limits."""
        t = x.new_full((len(x), 1), self.t / self.steps)
        self.t += 1
        return self.policy(x, t).clamp(-self.limit, self.limit)
