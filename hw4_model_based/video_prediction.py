"""Visual foresight: predict the next picture itself, and plan where a pixel goes (Finn and Levine 2017).

o'(x) = o(x + F(x)),   F = flow(o, a)            min sum_x |o'(x) - o_{t+1}(x)|^2
P'(x) = P(x + F(x)) / sum_y P(y + F(y))          where the designated pixel is
a_1..a_T = argmin sum_t sum_x P_t(x) |x - goal|

The picture is made of pixels of the picture before, fetched from where F says (Zhou et al. 2016), where
Finn and Levine mix transformed pictures by masks. What moves a pixel moves its distribution: nobody tells the
model what an object is, and no reward is ever seen. The designated pixel is known in the first picture. Later
P is moved by the flow of what was done, and registered: places that look like the surroundings of the pixel
in the first picture become more likely (Ebert et al. 2018, with a network; here by comparing patches), or
small errors of the flow would add up until the pixel has left its object. Gradients flow through the pictures
that are predicted on the way to o_T in the loss. Every batch is seen from one of the table's eight sides.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.envs.model_tasks import ModelTask, never
from common.envs.pixels import SIZE, X, Y
from common.envs.pushing import COLOURS
from common.optim import Adam, gradient_step
from common.replay import Batch
from common.types import EnvSpec, Metrics, require, require_at_least, require_positive
from hw4_model_based.mpc import MPC, MPCConfig, plan
from hw4_model_based.sequences import cut, starts

POINTS = 4  # numbers behind the picture: designated point and goal, each (right, up)
REACH = 6.0  # pixels that a flow may bridge
PATCH = 6  # pixels around the designated one that are compared on each side
TEMPERATURE = 2.0  # squared difference of two patches that makes one e times less likely
# [SIZE, SIZE, 2], right and down, as torch counts
GRID = torch.from_numpy(np.stack(np.broadcast_arrays(X, -Y), -1))


@dataclass(frozen=True)
class FlowConfig:
    channels: int = 8  # of the finest layer of the network, twice as many in the coarser ones
    unroll: int = 2  # T, pictures predicted in a row in the loss
    lr: float = 2e-3  # Adam's
    max_grad_norm: float = 100.0  # longer gradients are cut to it
    batch_size: int = 32  # sequences per gradient step
    first_updates: int = 1_500  # gradient steps of the first fit
    updates: int = 200  # gradient steps of every other fit

    def __post_init__(self):
        require_at_least(self, 1, "channels", "unroll", "batch_size", "first_updates", "updates")
        require_positive(self, "lr", "max_grad_norm")


@dataclass(frozen=True)
class ForesightConfig(MPCConfig):
    model: FlowConfig = field(default_factory=FlowConfig)  # settings of the prediction


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """image(x + F(x)), bilinear, zero outside: [B, C, H, W], flow [B, H, W, 2] in pixels, right and down."""
    grid = GRID + flow * (2 / SIZE)
    return F.grid_sample(image, grid, padding_mode="zeros", align_corners=False)


def move(P: Tensor, flow: Tensor) -> Tensor:
    """Where the designated pixel is after the flow: [B, SIZE, SIZE] -> the same, with sum 1. Where the flow
    has lost it, it is as likely anywhere."""
    moved = warp(P[:, None], flow)[:, 0] + 1e-6 / SIZE**2
    return moved / moved.sum((1, 2), keepdim=True)


def spot(point: Tensor) -> Tensor:
    """A distribution whose mean is the point: [B, 2] (right, up) in [0, 1] -> [B, SIZE, SIZE], on the four
    pixels around it."""
    column, row = SIZE * point[:, 0] - 0.5, SIZE * (1 - point[:, 1]) - 0.5
    index = torch.arange(SIZE)
    x, y = ((1 - (index - at[:, None]).abs()).clamp(min=0) for at in (column, row))
    return y[:, :, None] * x[:, None, :]


def patch(picture: Tensor, point: Tensor) -> Tensor:
    """What surrounds the point: [B, C, SIZE, SIZE], [B, 2] as in `spot` -> [B, C, S, S], S = 2 PATCH + 1."""
    place = torch.stack([2 * point[:, 0] - 1, 1 - 2 * point[:, 1]], -1)
    offset = torch.arange(-PATCH, PATCH + 1) * (2 / SIZE)
    around = torch.stack(torch.meshgrid(offset, offset, indexing="xy"), -1)
    return F.grid_sample(picture, place[:, None, None] + around, align_corners=False)


def register(P: Tensor, picture: Tensor, sample: Tensor) -> Tensor:
    """P(x) exp(-|patch around x - sample|^2 / TEMPERATURE), normalised: P [B, SIZE, SIZE], picture
    [B, C, SIZE, SIZE], sample as `patch` gives it -> [B, SIZE, SIZE]."""
    B, C = picture.shape[:2]
    padded = F.pad(picture, [PATCH] * 4)
    match = F.conv2d(padded.view(1, B * C, *padded.shape[2:]), sample, groups=B)[0]
    size = F.avg_pool2d(padded.square().sum(1, keepdim=True), 2 * PATCH + 1, 1, divisor_override=1)[:, 0]
    log_p = P.log() - (size - 2 * match) / TEMPERATURE  # and a constant of the sample
    return log_p.flatten(1).softmax(1).view_as(P)


def expected_distance(P: Tensor, goal: Tensor) -> Tensor:
    """sum_x P(x) |x - goal| in pixels: [B, SIZE, SIZE], [B, 2] (right, up) in [0, 1] -> [B]."""
    place = torch.stack([2 * goal[:, 0] - 1, 1 - 2 * goal[:, 1]], -1)
    distance = (GRID - place[:, None, None]).square().sum(-1).sqrt() * (SIZE / 2)
    return (P * distance).sum((1, 2))


def turned(picture: Tensor, action: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The same push seen from another side of the square table: [..., SIZE, SIZE], [..., 2] (right, up).

    side % 4 quarters of a turn to the left, after a look into a mirror from 4 on.
    """
    if side >= 4:
        picture, action = picture.flip(-1), torch.stack([-action[..., 0], action[..., 1]], -1)
    for _ in range(side % 4):
        action = torch.stack([-action[..., 1], action[..., 0]], -1)
    return torch.rot90(picture, side % 4, (-2, -1)), action


class Flow(nn.Module):
    """flow(o, a): half the resolution, then a quarter, where the action comes in, and back. The same
    weights in every place: a push is a push wherever it happens."""

    def __init__(self, action_dim: int, config: FlowConfig, generator: torch.Generator):
        super().__init__()
        c = config.channels
        self.fine = nn.Conv2d(COLOURS, c, 3, padding=1)
        self.down = nn.Conv2d(c, 2 * c, 3, stride=2, padding=1)
        self.action = nn.Linear(action_dim, 4 * c)
        self.coarse = nn.ModuleList(nn.Conv2d(2 * c, 2 * c, 3, padding=1) for _ in range(3))
        self.up = nn.Conv2d(2 * c, c, 1)
        self.both = nn.Conv2d(2 * c, c, 3, padding=1)
        self.flow = nn.Conv2d(c, 2, 3, padding=1)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.orthogonal_(parameter, 2**0.5, generator=generator)
            else:
                nn.init.zeros_(parameter)
        with torch.no_grad():
            self.flow.weight *= 0.1  # at first, nothing moves

    def forward(self, picture: Tensor, action: Tensor) -> Tensor:
        """[B, COLOURS, SIZE, SIZE], [B, K] -> [B, SIZE, SIZE, 2] in pixels, right and down."""
        fine = F.relu(self.fine(F.avg_pool2d(picture, 2)))
        scale, shift = self.action(action)[..., None, None].chunk(2, 1)
        x = F.relu(self.down(fine) * (1 + scale) + shift)
        for layer in self.coarse:
            x = x + F.relu(layer(x))
        x = F.interpolate(self.up(x), scale_factor=2.0)
        x = self.flow(F.relu(self.both(torch.cat([x, fine], 1))))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return REACH * torch.tanh(x / REACH).movedim(1, -1)


class Foresight(MPC):
    """Moves the designated pixel to its goal by what it foresees."""

    def __init__(self, spec: EnvSpec, config: ForesightConfig, seed: int):
        pixels = COLOURS * SIZE**2 + POINTS
        require(spec.obs_dim == pixels, f"env_id must show {pixels} numbers, as course/PushPixels-v0 does")
        super().__init__(spec, ModelTask(closeness, never), config, seed)
        self.parameters = tuple(self.model.parameters())
        self.optimizer = Adam(self.parameters, config.model.lr)
        self.P = torch.zeros(spec.num_envs, SIZE, SIZE)  # where the designated pixel is believed to be
        self.sample = torch.zeros(spec.num_envs, COLOURS, 2 * PATCH + 1, 2 * PATCH + 1)  # what surrounded it
        self.first = torch.ones(spec.num_envs, dtype=torch.bool)  # is the next picture an episode's first?
        self.fitted = False

    def new_model(self, spec: EnvSpec) -> nn.Module:
        return Flow(spec.action_dim, self.config.model, self.fits)

    def begin(self, first: np.ndarray) -> None:
        super().begin(first)
        if len(first) != len(self.first):
            self.first = torch.ones(len(first), dtype=torch.bool)
            self.P = self.P.new_zeros(len(first), SIZE, SIZE)
            self.sample = self.sample.new_zeros(len(first), *self.sample.shape[1:])
        self.first = self.first | torch.from_numpy(first)

    @torch.no_grad()
    def __call__(self, obs: np.ndarray, step: int = 0) -> np.ndarray:
        """[N, D] -> [N, K]"""
        picture, point, _ = split(torch.from_numpy(obs))
        first = self.first[:, None, None]
        self.sample = torch.where(first[..., None], patch(picture, point), self.sample)
        self.P = torch.where(first, spot(point), register(self.P, picture, self.sample))
        self.first = torch.zeros_like(self.first)
        action = super().__call__(obs, step)
        self.P = move(self.P, self.model(picture, torch.from_numpy(action)))
        return action

    def search(self, obs: Tensor, warm: Tensor) -> Tensor:
        """obs [N, D], warm [N, T, K] -> [N, T, K]. A state of the plan is [picture; P; goal] in one row."""
        picture, _, goal = split(obs)
        state = torch.cat([picture.flatten(1), self.P.flatten(1), goal], 1)
        return plan(self.foresee, self.task, state, warm, self.config, 1, self.draws)

    def foresee(self, state: Tensor, action: Tensor) -> Tensor:
        """The next state: [1, B, D'], [B, K] -> [1, B, D']"""
        picture, P, goal = parts(state[0])
        flow = self.model(picture, action)
        following = (warp(picture, flow).flatten(1), move(P, flow).flatten(1), goal)
        return torch.cat(following, 1)[None]

    def show(self, obs: Tensor) -> Tensor:
        """[N, D] -> [N, SIZE, SIZE, 3]: the block red, the finger blue."""
        return coloured(split(obs)[0])

    def imagine(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Pictures that follow obs [N, D] by the actions [T, N, K]: [T+1, N, SIZE, SIZE, 3]."""
        pictures = [split(obs)[0]]
        for action in actions:
            pictures.append(warp(pictures[-1], self.model(pictures[-1], action)))
        return coloured(torch.stack(pictures))

    def update(self, batch: Batch) -> Metrics:
        """Fit the flow to all data, from the parameters of the last fit."""
        c, N = self.config.model, self.num_envs
        start = starts(batch, N, c.unroll)
        losses = []  # [2] each, left alone until all are there
        for _ in range(c.updates if self.fitted else c.first_updates):
            index = torch.randint(len(start), (c.batch_size,), generator=self.fits)
            data = cut(batch, start[index], N, c.unroll)
            pictures = split(data.obs.flatten(0, 1))[0].unflatten(0, data.obs.shape[:2])
            side = int(torch.randint(8, (), generator=self.fits))
            loss = self.loss(*turned(pictures, data.action, side))
            still = (pictures[1:] - pictures[:1]).square().sum((2, 3, 4)).mean()
            gradient_step(loss, self.optimizer, self.parameters, c.max_grad_norm)
            losses.append(torch.stack([loss.detach(), still]))
        self.fitted = True
        error, still = torch.stack(losses[-100:]).mean(0).tolist()
        return {"loss/pixels": error, "model/share_of_change": error / max(still, 1e-8)}

    def loss(self, pictures: Tensor, actions: Tensor) -> Tensor:
        """Squared error per picture: [T+1, B, C, SIZE, SIZE], [T, B, K] -> scalar."""
        o, errors = pictures[0], []
        for action, target in zip(actions, pictures[1:], strict=True):
            o = warp(o, self.model(o, action))
            errors.append((o - target).square().sum((1, 2, 3)).mean())
        return torch.stack(errors).mean()


def split(obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[B, D] -> picture [B, COLOURS, SIZE, SIZE], designated point and goal [B, 2]."""
    picture, point, goal = obs.split([COLOURS * SIZE**2, 2, 2], -1)
    return picture.reshape(-1, COLOURS, SIZE, SIZE), point, goal


def parts(state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[B, D'] -> picture [B, COLOURS, SIZE, SIZE], P [B, SIZE, SIZE], goal [B, 2]."""
    picture, P, goal = state.split([COLOURS * SIZE**2, SIZE**2, 2], -1)
    return picture.reshape(-1, COLOURS, SIZE, SIZE), P.reshape(-1, SIZE, SIZE), goal


def coloured(picture: Tensor) -> Tensor:
    """[..., COLOURS, SIZE, SIZE] -> [..., SIZE, SIZE, 3]"""
    block, finger = picture.unbind(-3)
    return torch.stack([block, torch.zeros_like(block), finger], -1)


def closeness(state: Tensor, action: Tensor, following: Tensor) -> Tensor:
    """What a plan is paid per step: [1, B, D'] -> [1, B]"""
    _, P, goal = parts(following[0])
    return -expected_distance(P, goal)[None]
