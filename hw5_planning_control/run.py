"""python -m hw5_planning_control.run ilqr-acrobot --seed 3 --algo.tolerance 1e-8"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from common import checkpoint, cli, device
from common.envs import registry
from common.envs.control_tasks import TASKS, ControlTask, task_of
from common.logger import RunLogger, read_rows
from common.results import plot_run
from common.seeding import child_seed, seed_everything
from common.types import require
from common.video import film, opener
from hw5_planning_control.distillation import DistillationConfig
from hw5_planning_control.divide_and_conquer import DivideConfig
from hw5_planning_control.driving import DriveConfig, drive
from hw5_planning_control.gps import GPSConfig
from hw5_planning_control.ilqr import ILQRConfig
from hw5_planning_control.lqr_flm import FLMConfig
from hw5_planning_control.planners import (
    LQRConfig,
    ddp_planner,
    ilqr_planner,
    lqr_planner,
)
from hw5_planning_control.plato import PlatoConfig
from hw5_planning_control.pupils import (
    ExamConfig,
    ImitateConfig,
    ManyLakesConfig,
    PupilConfig,
    StartsConfig,
    conquer,
    imitate,
    master_lakes,
)
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
from hw5_planning_control.teaching import RemapConfig, TeachConfig, guide, remap
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
TREES = ["course/Breakout-v0", "course/TicTacToe-v0", "course/ConnectThree-v0", "FrozenLake-v1"]
LESSONS = {  # what is no planner, and where it can be run
    CollocationConfig: (solve_on_grids, COURSE),
    ObstacleConfig: (keep_clear, ["course/CarDiscs-v0"]),
    FLMConfig: (learn_from_samples, COURSE),
    GPSConfig: (guide, COURSE),
    RemapConfig: (remap, ["course/PendulumSwingUp-v0"]),
    PlatoConfig: (drive, ["course/CarForest-v0"]),
    ImitateConfig: (imitate, [*TASKS, *TREES]),
    ManyLakesConfig: (master_lakes, ["FrozenLake-v1"]),
    DivideConfig: (conquer, ["course/Lob-v0", *COURSE]),
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
            algo=CEMConfig(iterations=4, samples=60, elites=6, alpha=0.1, spacing=1),
            train=ControlConfig(total_steps=1_000, num_envs=1, horizon=12, replan_every=1),
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
                pupil=PlatoConfig(plays="dagger", rounds=12, learning_steps=1_000, lr=2e-3, beta=0.6),
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
            algo=MCTSConfig(simulations=1_000),
            train=ControlConfig(total_steps=1_000, num_envs=25),
        ),
        RunConfig(
            preset="mcts-connectthree",
            env_id="course/ConnectThree-v0",
            algo=MCTSConfig(simulations=1_000),
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


def run(config: RunConfig) -> str:
    require(device.setup(config.device, config.threads).type == "cpu", "device must be cpu for this homework")
    seed_everything(config.seed)
    train = config.train
    tree = isinstance(config.algo, MCTSConfig)
    lesson, places = LESSONS.get(type(config.algo), (None, [config.env_id]))
    require(config.env_id in places, f"env_id must be one of {', '.join(places)}, got {config.env_id}")
    task = None if tree or lesson else task_of(config.env_id)
    search = isinstance(train, ControlConfig)
    envs = registry.make_envs(config.env_id, train.num_envs if search else 1 if lesson else train.starts)
    if search and train.noise:
        require(config.is_cost, f"noise must be 0 in {config.env_id}, whose dynamics are Gymnasium's own")
        envs.set_attr("noise", train.noise)
    start = {"step": 0, "wall_s": 0.0}
    if config.resume and (saved := checkpoint.load_latest(config.resume / "checkpoint")):
        start = saved
    if config.resume and (config.resume / "summary.json").exists():
        left = search and start["step"] < train.total_steps
        require(left, f"{config.resume} is finished" + ("; raise --train.total-steps to go on" * search))
    start = start if search else {"step": 0, "wall_s": 0.0}  # an optimiser's few seconds are done again
    planner = PLANNERS.get(config.preset.rsplit("-", 1)[0])

    def make_controller(seed: int) -> Callable[[np.ndarray], np.ndarray]:
        if tree:
            return tree_policy(
                *model_of(registry.make_env(config.env_id)), config.algo, np.random.default_rng(seed)
            )
        plan = planner(task, config.algo, torch.Generator().manual_seed(seed))
        return Controller(plan, task, train.horizon, train.replan_every, train.feedback)

    directory = cli.run_directory(config, HOMEWORK)
    total = train.total_steps if search else config.algo.rounds if lesson else config.algo.iterations
    logger = RunLogger(directory, total, start["step"], start["wall_s"])
    status, found = "failed", {}
    try:
        if search:
            status = control(make_controller, envs, logger, train, config.seed, start["step"])
            found = pool(row for row in read_rows(directory / "metrics.jsonl") if row["split"] == "eval")
            controller = make_controller(child_seed(config.seed, "film"))
        elif lesson:
            found, controller = lesson(config, logger)
            status = "finished"
        else:
            plan = planner(task, config.algo, torch.Generator())
            found, best = optimize(plan, task, envs, logger, train, config.seed)
            status, controller = "finished", Controller(lambda x, u: best, task)
    finally:
        command = shlex.join(["python", "-m", f"{HOMEWORK}.run", *sys.argv[1:]])
        logger.close(status, **found, command=command, device="cpu")
        envs.close()
    if status == "interrupted":
        print(f"interrupted; go on with: python -m {HOMEWORK}.run --resume {shlex.quote(str(directory))}")
        return status
    xlabel = "environment steps" if search else "rounds" if lesson else "accepted steps of the optimiser"
    print(f"curve: {opener()} {plot_run(directory, xlabel=xlabel, cost=config.is_cost)}")
    if config.video:
        path = directory / "video" / f"{config.preset}.mp4"
        if film(controller, config.env_id, path, child_seed(config.seed, "video")):
            print(f"video: {opener()} {path}")
    mean = -found["return_mean"] if config.is_cost else found["return_mean"]
    print(
        f"final {'cost' if config.is_cost else 'return'} {mean:.6g} +- {found['return_std']:.6g} "
        f"over {found['episodes']} episodes, {logger.wall_s:.1f} s, {directory}"
    )
    return status


if __name__ == "__main__":
    cli.main(PRESETS, default="ilqr-cartpole", run=run)
