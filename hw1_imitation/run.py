"""python -m hw1_imitation.run dagger-inverteddoublependulum --seed 3 --algo.beta 0.5"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from common import checkpoint, cli, device
from common.envs import registry
from common.evaluation import evaluate
from common.logger import RunLogger
from common.seeding import child_seed, generator, seed_everything
from common.session import conclude, resume_point
from common.types import EnvSpec, require
from hw1_imitation.behavior_cloning import BCConfig, BehaviorCloning
from hw1_imitation.dagger import DaggerConfig, ask
from hw1_imitation.demonstrations import Act, Demonstrations, collect, load
from hw1_imitation.experts import EXPERTS, expert
from hw1_imitation.picture import draw
from hw1_imitation.trainer import TrainConfig, train

HOMEWORK = "hw1_imitation"


@dataclass(frozen=True, kw_only=True)
class RunConfig(cli.RunOptions):
    algo: DaggerConfig | BCConfig  # settings of the policy
    train: TrainConfig = field(default_factory=TrainConfig)  # settings of the loop


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
    )
}


def first_demonstrations(config: RunConfig, spec: EnvSpec, teacher: Act | None) -> Demonstrations:
    """From the file, or of the expert."""
    if not config.train.data:
        envs = registry.make_envs(config.env_id, 1)
        steps, seed = config.train.demonstrations, child_seed(config.seed, "demonstrations")
        return collect(teacher, teacher, envs, steps, seed)
    data, origin = load(Path(config.train.data))
    ok = origin.env_id == config.env_id
    require(ok, f"data must be of {config.env_id}, got {config.train.data} of {origin.env_id!r}")
    data.require_fits(spec)
    return data


def run(config: RunConfig) -> str:
    torch_device = device.setup(config.device, config.threads)
    seed_everything(config.seed)
    envs = registry.make_envs(config.env_id, 1)
    eval_envs = registry.make_envs(config.env_id, config.train.eval_episodes)
    spec, seed = registry.spec(envs), config.seed
    asks = isinstance(config.algo, DaggerConfig)
    teacher = expert(config.env_id) if asks or not config.train.data or config.env_id in EXPERTS else None
    first = first_demonstrations(config, spec, teacher)
    data, validation = first.split(config.train.validation, generator(seed, "split"))
    learner = BehaviorCloning(spec, config.algo, torch_device, seed)
    clone = (BehaviorCloning(spec, config.algo, torch_device, seed), data) if config.train.compare else None
    start = resume_point(config, torch_device)
    if "learner" in start:
        checkpoint.restore(learner, start["learner"])
        data = Demonstrations(**{name: tensor.cpu() for name, tensor in start["data"].items()})
        if clone:
            checkpoint.restore(clone[0], start["clone"])

    def more(i: int) -> Demonstrations:
        return ask(learner.act, teacher, envs, config.algo, i, seed)

    directory = cli.run_directory(config, HOMEWORK)
    logger = RunLogger(directory, config.train.total_steps, start["step"], start["wall_s"])
    status, train_args = "failed", (data, validation, more if asks else None, clone)
    try:
        status = train(learner, *train_args, eval_envs, logger, config.train, seed, start["step"])
    finally:
        command = shlex.join(["python", "-m", f"{HOMEWORK}.run", *sys.argv[1:]])
        logger.close(status, command=command, device=str(torch_device))
    return conclude(config, HOMEWORK, status, logger, learner.act, partial(curve, teacher))


def curve(teacher: Act | None, config: RunConfig, directory: Path) -> Path:
    """The picture of the run, beside what the expert earns."""
    told = None
    if teacher:
        envs = registry.make_envs(config.env_id, config.train.eval_episodes)
        told = evaluate(teacher, envs, child_seed(config.seed, "expert"))["return_mean"]
        print(f"expert: {told:.1f}")
    return draw(directory, f"{config.preset}, seed {config.seed}", told)


if __name__ == "__main__":
    cli.main(PRESETS, default="dagger-inverteddoublependulum", run=run)
