"""A run of PLATO: a car learns to drive through a forest by what its lidar tells, taught by a planner that
knows where the trees stand. DAgger and cloning differ in who drives while data are collected.
"""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from common import checkpoint
from common.cli import RunOptions
from common.envs.car_forest import FOREST
from common.evaluation import Act, scores
from common.logger import RunLogger
from common.networks import mlp, require_hidden
from common.seeding import generator
from common.types import Metrics, require_at_least
from hw5_planning_control import plato
from hw5_planning_control.ilqr import ILQRConfig
from hw5_planning_control.planners import problem_of
from hw5_planning_control.plato import MPC, Arena, Episodes, alone


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


def drive(config: RunOptions, logger: RunLogger) -> tuple[Metrics, Act]:
    """Teach a driver in course/CarForest-v0, play it alone after every round: its last scores, and it."""
    algo, train, seed, rounds = config.algo, config.train, config.seed, []
    arena = Arena(
        lambda random: FOREST.starts(train.episodes, random),
        FOREST.step,
        lambda x, t: FOREST.observe(x),
        FOREST.crashed,
        gym.spec(config.env_id).max_episode_steps,
    )
    exam = arena._replace(starts=lambda random: FOREST.starts(train.eval_episodes, random))
    random = generator(seed, "pupil")
    net = mlp(FOREST.beams + 2, *train.hidden, FOREST.m, generator=random, last_gain=0.1).double()
    pupil = nn.Sequential(net, nn.Hardtanh(FOREST.u_low, FOREST.u_high))
    problem = problem_of(FOREST, torch.zeros(FOREST.n, dtype=torch.float64), train.horizon)
    u_init = torch.zeros(train.episodes, train.horizon, FOREST.m, dtype=torch.float64)
    planning = ILQRConfig(iterations=train.plan_steps, tolerance=0.01, mu_min=1.0, mu_max=1e3, line_search=5)

    def note(taught: Episodes) -> None:
        now = int(taught.crashed.sum())
        so_far = now + (rounds[-1]["policy/crashes"] if rounds else 0)
        played = alone(exam, pupil, generator(seed, "eval"))
        length = played.alive.double().numpy()
        rounds.append(scores(length, length) | {"policy/crashes": so_far})
        row = {
            "policy/crashes_now": now,
            "policy/alive": 1 - played.crashed.double().mean().item(),
            "policy/cost": FOREST.cost(played.x, played.label).mean().item(),
        }
        logger.write("train", len(rounds), row | {"policy/crashes": so_far})
        logger.write("eval", len(rounds), rounds[-1])

    plato.train(arena, lambda: MPC(problem, u_init, planning), pupil, algo, random, note)
    checkpoint.save(logger.directory / "checkpoint", algo.rounds, pupil=pupil.state_dict())

    @torch.no_grad()
    def act(obs: np.ndarray) -> np.ndarray:
        return pupil(torch.from_numpy(obs)).numpy() / FOREST.u_high

    return rounds[-1], act
