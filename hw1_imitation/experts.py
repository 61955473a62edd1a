"""Experts that need no download: policies trained here (trained_experts.py), rules, and the linear-quadratic
regulator of the environment's own model.

x_{t+1} = A x_t + B u_t        derivatives by central differences of the simulator, where the poles stand
min sum_t x'Q x + u'R u        Q = 1, R = 1
P = Q + A'P A - A'P B (R + B'P B)^-1 B'P A,   u = K x,   K = -(R + B'P B)^-1 B'P A

python -m hw1_imitation.experts ENV_ID [--steps 1000] [--seed 0] [--out demonstrations.npz]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.cli import INTERRUPTED
from common.envs import lane_keeping, registry, two_way
from common.envs.mujoco_dynamics import MujocoDynamics
from common.evaluation import evaluate
from common.seeding import child_seed
from common.types import require
from hw1_imitation.demonstrations import collect, save
from hw1_imitation.sealed import Origin
from hw1_imitation.trained_experts import TRAINED, trained_expert

EPISODES = 10  # that an expert's return is measured over


class Linear(NamedTuple):
    """x_{t+1} = A x_t + B u_t near the upright poles, u in [-1, 1]."""

    A: np.ndarray  # [n, n]
    B: np.ndarray  # [n, m]


def regulator(A: np.ndarray, B: np.ndarray, Q: np.ndarray, R: np.ndarray) -> np.ndarray:
    """K [m, n] of the infinite horizon, with its minus sign."""
    from scipy.linalg import (
        solve_discrete_are,
    )  # 1 s to import, and a run with a file of data needs no expert

    P = solve_discrete_are(A, B, Q, R)
    return -np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)


def mujoco_model(env_id: str) -> Linear:
    """Of a MuJoCo environment, over one step of the environment, where it starts but for noise."""
    dynamics = MujocoDynamics(env_id)
    x, u = dynamics.x0.numpy(), np.zeros(dynamics.m)
    ok = np.allclose(dynamics.step(x, u), x, atol=1e-2)  # some poles lean a little
    require(ok, f"env_id must start at rest, got {env_id}")
    F = dynamics.differences(x, u)
    return Linear(F[:, : dynamics.n], F[:, dynamics.n :] * dynamics.u_high.numpy())


def cartpole_model(env_id: str) -> Linear:
    """Of Gymnasium's CartPole, whose two forces are u = -1 and 1; its step is affine in the force."""
    env = registry.make_env(env_id).unwrapped
    env.reset(seed=0)

    def step(x: np.ndarray, action: int) -> np.ndarray:
        env.state = x
        env.step(action)
        return np.array(env.state)

    def mean_step(x: np.ndarray) -> np.ndarray:
        return (step(x, 0) + step(x, 1)) / 2

    apart, rest = 1e-6 * np.eye(4), np.zeros(4)
    A = np.stack([(mean_step(dx) - mean_step(-dx)) / 2e-6 for dx in apart], 1)
    return Linear(A, ((step(rest, 1) - step(rest, 0)) / 2)[:, None])


def double_pendulum_state(obs: np.ndarray) -> np.ndarray:
    """[N, 9], sines and cosines of two angles among them -> [x, angles, speeds] [N, 6]"""
    return np.concatenate([obs[:, :1], np.arctan2(obs[:, 1:3], obs[:, 3:5]), obs[:, 5:8]], 1)


class Known(NamedTuple):
    model: Callable[[str], Linear]
    state: Callable[[np.ndarray], np.ndarray]  # observations [N, D] -> [N, n]
    discrete: bool = False


EXPERTS = {
    "InvertedDoublePendulum-v5": Known(mujoco_model, double_pendulum_state),
    "InvertedPendulum-v5": Known(mujoco_model, lambda obs: obs),
    "CartPole-v1": Known(cartpole_model, lambda obs: obs, discrete=True),
}


class Differences:
    """x_t = [p_t, (p_t - p_{t-1}) / dt] of positions p alone, at rest at first: this expert remembers."""

    def __init__(self, act: Callable[[np.ndarray], np.ndarray], dt: float):
        self.policy, self.dt = act, dt
        self.before = None  # p_{t-1} [N, n]; NaN where there is none

    def begin(self, first: np.ndarray) -> None:
        if self.before is not None and len(self.before) == len(first):
            self.before[first] = np.nan
        else:
            self.before = None

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        before = obs if self.before is None else np.where(np.isnan(self.before), obs, self.before)
        self.before = obs.copy()
        return self.policy(np.stack([obs, (obs - before) / self.dt], -1).reshape(len(obs), -1))


# Experts by a rule, of what they see and a generator.
RULES = {"course/TwoWay-v0": two_way.expert}
# Experts of another environment that see positions only, and its time step in s.
BLIND = {"course/CartPoleNoVelocity-v0": ("CartPole-v1", 0.02)}
# Experts by a rule that needs nothing but what they see.
PLAIN = {"course/LaneKeeping-v0": lane_keeping.expert}
KNOWN = (*EXPERTS, *RULES, *BLIND, *PLAIN, *TRAINED)


def expert(env_id: str, seed: int = 0) -> Callable[[np.ndarray], np.ndarray]:
    """observations [N, D] -> K x in [-1, 1] [N, K], or of two actions the one on its side [N]; `seed` is of
    what it draws."""
    require(env_id in KNOWN, f"env_id must have an expert, as {', '.join(KNOWN)}, got {env_id!r}")
    if env_id in TRAINED:
        return trained_expert(env_id)
    if env_id in RULES:
        return partial(RULES[env_id], generator=np.random.default_rng(seed))
    if env_id in PLAIN:
        return PLAIN[env_id]
    if env_id in BLIND:
        seeing, dt = BLIND[env_id]
        return Differences(expert(seeing), dt)
    model, state, discrete = EXPERTS[env_id]
    A, B = model(env_id)
    K = regulator(A, B, np.eye(len(A)), np.eye(B.shape[1]))

    def act(obs: np.ndarray) -> np.ndarray:
        u = state(obs.astype(np.float64)) @ K.T
        return (u[:, 0] > 0).astype(np.int64) if discrete else u.clip(-1, 1)

    return act


def kind(env_id: str) -> str:
    """Of the expert, as demonstrations tell it."""
    if env_id in TRAINED:
        return "a trained policy"
    return "a rule" if env_id in (*RULES, *PLAIN) else "LQR, Q = R = 1"


def main() -> None:
    """Measure an expert, and record it."""
    parser = argparse.ArgumentParser(prog="python -m hw1_imitation.experts", description=main.__doc__)
    parser.add_argument("env_id", nargs="?", choices=KNOWN, default="InvertedDoublePendulum-v5")
    parser.add_argument("--steps", type=int, default=1_000, help="recorded")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file of demonstrations, .npz; a .json comes beside it")
    args = parser.parse_args()
    try:
        require(1 <= args.steps < 2**31, f"steps must be at least 1 and below 2^31, got {args.steps}")
        require(0 <= args.seed < 2**63, f"seed must lie in [0, 2^63), got {args.seed}")
        act = expert(args.env_id, child_seed(args.seed, "expert"))
        folder = args.out.parent if args.out else Path()
        require(folder.is_dir(), f"out must lie in a folder that exists, got {args.out}")
        envs = registry.make_envs(args.env_id, EPISODES)
        scores = evaluate(act, envs, child_seed(args.seed, "eval"))
        print(f"return {scores['return_mean']:.2f} +- {scores['return_std']:.2f} over {EPISODES} episodes")
        if args.out:
            envs = registry.make_envs(args.env_id, 1)
            data = collect(act, envs, args.steps, child_seed(args.seed, "demonstrations"))
            origin = Origin(args.env_id, kind(args.env_id), args.seed, scores["return_mean"])
            save(args.out, data, origin)
            print(f"{len(data)} steps in {len(data.length)} trajectories: {args.out}")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
