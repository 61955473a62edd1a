"""The true dynamics of a MuJoCo task as a torch function of one state, its derivatives by finite differences.

x = [qpos, qvel], u = ctrl, x' after frame_skip steps of the simulator, in its units (m, rad, s, N, N m).
MuJoCo's own mjd_transitionFD refuses models that integrate by RK4, which most of Gymnasium's do. Here all
perturbed copies of all states go through mujoco.rollout together, whatever the integrator.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import torch
from mujoco import rollout
from torch import Tensor

from common.envs.registry import make_env
from common.types import require

STEP = 1e-6  # of the central differences


class MujocoDynamics:
    """A function of (x, u): each call starts the contact solver afresh, so equal inputs give equal outputs.

    vmap and autograd pass through it; a second derivative does not exist. Models with balls or free bodies
    are refused: their quaternions do not add.
    """

    def __init__(self, env_id: str):
        env = make_env(env_id).unwrapped
        ok = isinstance(env, gym.envs.mujoco.MujocoEnv)
        require(ok, f"env_id must name a MuJoCo environment of Gymnasium, got {env_id!r}")
        model: Any = env.model
        require(model.nq == model.nv, f"env_id must have a state without quaternions, got {env_id!r}")
        require(model.na == 0, f"env_id must have actuators without a state of their own, got {env_id!r}")
        self.model, self.data, self.frame_skip = model, mujoco.MjData(model), env.frame_skip
        self.n, self.m, self.dt = 2 * model.nq, model.nu, env.dt  # dt in seconds
        self.u_low, self.u_high = (torch.tensor(side) for side in model.actuator_ctrlrange.T.copy())
        self.x0 = torch.tensor(np.concatenate([env.init_qpos, env.init_qvel]))

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """x [n], u [m] -> x' [n], float64."""
        return _Step.apply(x, u, self)

    def jacobian(self, x: Tensor, u: Tensor) -> Tensor:
        """x [n], u [m] -> dx'/d[x; u] [n, n+m]"""
        return _Jacobian.apply(x, u, self)

    def step(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """[..., n], [..., m] -> [..., n]; nan where the simulation breaks down."""
        flat = x.reshape(-1, self.n)
        start = np.zeros((len(flat), mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_FULLPHYSICS)))
        start[:, 0] = 1.0  # s; what it cannot solve MuJoCo starts anew, at time 0
        start[:, 1 : 1 + self.n] = flat
        ctrl = np.repeat(u.reshape(-1, 1, self.m), self.frame_skip, 1)
        state, _ = rollout.rollout(self.model, self.data, start, ctrl)
        after = np.where(state[:, -1, :1] >= 1, state[:, -1, 1 : 1 + self.n], np.nan)
        return after.reshape(x.shape)

    def differences(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """[..., n], [..., m] -> [..., n, n+m], central; one-sided where a control is at its limit."""
        z = np.concatenate([x, u], -1)[..., None, :]
        apart = STEP * np.eye(self.n + self.m)
        ends = []
        for side in (z + apart, z - apart):  # [..., n+m, n+m]
            x_side, u_side = side[..., : self.n], side[..., self.n :]
            u_side = np.clip(u_side, self.u_low.numpy(), self.u_high.numpy())
            ends.append((self.step(x_side, u_side), np.concatenate([x_side, u_side], -1)))
        (after, z_after), (before, z_before) = ends
        width = np.diagonal(z_after - z_before, axis1=-2, axis2=-1)[..., None]  # zero beyond the limits
        slope = np.divide(after - before, width, out=np.zeros_like(after), where=width != 0)
        return np.swapaxes(slope, -1, -2)


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, u: Tensor, system: MujocoDynamics) -> Tensor:
        return torch.from_numpy(system.step(x.detach().numpy(), u.detach().numpy()))

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, u, ctx.system = inputs
        ctx.save_for_backward(x, u)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        x, u = ctx.saved_tensors
        F = torch.from_numpy(ctx.system.differences(x.numpy(), u.numpy()))
        dz = (grad[..., None, :] @ F)[..., 0, :]
        return dz[..., : x.shape[-1]], dz[..., x.shape[-1] :], None

    @staticmethod
    def vmap(info, in_dims, x: Tensor, u: Tensor, system: MujocoDynamics):
        return _Step.apply(*_batched(info, in_dims, x, u), system), 0


class _Jacobian(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, u: Tensor, system: MujocoDynamics) -> Tensor:
        return torch.from_numpy(system.differences(x.detach().numpy(), u.detach().numpy()))

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info, in_dims, x: Tensor, u: Tensor, system: MujocoDynamics):
        return _Jacobian.apply(*_batched(info, in_dims, x, u), system), 0


def _batched(info, in_dims, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the mapped dimension in front."""
    return tuple(
        a.expand(info.batch_size, *a.shape) if dim is None else a.movedim(dim, 0)
        for a, dim in zip((x, u), in_dims, strict=False)
    )
