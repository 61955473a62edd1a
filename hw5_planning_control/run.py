"""python -m hw5_planning_control.run ilqr-acrobot --seed 3 --algo.tolerance 1e-8"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch

from common import checkpoint, cli, device
from common.envs import registry
from common.envs.control_tasks import TASKS, ControlTask, task_of
from common.evaluation import Act
from common.logger import RunLogger, read_rows
from common.results import plot_run
from common.seeding import child_seed, seed_everything
from common.session import is_finished, resume_point
from common.types import Metrics, require
from common.video import film, opener
from hw5_planning_control.conquest import Conquest, StartsConfig
from hw5_planning_control.distillation import DistillationConfig
from hw5_planning_control.divide_and_conquer import DivideConfig
from hw5_planning_control.driving import DriveConfig, Driving
from hw5_planning_control.gps import GPSConfig
from hw5_planning_control.ilqr import ILQRConfig
from hw5_planning_control.lesson_trainer import teach
from hw5_planning_control.lqr_flm import FLMConfig
from hw5_planning_control.many_lakes import ExamConfig, ManyLakes, ManyLakesConfig
from hw5_planning_control.planners import (
    LQRConfig,
    Planner,
    ddp_planner,
    ilqr_planner,
    lqr_planner,
)
from hw5_planning_control.plato import PlatoConfig
from hw5_planning_control.pupils import ImitateConfig, Imitation, PupilConfig
from hw5_planning_control.shooting import (
    CEMConfig,
    CMAConfig,
    MPPIConfig,
    RandomConfig,
    ShootingConfig,
    cem_planner,
    cma_planner,
    mppi_planner,
    random_planner,
)
from hw5_planning_control.solving import (
    CollocationConfig,
    LearnConfig,
    ObstacleConfig,
    TrackConfig,
    keep_clear,
    learn_from_samples,
    solve_on_grids,
)
from hw5_planning_control.teaching import Guidance, RemapConfig, Remapping, TeachConfig
from hw5_planning_control.trainer import (
    ControlConfig,
    Controller,
    OptimizeConfig,
    control,
    optimize,
    pool,
)
from hw5_planning_control.tree_policy import MCTSConfig, model_of, tree_policy

HOMEWORK = "hw5_planning_control"
PLANNERS = {
    "lqr": lqr_planner,
    "ilqr": ilqr_planner,
    "ilqr-mpc": ilqr_planner,
    "ddp": ddp_planner,
    "random": random_planner,
    "cem": cem_planner,
    "mppi": mppi_planner,
    "cma-es": cma_planner,
}
COURSE = [env_id for env_id, task in TASKS.items() if isinstance(task, ControlTask)]
GAMES = ["course/Breakout-v0", "course/TicTacToe-v0", "course/ConnectThree-v0"]
SOLVERS = {  # what is no planner, and where it can be run
    CollocationConfig: (solve_on_grids, COURSE),
    ObstacleConfig: (keep_clear, ["course/CarDiscs-v0"]),
    FLMConfig: (learn_from_samples, COURSE),
}
LESSONS = {
    GPSConfig: (Guidance, COURSE),
    RemapConfig: (Remapping, ["course/PendulumSwingUp-v0"]),
    PlatoConfig: (Driving, ["course/CarForest-v0"]),
    ImitateConfig: (Imitation, [*TASKS, *GAMES]),
    ManyLakesConfig: (ManyLakes, ["FrozenLake-v1"]),
    DivideConfig: (Conquest, ["course/Lob-v0", *COURSE]),
}

Solving = CollocationConfig | ObstacleConfig | FLMConfig
Planning = LQRConfig | ILQRConfig | ShootingConfig | MCTSConfig
Teaching = GPSConfig | RemapConfig | PlatoConfig | ImitateConfig | ManyLakesConfig | DivideConfig
Loop = (
    OptimizeConfig
    | ControlConfig
    | TrackConfig
    | LearnConfig
    | TeachConfig
    | DriveConfig
    | PupilConfig
    | ExamConfig
    | StartsConfig
)


@dataclass(frozen=True, kw_only=True)
class RunConfig(cli.RunOptions):
    algo: Planning | Solving | Teaching  # settings of the planner or solver, or of what it teaches
    train: Loop = field(default_factory=OptimizeConfig)  # settings of the loop

    @property
    def is_cost(self) -> bool:
        """Is minus the return a cost, or the return a reward?"""
        return self.env_id in TASKS and self.env_id.startswith("course/")


PENDULUM = ControlConfig(horizon=40, replan_every=1)  # 50 episodes of 200 steps
PRESETS = {
    config.preset: config
    for config in (
        RunConfig(
            preset="ilqr-cartpole",
            env_id="course/CartPoleSwingUp-v0",
            video=True,
            algo=ILQRConfig(iterations=100, tolerance=0.01),
        ),
        RunConfig(
            preset="ilqr-pendulum",
            env_id="course/PendulumSwingUp-v0",
            algo=ILQRConfig(iterations=200, tolerance=1e-4),
        ),
        RunConfig(
            preset="ilqr-acrobot",
            env_id="course/AcrobotSwingUp-v0",
            algo=ILQRConfig(iterations=200),
            train=OptimizeConfig(start_std=0.0),
        ),
        RunConfig(
            preset="ddp-acrobot",
            env_id="course/AcrobotSwingUp-v0",
            algo=ILQRConfig(iterations=200),
            train=OptimizeConfig(start_std=0.0),
        ),
        RunConfig(
            preset="ilqr-quadrotor",
            env_id="course/Quadrotor-v0",
            algo=ILQRConfig(iterations=600, tolerance=1e-4),
            train=OptimizeConfig(start_std=0.01),
        ),
        RunConfig(
            preset="ddp-quadrotor",
            env_id="course/Quadrotor-v0",
            algo=ILQRConfig(iterations=600, tolerance=1e-4),
            train=OptimizeConfig(start_std=0.01),
        ),
        RunConfig(
            preset="ilqr-mpc-cartpole",
            env_id="course/CartPoleSwingUp-v0",
            algo=ILQRConfig(iterations=60, tolerance=0.1),
            train=ControlConfig(total_steps=1_000, noise=0.005, replan_every=10),
        ),
        RunConfig(
            preset="collocate-cartpole",
            env_id="course/CartPoleSwingUp-v0",
            algo=CollocationConfig(),
            train=TrackConfig(),
        ),
        RunConfig(
            preset="lagrangian-cardiscs",
            env_id="course/CarDiscs-v0",
            algo=ObstacleConfig(),
            train=TrackConfig(),
        ),
        RunConfig(
            preset="lqr-flm-pendulum",
            env_id="course/PendulumSwingUp-v0",
            algo=FLMConfig(rounds=20, epsilon=30.0),
            train=LearnConfig(),
        ),
        RunConfig(
            preset="lqr-doubleintegrator",
            env_id="course/DoubleIntegrator-v0",
            algo=LQRConfig(),
            train=ControlConfig(num_envs=40, noise=0.1),
        ),
        # Wide Gaussians, cut off at the limits, between knots close to each other.
        RunConfig(
            preset="cem-pendulum",
            env_id="Pendulum-v1",
            algo=CEMConfig(iterations=6, samples=200, elites=20, std=1.2, alpha=0.2, spacing=3, fresh=True),
            train=PENDULUM,
        ),
        RunConfig(
            preset="mppi-pendulum",
            env_id="Pendulum-v1",
            algo=MPPIConfig(iterations=4, samples=500, std=1.2, temperature=0.03, spacing=3, fresh=True),
            train=PENDULUM,
        ),
        RunConfig(
            preset="random-pendulum",
            env_id="Pendulum-v1",
            algo=RandomConfig(samples=800),
            train=PENDULUM,
        ),
        RunConfig(
            preset="cma-es-pendulum",
            env_id="Pendulum-v1",
            algo=CMAConfig(std=1.0, spacing=3),
            train=replace(PENDULUM, replan_every=4),  # one episode after the other takes its time
        ),
        RunConfig(
            preset="cem-halfcheetah",
            env_id="HalfCheetah-v5",
            algo=CEMConfig(iterations=3, samples=60, elites=6, alpha=0.1, spacing=2),
            train=ControlConfig(total_steps=1_000, num_envs=1, horizon=20, replan_every=1),
        ),
        RunConfig(
            preset="gps-pendulum",
            env_id="course/PendulumSwingUp-v0",
            algo=GPSConfig(),
            train=TeachConfig(),
        ),
        RunConfig(
            preset="remap-pendulum",
            env_id="course/PendulumSwingUp-v0",
            algo=RemapConfig(
                teacher=GPSConfig(rounds=12),
                pupil=PlatoConfig(plays="dagger", rounds=16, learning_steps=1_000, lr=2e-3, beta=0.6),
            ),
            train=TeachConfig(),
        ),
        RunConfig(
            preset="plato-car",
            env_id="course/CarForest-v0",
            algo=PlatoConfig(rounds=8, learning_steps=300, beta=0.0),
            train=DriveConfig(),
        ),
        RunConfig(
            preset="mcts-breakout",
            env_id="course/Breakout-v0",
            algo=MCTSConfig(),
            train=ControlConfig(total_steps=1_000, num_envs=5),
        ),
        # An opponent that plays by chance; the return is 1 won, -1 lost, 0 drawn.
        RunConfig(
            preset="mcts-tictactoe",
            env_id="course/TicTacToe-v0",
            algo=MCTSConfig(simulations=5_000, solve=True),
            train=ControlConfig(total_steps=1_000, num_envs=25),
        ),
        RunConfig(
            preset="mcts-connectthree",
            env_id="course/ConnectThree-v0",
            algo=MCTSConfig(simulations=1_000, solve=True),
            train=ControlConfig(total_steps=1_000, num_envs=25),
        ),
        RunConfig(
            preset="mcts-frozenlake",
            env_id="FrozenLake-v1",
            algo=MCTSConfig(simulations=500, horizon=100),
            train=ControlConfig(total_steps=1_000, num_envs=10),
        ),
        RunConfig(
            preset="imitate-mcts-breakout",
            env_id="course/Breakout-v0",
            algo=ImitateConfig(MCTSConfig(simulations=100, horizon=30), rounds=25),
            train=PupilConfig(),
        ),
        RunConfig(
            preset="imitate-mpc-pendulum",
            env_id="Pendulum-v1",
            algo=ImitateConfig(CEMConfig(), rounds=20),
            train=PupilConfig(),
        ),
        RunConfig(
            preset="distill-frozenlake",
            env_id="FrozenLake-v1",
            algo=ManyLakesConfig(DistillationConfig(epochs=150, lr=1e-2)),
            train=ExamConfig(),
        ),
        RunConfig(
            preset="divide-lob",
            env_id="course/Lob-v0",
            algo=DivideConfig(),
            train=StartsConfig(),
        ),
    )
}


class Work(NamedTuple):
    """A run, ready to begin."""

    total: int  # steps of what the curve counts
    go: Callable[[RunLogger, int], tuple[str, Metrics, Act | None]]  # -> status, scores, a policy to film
    parts: dict[str, object] = {}  # noqa: RUF012  # what a checkpoint restores
    xlabel: str = "rounds"


def search(config: RunConfig) -> Work:
    """Plan and execute, batch after batch of episodes."""
    train = config.train
    envs = registry.make_envs(config.env_id, train.num_envs)
    if train.noise:
        require(config.is_cost, f"noise must be 0 in {config.env_id}, whose dynamics are Gymnasium's own")
        envs.set_attr("noise", train.noise)
    tree = isinstance(config.algo, MCTSConfig)
    task = None if tree else task_of(config.env_id)

    def make(seed: int) -> Act:
        if tree:
            model = model_of(registry.make_env(config.env_id))
            return tree_policy(*model, config.algo, np.random.default_rng(seed))
        plan = planner_of(config)(task, config.algo, torch.Generator().manual_seed(seed))
        return Controller(plan, task, train.horizon, train.replan_every, train.feedback)

    star = make(child_seed(config.seed, "film"))

    def go(logger: RunLogger, step: int) -> tuple[str, Metrics, Act]:
        status = control(make, envs, logger, train, config.seed, step)
        rows = read_rows(logger.directory / "metrics.jsonl")
        return status, pool(row for row in rows if row["split"] == "eval"), star

    return Work(train.total_steps, go, xlabel="environment steps")


def optimization(config: RunConfig) -> Work:
    task = task_of(config.env_id)
    plan = planner_of(config)(task, config.algo, torch.Generator())
    envs = registry.make_envs(config.env_id, config.train.starts)

    def go(logger: RunLogger, step: int) -> tuple[str, Metrics, Act]:
        found, best = optimize(plan, task, envs, logger, config.train, config.seed)
        return "finished", found, Controller(lambda x, u: best, task)

    return Work(config.algo.iterations, go, xlabel="accepted steps of the optimiser")


def planner_of(config: RunConfig) -> Callable[..., Planner]:
    return PLANNERS[config.preset.rsplit("-", 1)[0]]


def solution(config: RunConfig) -> Work:
    solver, _ = SOLVERS[type(config.algo)]
    return Work(config.algo.rounds, lambda logger, step: ("finished", *solver(config, logger)))


def lesson(config: RunConfig) -> Work:
    make, _ = LESSONS[type(config.algo)]
    taught, rounds = make(config), config.algo.rounds

    def go(logger: RunLogger, step: int) -> tuple[str, Metrics, Act]:
        return teach(taught, logger, rounds, step), logger.last_eval, taught.act

    return Work(rounds, go, taught.parts)


def start_of(config: RunConfig, parts: dict[str, object]) -> dict:
    """Where a lesson goes on, its parts as they were then. An optimiser's few seconds are done again."""
    saved = checkpoint.load_latest(config.resume / "checkpoint") if config.resume and parts else None
    for name, part in parts.items() if saved else ():
        checkpoint.restore(part, saved["parts"][name])
    return saved or {"step": 0, "wall_s": 0.0}


def run(config: RunConfig) -> str:
    require(device.setup(config.device, config.threads).type == "cpu", "device must be cpu for this homework")
    began = time.perf_counter()
    seed_everything(config.seed)
    kind, searches = type(config.algo), isinstance(config.train, ControlConfig)
    _, places = (LESSONS | SOLVERS).get(kind, (None, [config.env_id]))
    require(config.env_id in places, f"env_id must be one of {', '.join(places)}, got {config.env_id}")
    if config.resume and not searches:
        require(not is_finished(config.resume), f"{config.resume} is finished")
    prepare = lesson if kind in LESSONS else solution if kind in SOLVERS else optimization
    work = (search if searches else prepare)(config)
    start = resume_point(config, torch.device("cpu")) if searches else start_of(config, work.parts)
    directory = cli.run_directory(config, HOMEWORK)
    wall_s = start["wall_s"] + time.perf_counter() - began
    logger = RunLogger(directory, work.total, start["step"], wall_s)
    status, found = "failed", {}
    try:
        status, found, act = work.go(logger, start["step"])
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        command = shlex.join(["python", "-m", f"{HOMEWORK}.run", *sys.argv[1:]])
        logger.close(status, **found, command=command, device="cpu")
    if status == "interrupted":
        print(f"interrupted; go on with: python -m {HOMEWORK}.run --resume {shlex.quote(str(directory))}")
        return status
    print(f"curve: {opener()} {plot_run(directory, xlabel=work.xlabel, cost=config.is_cost)}")
    if config.video:
        path = directory / "video" / f"{config.preset}.mp4"
        if film(act, config.env_id, path, child_seed(config.seed, "video")):
            print(f"video: {opener()} {path}")
    mean = -found["return_mean"] if config.is_cost else found["return_mean"]
    print(
        f"final {'cost' if config.is_cost else 'return'} {mean:.6g} +- {found['return_std']:.6g} "
        f"over {found['episodes']} episodes, {logger.wall_s:.1f} s, {directory}"
    )
    return status


if __name__ == "__main__":
    cli.main(PRESETS, default="ilqr-cartpole", run=run)
