"""Demonstrations: what an expert saw and did, how they are recorded, and the file that keeps them.

D = {(o_1, a_1), ..., (o_M, a_M)}, one trajectory after the other

The file is sealed (sealed.py): an .npz of plain arrays, where they come from, and a digest of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from common.envs.registry import step_envs
from common.types import EnvSpec, begin, require
from hw1_imitation import sealed
from hw1_imitation.sealed import Origin

DTYPES = {"obs": ("float32",), "action": ("float32", "int64"), "length": ("int64",)}
Act = Callable[[np.ndarray], np.ndarray]  # [N, D] -> [N] or [N, K]


@dataclass(frozen=True)
class Demonstrations:
    obs: Tensor  # [M, D] float32
    action: Tensor  # [M, K] float32 in [-1, 1], or [M] int64 from 0 on
    length: Tensor  # [E] int64, pairs of each trajectory; their sum is M

    def __post_init__(self):
        for name, kinds in DTYPES.items():
            kind = str(getattr(self, name).dtype).removeprefix("torch.")
            require(kind in kinds, f"{name} must be {' or '.join(kinds)}, got {kind}")
        obs, action, length = self.obs, self.action, self.length
        ok = obs.ndim == 2 and obs.numel() > 0 and bool(torch.isfinite(obs).all())
        require(ok, f"obs must be finite numbers [M, D], got {list(obs.shape)}")
        dims = 2 if action.is_floating_point() else 1
        ok = action.ndim == dims and len(action) == len(obs) and action.numel() > 0
        wanted = "[M, K]" if dims == 2 else "[M]"
        require(ok, f"action must be {wanted} with M = {len(obs)}, got {list(action.shape)}")
        ok = bool((action.abs() <= 1).all() if dims == 2 else (action >= 0).all())
        require(ok, f"action must {'lie in [-1, 1]' if dims == 2 else 'count from 0'} everywhere")
        ok = length.ndim == 1 and len(length) <= len(obs)  # so few and so small that their sum cannot wrap
        ok = ok and bool(((length >= 1) & (length <= len(obs))).all()) and int(length.sum()) == len(obs)
        require(ok, f"length must be [E], at least 1 each, with sum {len(obs)}")

    def __len__(self) -> int:
        return len(self.obs)

    def require_fits(self, spec: EnvSpec) -> None:
        """Can an agent of this environment learn from them?"""
        seen = self.obs.shape[1]
        require(seen == spec.obs_dim, f"obs must have {spec.obs_dim} entries here, got {seen}")
        if spec.discrete:
            ok = not self.action.is_floating_point() and int(self.action.max()) < spec.action_dim
            require(ok, f"action must be integers below {spec.action_dim} here")
        else:
            ok = self.action.is_floating_point() and self.action.shape[1] == spec.action_dim
            require(ok, f"action must have {spec.action_dim} real entries here")

    def joined(self, other: Demonstrations) -> Demonstrations:
        """Both, aggregated: D <- D + D_pi"""
        mine, yours = ((x.obs.shape[1:], x.action.shape[1:], x.action.dtype) for x in (self, other))
        require(mine == yours, f"other must have columns {mine}, got {yours}")
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Demonstrations(*(torch.cat(pair) for pair in pairs))

    def chunked(self, size: int) -> Demonstrations:
        """Each action with those that follow it, action [M, size K]; beyond the end the last goes on."""
        ok = self.action.is_floating_point() and size >= 1
        require(ok, f"chunks need continuous actions and a size of at least 1, got {size}")
        ends = self.length.cumsum(0).repeat_interleave(self.length)[:, None]
        rows = torch.minimum(torch.arange(len(self))[:, None] + torch.arange(size), ends - 1)  # [M, size]
        return Demonstrations(self.obs, self.action[rows].flatten(1), self.length)

    def with_history(self, size: int) -> Demonstrations:
        """The last `size` observations, oldest first, obs [M, size D]; at the start the first one again."""
        require(size >= 1, f"a history must have a size of at least 1, got {size}")
        begins = (self.length.cumsum(0) - self.length).repeat_interleave(self.length)[:, None]
        rows = torch.maximum(torch.arange(len(self))[:, None] + torch.arange(1 - size, 1), begins)
        return Demonstrations(self.obs[rows].flatten(1), self.action, self.length)

    def take(self, trajectories: Tensor) -> Demonstrations:
        """Those of the given numbers, in that order."""
        parts = self.obs.split(self.length.tolist()), self.action.split(self.length.tolist())
        obs, action = (torch.cat([part[i] for i in trajectories.tolist()]) for part in parts)
        return Demonstrations(obs, action, self.length[trajectories])

    def split(self, share: float, generator: torch.Generator) -> tuple[Demonstrations, Demonstrations | None]:
        """Training and validation, `share` of the trajectories, rounded down.

        By trajectory: neighbouring steps are nearly equal, and a network would be tested on what it knows.
        """
        require(0 <= share < 1, f"share must lie in [0, 1), got {share}")
        order = torch.randperm(len(self.length), generator=generator)
        kept = math.floor(share * len(order))
        ok = kept > 0 or share == 0
        require(ok, f"validation must leave out a trajectory at least, got {share:g} of {len(order)}")
        return self.take(order[kept:]), self.take(order[:kept]) if kept else None


Play = Callable[[np.ndarray, np.ndarray], np.ndarray]  # obs [N, D], the expert's labels -> actions


def collect(
    expert: Act, envs: gym.vector.VectorEnv, steps: int, seed: int, play: Play | None = None
) -> Demonstrations:
    """What is seen in `steps` steps of each of N new environments, and what the expert would do there.

    It is asked once in each step, as it may remember or draw. Its labels are played, or what `play` makes of
    them.
    """
    require(steps >= 1, f"steps must be at least 1, got {steps}")
    obs, _ = envs.reset(seed=seed)
    seen, labels, begins, first = [], [], [], np.ones(envs.num_envs, bool)
    for _ in range(steps):
        begin(expert, first)
        seen.append(obs)
        labels.append(expert(obs))
        begins.append(first)
        action = play(obs, labels[-1]) if play else labels[-1]
        obs, _, terminated, truncated, _ = step_envs(envs, action)
        first = terminated | truncated
    # time first -> one environment after the other; the first row of each begins a trajectory
    flat = [
        np.swapaxes(np.stack(rows), 0, 1).reshape(-1, *rows[0].shape[1:]) for rows in (seen, labels, begins)
    ]
    length = np.diff(np.append(np.flatnonzero(flat[2]), len(flat[2])))
    discrete = np.issubdtype(flat[1].dtype, np.integer)
    action = flat[1].astype(np.int64) if discrete else flat[1].clip(-1, 1).astype(np.float32)
    return Demonstrations(*map(torch.from_numpy, (flat[0].astype(np.float32), action, length)))


def save(path: Path, data: Demonstrations, origin: Origin) -> None:
    """path (.npz), and the same name with .json."""
    sealed.write(path, {name: value.numpy() for name, value in vars(data).items()}, origin)


def load(path: Path) -> tuple[Demonstrations, Origin]:
    """What `save` wrote, or a UsageError (a ValueError) that says in one sentence what is wrong."""
    arrays, origin = sealed.read(path)
    try:
        return Demonstrations(**_tensors(arrays)), origin
    except ValueError as error:
        require(False, f"{path} holds no demonstrations: {error}")


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    names = [*arrays]
    require({*names} == {*DTYPES}, f"it must hold {', '.join(DTYPES)}, got {sealed.short(names)}")
    for name, kinds in DTYPES.items():
        kind = arrays[name].dtype.name
        require(kind in kinds, f"{name} must be {' or '.join(kinds)}, got {kind}")
    return {
        name: torch.from_numpy(array.astype(array.dtype.newbyteorder("="))) for name, array in arrays.items()
    }
