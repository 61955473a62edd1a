"""What every run of an agent does before and after its training: resume, and tell how it went."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from common import checkpoint
from common.cli import RunOptions
from common.logger import RunLogger
from common.results import plot_run
from common.seeding import child_seed
from common.types import require
from common.video import film, opener


def resume_point(config: RunOptions, device: torch.device) -> dict:
    """The newest checkpoint of the resumed run, or of a new run the empty one: step, wall_s, and what was
    saved with them."""
    start = {"step": 0, "wall_s": 0.0}
    if not config.resume:
        return start
    finished = is_finished(config.resume)
    saved = checkpoint.load_latest(config.resume / "checkpoint", device)
    if saved is None:
        require(not finished, f"{config.resume} has lost its checkpoints; start the run anew")
        return start
    left = config.train.total_steps - saved["step"]
    require(left > 0 or not finished, f"{config.resume} is finished; raise --train.total-steps to go on")
    return saved


def is_finished(directory: Path) -> bool:
    """Did the run come to its end? A killed one has no summary, a failed or interrupted one says so in it."""
    summary = directory / "summary.json"
    return summary.exists() and json.loads(summary.read_text())["status"] == "finished"


def curve(config: RunOptions, directory: Path) -> Path:
    """The picture of a run's evaluations, beside the return at which its environment counts as solved."""
    threshold = gym.spec(config.env_id).reward_threshold
    return plot_run(directory, {} if threshold is None else {"solved": threshold})


def conclude(
    config: RunOptions,
    homework: str,
    status: str,
    logger: RunLogger,
    act: Callable[[np.ndarray], np.ndarray],
    draw: Callable[[RunOptions, Path], Path] = curve,
) -> str:
    """Tell where the curve and the film of `act` are, or how to go on; gives `status` back."""
    directory: Path = logger.directory
    if status == "interrupted":
        print(f"interrupted; go on with: python -m {homework}.run --resume {shlex.quote(str(directory))}")
        return status
    print(f"curve: {opener()} {draw(config, directory)}")
    if config.video:
        path = directory / "video" / f"{config.preset}.mp4"
        if film(act, config.env_id, path, child_seed(config.seed, "video")):
            print(f"video: {opener()} {path}")
    scores = logger.last_eval
    print(
        f"final return {scores['return_mean']:.1f} +- {scores['return_std']:.1f} "
        f"over {scores['episodes']} episodes, {logger.wall_s:.1f} s, {directory}"
    )
    return status
