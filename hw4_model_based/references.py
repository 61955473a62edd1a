"""What the results are to be seen beside: python -m hw4_model_based.references [--seed 0]

random actions      what nobody has to learn
true dynamics       CEM with nothing left to learn, replanned at every step; on obstacles and cart-pole with
                    the search of mpc-obstacles and pets-cartpole
PD control          of the state behind the pixels, a = p (goal - x) - d v, the best of a grid of gains

Means over the first episode of EPISODES environments.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import product

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from common import device
from common.envs import cartpole_dense, obstacles, pendulum_dense, registry
from common.envs.model_tasks import model_task
from common.envs.pixels import PointMassPixels
from common.evaluation import evaluate
from common.seeding import child_seed, generator
from common.types import EnvSpec, require
from hw4_model_based.mpc import MPC, MPCConfig, Step

EPISODES = 10
RANDOM = (
    "course/Obstacles-v0",
    "course/CartPoleSwingUpDense-v0",
    "course/PendulumSwingUpDense-v0",
    "course/Reacher-v0",
    "course/CheetahRun-v0",
    "course/PointMassPixels-v0",
    "course/PendulumPixels-v0",
)
GAINS = (0.3, 1.0, 2.0, 3.0, 5.0, 10.0)


def obstacles_step(obs: Tensor, action: Tensor) -> Tensor:
    """[..., 4], [..., 2] -> [..., 4]"""
    position = torch.from_numpy(obstacles.move(obs[..., :2].numpy(), action.numpy()))
    return torch.cat([position.to(obs), obs[..., 2:]], -1)


def cartpole_step(obs: Tensor, action: Tensor) -> Tensor:
    """[..., 5], [..., 1] -> [..., 5]"""
    position, v, cos, sin, w = obs.double().unbind(-1)
    x = torch.stack([position, torch.atan2(sin, cos), v, w], -1)
    return cartpole_dense.observe(cartpole_dense.STEP(x, cartpole_dense.FORCE * action.double())).to(obs)


def pendulum_step(obs: Tensor, action: Tensor) -> Tensor:
    """[..., 3], [..., 1] -> [..., 3]"""
    cos, sin, w = obs.double().unbind(-1)
    x = torch.stack([torch.atan2(sin, cos), w], -1)
    torque = pendulum_dense.SYSTEM.u_max * action.double()
    return pendulum_dense.observe(pendulum_dense.STEP(x, torque)).to(obs)


SHORT = MPCConfig(samples=80, elites=8)
LONG = MPCConfig(horizon=25, samples=50, iterations=2, elites=5)
# Nothing is earned far from the top: the search has to be wide.
WIDE = MPCConfig(horizon=30, samples=1_000, iterations=5, elites=50, std=1.0)
TRUE: dict[str, tuple[Step, MPCConfig]] = {
    "course/Obstacles-v0": (obstacles_step, SHORT),
    "course/CartPoleSwingUpDense-v0": (cartpole_step, LONG),
    "course/PendulumSwingUpDense-v0": (pendulum_step, WIDE),
}


class World(nn.Module):
    """The true dynamics in the place of a model."""

    elites = 1

    def __init__(self, step: Step):
        super().__init__()
        self.step = step

    def predict(self, obs: Tensor, action: Tensor) -> tuple[Tensor, None]:
        return self.step(obs, action), None


class Omniscient(MPC):
    def __init__(self, env_id: str, spec: EnvSpec, seed: int):
        self.world = World(TRUE[env_id][0])
        super().__init__(spec, model_task(env_id), TRUE[env_id][1], seed)

    def new_model(self, spec: EnvSpec) -> nn.Module:
        return self.world


def random_policy(spec: EnvSpec, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    draws = generator(seed, "random")
    return lambda obs: 2 * torch.rand(len(obs), spec.action_dim, generator=draws).numpy() - 1


def pd_policy(envs: gym.vector.VectorEnv, p: float, d: float) -> Callable[[np.ndarray], np.ndarray]:
    """It looks behind the pixels of the point mass."""
    worlds = [env.unwrapped for env in envs.envs]
    return lambda obs: np.clip([p * (w.GOAL - w.x) - d * w.v for w in worlds], -1, 1)


def score(env_id: str, policy: Callable[[gym.vector.VectorEnv], Callable], seed: int) -> float:
    """Mean return of what `policy` makes of the environments."""
    envs = registry.make_envs(env_id, EPISODES)
    found = evaluate(policy(envs), envs, child_seed(seed, "eval"))["return_mean"]
    envs.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hw4_model_based.references", allow_abbrev=False)
    parser.add_argument("--seed", type=int, default=0, help="of starts and searches")
    args = parser.parse_args()
    try:
        require(args.seed >= 0, f"seed must not be negative, got {args.seed}")
    except ValueError as error:
        parser.error(str(error))
    device.setup("cpu", threads=1)
    seed = args.seed
    for env_id in RANDOM:
        found = score(env_id, lambda envs: random_policy(registry.spec(envs), seed), seed)
        print(f"random actions, {env_id}: {found:.1f}", flush=True)
    for env_id in TRUE:
        found = score(env_id, lambda envs, e=env_id: Omniscient(e, registry.spec(envs), seed), seed)
        print(f"true dynamics, {env_id}: {found:.1f}", flush=True)
    best = max(
        score("course/PointMassPixels-v0", lambda envs, g=g: pd_policy(envs, *g), seed)
        for g in product(GAINS, GAINS)
    )
    print(f"PD control, {PointMassPixels.__name__}, best of {len(GAINS) ** 2} pairs of gains: {best:.1f}")


if __name__ == "__main__":
    main()
