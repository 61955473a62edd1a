"""python -m hw1_imitation.run dagger-inverteddoublependulum --seed 3 --algo.beta 0.5"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from common import checkpoint, cli, device
from common.envs import registry
from common.envs.lane_keeping import steer_back
from common.evaluation import evaluate
from common.logger import RunLogger
from common.seeding import child_seed, generator, seed_everything
from common.session import conclude, resume_point
from common.types import EnvSpec, require
from hw1_imitation.autoregressive import Autoregressive, AutoregressiveConfig
from hw1_imitation.behavior_cloning import BCConfig, BehaviorCloning
from hw1_imitation.corrective_data import Shaken, three_cameras
from hw1_imitation.cvae import CVAE, CVAEConfig
from hw1_imitation.dagger import DaggerConfig, ask
from hw1_imitation.demonstrations import Act, Demonstrations, collect, load
from hw1_imitation.experts import KNOWN, expert
from hw1_imitation.flow_matching import FlowConfig, FlowMatching
from hw1_imitation.goal_conditioned import GoalCloning, GoalConfig, practise
from hw1_imitation.keyboard import Keyboard
from hw1_imitation.mixture_density import MixtureConfig, MixtureDensity
from hw1_imitation.picture import draw
from hw1_imitation.recurrent import HistoryCloning, HistoryConfig, RecurrentCloning, RecurrentConfig
from hw1_imitation.trainer import TrainConfig, train

HOMEWORK = "hw1_imitation"
GOALS = ("course/PointMaze-v0",)  # whose observations are [state, goal]
PLAYERS = 10  # environments that goals are practised in
AGENTS = {
    BCConfig: BehaviorCloning,
    DaggerConfig: BehaviorCloning,
    MixtureConfig: MixtureDensity,
    CVAEConfig: CVAE,
    AutoregressiveConfig: Autoregressive,
    FlowConfig: FlowMatching,
    HistoryConfig: HistoryCloning,
    RecurrentConfig: RecurrentCloning,
    GoalConfig: GoalCloning,
}
Algo = (
    DaggerConfig
    | BCConfig
    | MixtureConfig
    | CVAEConfig
    | AutoregressiveConfig
    | FlowConfig
    | HistoryConfig
    | RecurrentConfig
    | GoalConfig
)


@dataclass(frozen=True, kw_only=True)
class RunConfig(cli.RunOptions):
    algo: Algo  # settings of the policy
    expert: Literal["known", "keyboard"] = "known"  # or a human at the arrow keys, on course/LaneKeeping-v0
    train: TrainConfig = field(default_factory=TrainConfig)  # settings of the loop


TWO_WAY = TrainConfig(total_steps=6_000, round_steps=1_000, demonstrations=10_000, eval_episodes=100)
BLIND, LANE = "course/CartPoleNoVelocity-v0", "course/LaneKeeping-v0"
DRIVE = TrainConfig(total_steps=1_500, demonstrations=200, eval_episodes=10)
LONG = TrainConfig(demonstrations=10_000, eval_episodes=10)
CLONE = TrainConfig(
    total_steps=10_000, round_steps=1_000, batch_size=256, demonstrations=10_000, eval_episodes=10
)
SHOWN_LITTLE = replace(CLONE, total_steps=12_000, demonstrations=200)
ASK = DaggerConfig(labels=1_000)
PRESETS = {
    config.preset: config
    for config in (
        RunConfig(
            preset="dagger-inverteddoublependulum",
            env_id="InvertedDoublePendulum-v5",
            algo=DaggerConfig(),
            train=TrainConfig(compare=True),
        ),
        RunConfig(preset="bc-inverteddoublependulum", env_id="InvertedDoublePendulum-v5", algo=BCConfig()),
        RunConfig(preset="dagger-invertedpendulum", env_id="InvertedPendulum-v5", algo=DaggerConfig()),
        RunConfig(preset="bc-invertedpendulum", env_id="InvertedPendulum-v5", algo=BCConfig()),
        RunConfig(preset="dagger-cartpole", env_id="CartPole-v1", algo=DaggerConfig()),
        RunConfig(preset="bc-cartpole", env_id="CartPole-v1", algo=BCConfig()),
        # The expert sees no velocities and takes differences.
        RunConfig(preset="bc-cartpolenovelocity", env_id=BLIND, algo=BCConfig(), train=LONG),
        RunConfig(preset="history-cartpolenovelocity", env_id=BLIND, algo=HistoryConfig(), train=LONG),
        RunConfig(preset="recurrent-cartpolenovelocity", env_id=BLIND, algo=RecurrentConfig(), train=LONG),
        # The expert stays in the middle of its lane and never shows how to come back to it.
        RunConfig(preset="bc-lanekeeping", env_id=LANE, algo=BCConfig(), train=DRIVE),
        RunConfig(preset="dagger-lanekeeping", env_id=LANE, algo=DaggerConfig(labels=100), train=DRIVE),
        RunConfig(preset="noise-lanekeeping", env_id=LANE, algo=BCConfig(), train=replace(DRIVE, noise=0.3)),
        RunConfig(
            preset="cameras-lanekeeping", env_id=LANE, algo=BCConfig(), train=replace(DRIVE, cameras=0.4)
        ),
        # No expert: what was played by chance is relabelled with where it led.
        RunConfig(
            preset="gcsl-pointmaze",
            env_id="course/PointMaze-v0",
            algo=GoalConfig(),
            train=TrainConfig(total_steps=16_000, round_steps=2_000, batch_size=256, eval_episodes=100),
        ),
        # Experts that homework 2 trained: trained_experts.py.
        RunConfig(preset="bc-halfcheetah", env_id="HalfCheetah-v5", algo=BCConfig(), train=CLONE),
        RunConfig(preset="bc-ant", env_id="Ant-v5", algo=BCConfig(), train=CLONE),
        RunConfig(preset="bc-hopper", env_id="Hopper-v5", algo=BCConfig(), train=SHOWN_LITTLE),
        RunConfig(preset="dagger-hopper", env_id="Hopper-v5", algo=ASK, train=SHOWN_LITTLE),
        RunConfig(preset="bc-walker2d", env_id="Walker2d-v5", algo=BCConfig(), train=SHOWN_LITTLE),
        RunConfig(preset="dagger-walker2d", env_id="Walker2d-v5", algo=ASK, train=SHOWN_LITTLE),
        # The expert passes a tree now on this side, now on that.
        RunConfig(preset="bc-twoway", env_id="course/TwoWay-v0", algo=BCConfig(), train=TWO_WAY),
        RunConfig(preset="mixture-twoway", env_id="course/TwoWay-v0", algo=MixtureConfig(), train=TWO_WAY),
        RunConfig(
            preset="cvae-twoway",
            env_id="course/TwoWay-v0",
            algo=CVAEConfig(latents=1),
            train=replace(TWO_WAY, total_steps=10_000),
        ),
        RunConfig(
            preset="autoregressive-twoway",
            env_id="course/TwoWay-v0",
            algo=AutoregressiveConfig(),
            train=TWO_WAY,
        ),
        RunConfig(
            preset="flow-twoway",
            env_id="course/TwoWay-v0",
            algo=FlowConfig(hidden=(128, 128)),
            train=TWO_WAY,
        ),
    )
}


def first_demonstrations(config: RunConfig, spec: EnvSpec, teacher: Act | None) -> Demonstrations:
    """From the file, or of the expert."""
    train, seed = config.train, child_seed(config.seed, "demonstrations")
    if not train.data:
        envs = registry.make_envs(config.env_id, 1)
        if train.cameras:
            ok = config.env_id == LANE
            require(ok, f"cameras must be 0 where there is no camera, as in {config.env_id}")
            return three_cameras(teacher, envs, train.demonstrations, train.cameras, steer_back, seed)
        if train.noise:
            require(not spec.discrete, "noise must be 0 where actions are discrete")
            shaken = Shaken(train.noise, np.random.default_rng(child_seed(config.seed, "noise")))
            return collect(teacher, envs, train.demonstrations, seed, shaken)
        return collect(teacher, envs, train.demonstrations, seed)
    data, origin = load(Path(config.train.data))
    ok = origin.env_id == config.env_id
    require(ok, f"data must be of {config.env_id}, got {config.train.data} of {origin.env_id!r}")
    data.require_fits(spec)
    return data


def run(config: RunConfig) -> str:
    torch_device = device.setup(config.device, config.threads)
    seed_everything(config.seed)
    practises = isinstance(config.algo, GoalConfig)
    envs = registry.make_envs(config.env_id, PLAYERS if practises else 1)
    eval_envs = registry.make_envs(config.env_id, config.train.eval_episodes)
    spec, seed = registry.spec(envs), config.seed
    asks = isinstance(config.algo, DaggerConfig)
    if practises:
        require(
            config.env_id in GOALS, f"env_id must show a goal, as {', '.join(GOALS)}, got {config.env_id!r}"
        )
        c = config.train
        alone = config.expert == "known" and not (c.data or c.noise or c.cameras)
        require(alone, "expert, data, noise and cameras must be left out where goals are practised")
    taught = not practises and (asks or not config.train.data or config.env_id in KNOWN)
    human = taught and config.expert == "keyboard"
    driver = Keyboard(config.env_id) if human else None

    def teacher(i: int) -> Act:
        """Of round i: what an expert draws does not depend on where the run was resumed."""
        return driver or expert(config.env_id, child_seed(seed, "expert", i))

    kind = AGENTS[type(config.algo)]
    learner = kind(spec, config.algo, torch_device, seed)

    def more(i: int) -> Demonstrations:
        if practises:
            return practise(learner.act, envs, spec, config.algo, i, seed)
        return ask(learner.act, teacher(i), envs, config.algo, i, seed)

    start = resume_point(config, torch_device)
    if "learner" in start:  # nobody is asked again for what was shown before
        checkpoint.restore(learner, start["learner"])
        data, validation, shown = (
            Demonstrations(**{name: x.cpu() for name, x in start[key].items()}) if key in start else None
            for key in ("data", "validation", "clone_data")
        )
    else:
        first = more(0) if practises else first_demonstrations(config, spec, teacher(0) if taught else None)
        match config.algo:
            case FlowConfig():
                first = first.chunked(config.algo.chunk)
            case HistoryConfig() | RecurrentConfig():
                first = first.with_history(config.algo.window)
        shown, validation = first.split(config.train.validation, generator(seed, "split"))
        data = shown
    clone = (kind(spec, config.algo, torch_device, seed), shown) if config.train.compare else None
    if clone and "clone" in start:
        checkpoint.restore(clone[0], start["clone"])

    directory = cli.run_directory(config, HOMEWORK)
    logger = RunLogger(directory, config.train.total_steps, start["step"], start["wall_s"])
    status, train_args = "failed", (data, validation, more if asks or practises else None, clone)
    try:
        status = train(learner, *train_args, eval_envs, logger, config.train, seed, start["step"])
    finally:
        command = shlex.join(["python", "-m", f"{HOMEWORK}.run", *sys.argv[1:]])
        logger.close(status, command=command, device=str(torch_device))
    known = teacher(0) if taught and not human else None
    return conclude(config, HOMEWORK, status, logger, learner.act, partial(curve, known))


def curve(teacher: Act | None, config: RunConfig, directory: Path) -> Path:
    """The picture of the run, beside what the expert earns."""
    told = None
    if teacher:
        envs = registry.make_envs(config.env_id, config.train.eval_episodes)
        told = evaluate(teacher, envs, child_seed(config.seed, "expert"))["return_mean"]
        print(f"expert: {told:.1f}")
    match config.algo:
        case DaggerConfig():
            names = "DAgger", "labels of the expert"
        case GoalConfig():
            names = "GCSL", "relabelled pairs"
        case _:
            names = "cloning", "labels of the expert"
    return draw(directory, f"{config.preset}, seed {config.seed}", *names, told)


if __name__ == "__main__":
    cli.main(PRESETS, default="dagger-inverteddoublependulum", run=run)
