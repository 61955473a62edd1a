"""What a planner with a learned model has to know of a task: the reward and the end of an episode, batched.

r = reward(s, a, s'),   terminated(s')

The dynamics are not here: they are what is learned. Functions take obs [..., D] as the environment shows it
and action [..., K] in [-1, 1], as common.envs.registry has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from common.types import UsageError

POLE = 0.5  # m


@dataclass(frozen=True)
class ModelTask:
    reward: Callable[[Tensor, Tensor, Tensor], Tensor]  # obs, action, next_obs -> [...]
    terminated: Callable[[Tensor], Tensor]  # next_obs -> [...] bool


def never(next_obs: Tensor) -> Tensor:
    return torch.zeros_like(next_obs[..., 0], dtype=torch.bool)


def pendulum_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Pendulum-v1, obs = [cos, sin, w]: zero stands upright."""
    cos, sin, w = obs.unbind(-1)
    return -(torch.atan2(sin, cos).square() + 0.1 * w.square() + 0.004 * action[..., 0].square())


def inverted_pendulum_fell(next_obs: Tensor) -> Tensor:
    """InvertedPendulum-v5, obs = [position, angle, velocity, angular velocity]."""
    return (next_obs[..., 1].abs() > 0.2) | ~next_obs.isfinite().all(-1)


def inverted_pendulum_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    return inverted_pendulum_fell(next_obs).logical_not().to(obs.dtype)


def hopper_fell(next_obs: Tensor) -> Tensor:
    """Hopper-v5, obs = [height, angle, 3 joints, forward velocity, 5 more]: not healthy any more."""
    sound = (next_obs[..., 1:].abs() < 100).all(-1) & next_obs.isfinite().all(-1)
    return ~(sound & (next_obs[..., 0] > 0.7) & (next_obs[..., 1].abs() < 0.2))


def hopper_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """1 as long as it is healthy, plus the mean velocity over the step in m/s, minus 1e-3 |a|^2. The position
    is not observed: the mean of both velocities stands for the way gone, 0.005 of error in the mean square
    root where rewards vary by 0.6."""
    velocity = 0.5 * (obs[..., 5] + next_obs[..., 5])
    healthy = hopper_fell(next_obs).logical_not()
    return healthy.to(obs.dtype) + velocity - 1e-3 * action.square().sum(-1)


def obstacles_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Minus the distance left, obs = [position, goal]."""
    return -torch.linalg.vector_norm(next_obs[..., :2] - next_obs[..., 2:], dim=-1)


def arm_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Minus ten times the distance left, obs = [.., fingertip, target]."""
    return -10 * torch.linalg.vector_norm(next_obs[..., -6:-3] - next_obs[..., -3:], dim=-1)


def cheetah_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """The velocity, minus 10 for each part of the front leg that is too high; obs as HalfCheetah-v5's."""
    front, limits = next_obs[..., 5:8], next_obs.new_tensor([0.2, 0.0, 0.0])  # thigh, shin, foot
    return next_obs[..., 8] - 10 * (front > limits).sum(-1)


def cartpole_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """exp(-|tip - goal|^2 / l^2) - 0.01 a^2 (Chua et al. 2018), obs = [position, velocity, cos, sin, w] and
    the goal one pole above the origin. At most 1."""
    x, _, cos, sin, _ = next_obs.unbind(-1)
    distance = (x / POLE + sin).square() + (cos + 1).square()
    return (-distance).exp() - 0.01 * action[..., 0].square()


def swing_up_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """exp(-|tip - top|^2 / l^2) (Deisenroth and Rasmussen 2011), obs = [cos, sin, w], hanging at cos = 1."""
    cos, sin, _ = next_obs.unbind(-1)
    return (-sin.square() - (cos + 1).square()).exp()


MODEL_TASKS = {
    "Pendulum-v1": ModelTask(pendulum_reward, never),
    "InvertedPendulum-v5": ModelTask(inverted_pendulum_reward, inverted_pendulum_fell),
    "Hopper-v5": ModelTask(hopper_reward, hopper_fell),
    "course/Obstacles-v0": ModelTask(obstacles_reward, never),
    "course/Reacher-v0": ModelTask(arm_reward, never),
    "course/CheetahRun-v0": ModelTask(cheetah_reward, never),
    "course/CartPoleSwingUpDense-v0": ModelTask(cartpole_reward, never),
    "course/PendulumSwingUpDense-v0": ModelTask(swing_up_reward, never),
}


def model_task(env_id: str) -> ModelTask:
    """Reward and end of an environment, or a UsageError where they are not written down here."""
    if env_id in MODEL_TASKS:
        return MODEL_TASKS[env_id]
    raise UsageError(
        f"env_id must have a known reward function, one of {', '.join(MODEL_TASKS)}, got {env_id!r}"
    )
