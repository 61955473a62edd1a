"""The loop of gradient-free search: play a generation of whole episodes, learn from it, evaluate, save."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium as gym

from common import checkpoint
from common.evaluation import evaluate
from common.logger import RunLogger
from common.population import Episodes, Search
from common.seeding import child_seed
from common.types import require, require_at_least


@dataclass(frozen=True)
class EvolutionTrainConfig:
    total_steps: int = 50_000  # environment steps in episodes of members, rounded up to whole generations
    num_envs: int = 16  # N, members that play side by side; divides the population
    workers: int = 1  # processes that play; their number changes the time only
    eval_every: int = 5_000  # environment steps between evaluations
    eval_episodes: int = 20  # whole episodes per evaluation
    save_every: int = 50_000  # environment steps between checkpoints

    def __post_init__(self):
        require_at_least(self, 1, *vars(self))
        for name in ("num_envs", "workers", "eval_episodes"):
            value = getattr(self, name)
            require(value < 2**16, f"{name} must lie in [1, 65535], got {value}")


def train(
    search: Search,
    play: Callable[[int], Episodes],
    eval_envs: gym.vector.VectorEnv,
    logger: RunLogger,
    config: EvolutionTrainConfig,
    seed: int,
    step: int = 0,
) -> str:
    """From environment step `step` to the end; "finished", or "interrupted" by Ctrl-C, checkpoint saved.

    play(step) is the generation that begins at `step`.
    """
    end, every = config.total_steps, config.eval_every

    def score(step: int) -> None:
        logger.write("eval", step, evaluate(search.act, eval_envs, child_seed(seed, "eval", step)))

    with checkpoint.stop_signals() as stop:
        stopping = False
        while step < end and not stopping:
            started, before = logger.wall_s, step
            episodes = play(step)
            stopping, step = bool(stop), step + episodes.steps
            speed = {"speed/steps_per_s": episodes.steps / (logger.wall_s - started)}
            # Up to the last step of its generation a policy is the newest there is.
            for passed in range(before - before % every + every, min(step, end + 1), every):
                score(passed)
            metrics = search.update(episodes)
            returns = {
                "rollout/return_mean": float(episodes.returns.mean()),
                "rollout/return_max": float(episodes.returns.max()),
            }
            logger.write("train", step, metrics | returns | speed)
            checkpoint.require_finite(search, step)
            over = step >= end
            if over or step % every == 0:
                score(step)
            if over or stopping or step // config.save_every > before // config.save_every:
                state = checkpoint.state_of(search)
                checkpoint.save(logger.directory / "checkpoint", step, wall_s=logger.wall_s, agent=state)
    return "finished" if step >= end else "interrupted"
