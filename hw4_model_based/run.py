"""python -m hw4_model_based.run mpc-obstacles --seed 3 --algo.search random"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field

from common import checkpoint, cli, device
from common.envs import registry
from common.envs.model_tasks import model_task
from common.logger import RunLogger
from common.replay import Replay
from common.rollout import Collector
from common.seeding import seed_everything
from common.session import conclude, resume_point
from common.types import require
from hw4_model_based.dynamics import DynamicsConfig
from hw4_model_based.mpc import MPC, MPCConfig
from hw4_model_based.pets import PETS, PETSConfig
from hw4_model_based.trainer import TrainConfig, train

HOMEWORK = "hw4_model_based"
AGENTS = {MPCConfig: MPC, PETSConfig: PETS}


@dataclass(frozen=True, kw_only=True)
class RunConfig(cli.RunOptions):
    algo: MPCConfig | PETSConfig  # settings of the model and the planner
    train: TrainConfig = field(default_factory=TrainConfig)  # settings of the loop


# CS 285's: means only.
MEAN = DynamicsConfig(
    members=3, elites=3, hidden=(128, 128), probabilistic=False, max_epochs=100, patience=10
)
PRESETS = {
    config.preset: config
    for config in (
        RunConfig(
            preset="mpc-obstacles",
            env_id="course/Obstacles-v0",
            algo=MPCConfig(horizon=10, samples=80, iterations=3, elites=8, model=MEAN),
            train=TrainConfig(total_steps=4_000, initial_steps=2_000, num_envs=5, trial_steps=100),
        ),
        RunConfig(
            preset="pets-cartpole",
            env_id="course/CartPoleSwingUpDense-v0",
            algo=PETSConfig(horizon=20, samples=100, iterations=3, elites=10),
            train=TrainConfig(total_steps=3_000),
        ),
        RunConfig(
            preset="pets-pendulum",
            env_id="Pendulum-v1",
            algo=PETSConfig(horizon=20, samples=100, iterations=3, elites=10),
            train=TrainConfig(total_steps=2_000),
        ),
        RunConfig(
            preset="pets-invertedpendulum",
            env_id="InvertedPendulum-v5",
            algo=PETSConfig(horizon=15, samples=60, iterations=2, elites=6),
            train=TrainConfig(total_steps=1_000, trial_steps=100),
        ),
    )
}


def run(config: RunConfig) -> str:
    cpu = device.setup(config.device, config.threads)
    require(cpu.type == "cpu", f"device must be cpu for this homework, got {cpu.type}")
    seed_everything(config.seed)
    task = model_task(config.env_id)
    envs = registry.make_envs(config.env_id, config.train.num_envs)
    spec = registry.spec(envs)
    agent = AGENTS[type(config.algo)](spec, task, config.algo, config.seed)
    replay = Replay(config.train.end, spec, cpu)
    start = resume_point(config, cpu)
    if "agent" in start:
        checkpoint.restore(agent, start["agent"])
        replay.load_state_dict(start["replay"])
    directory = cli.run_directory(config, HOMEWORK)
    logger = RunLogger(directory, config.train.end, start["step"], start["wall_s"])
    status = "failed"
    try:
        collector = Collector(envs, cpu)
        status = train(agent, collector, replay, logger, config.train, config.seed, start["step"])
    finally:
        command = shlex.join(["python", "-m", f"{HOMEWORK}.run", *sys.argv[1:]])
        logger.close(status, command=command, device="cpu")
        envs.close()
    return conclude(config, HOMEWORK, status, logger, agent.act)


if __name__ == "__main__":
    cli.main(PRESETS, default="mpc-obstacles", run=run)
