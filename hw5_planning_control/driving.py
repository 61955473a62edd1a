"""A lesson of PLATO: a car learns to drive through a forest by what its lidar tells, taught by a planner that
knows where the trees stand. DAgger and cloning differ in who drives while data are collected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from common.cli import RunOptions
from common.envs.car_forest import FOREST
from common.evaluation import scores
from common.networks import mlp, require_hidden
from common.seeding import generator
from common.types import Metrics, require_at_least
from hw5_planning_control.ilqr import ILQRConfig
from hw5_planning_control.planners import problem_of
from hw5_planning_control.plato import MPC, Arena, Plato, alone


@dataclass(frozen=True)
class DriveConfig:
    episodes: int = 3  # driven side by side in every round
    eval_episodes: int = 100  # of the pupil alone after every round
    horizon: int = 8  # steps that the teacher plans ahead
    plan_steps: int = 2  # iterations of iLQR for every plan
    hidden: tuple[int, ...] = (64, 64)  # units per layer of the pupil

    def __post_init__(self):
        require_at_least(self, 1, "episodes", "eval_episodes", "horizon", "plan_steps")
        require_hidden(self.hidden)


class Driving:
    """A driver of course/CarForest-v0, who is taught, and drives alone after every round."""

    def __init__(self, config: RunOptions):
        algo, self.train, self.seed = config.algo, config.train, config.seed
        self.arena = Arena(
            lambda random: FOREST.starts(self.train.episodes, random),
            FOREST.step,
            lambda x, t: FOREST.observe(x),
            FOREST.crashed,
            gym.spec(config.env_id).max_episode_steps,
        )
        self.exam = self.arena._replace(starts=lambda random: FOREST.starts(self.train.eval_episodes, random))
        random = generator(self.seed, "pupil")
        sizes = FOREST.beams + 2, *self.train.hidden, FOREST.m
        net = mlp(*sizes, generator=random, last_gain=0.1).double()
        pupil = nn.Sequential(net, nn.Hardtanh(FOREST.u_low, FOREST.u_high))
        self.plato = Plato(pupil, algo, random)
        self.parts = {"driver": self.plato}

    def teacher(self) -> MPC:
        """Of one batch of episodes."""
        train, kind = self.train, {"dtype": torch.float64}
        problem = problem_of(FOREST, torch.zeros(FOREST.n, **kind), train.horizon)
        settings = {"tolerance": 0.01, "mu_min": 1.0, "mu_max": 1e3, "line_search": 5}
        u_init = torch.zeros(train.episodes, train.horizon, FOREST.m, **kind)
        return MPC(problem, u_init, ILQRConfig(iterations=train.plan_steps, **settings))

    def round(self, k: int) -> Iterator[tuple[str, Metrics]]:
        taught = self.plato.round(self.arena, self.teacher())
        played = alone(self.exam, self.plato.pupil, generator(self.seed, "eval"))
        length, so_far = played.alive.double().numpy(), {"policy/crashes": self.plato.crashes}
        row = {
            "policy/crashes_now": int(taught.crashed.sum()),
            "policy/alive": 1 - played.crashed.double().mean().item(),
            "policy/cost": FOREST.cost(played.x, played.label).mean().item(),
        }
        yield "train", row | so_far
        yield "eval", scores(length, length) | so_far

    @torch.no_grad()
    def act(self, obs: np.ndarray) -> np.ndarray:
        return self.plato.pupil(torch.from_numpy(obs)).numpy() / FOREST.u_high
