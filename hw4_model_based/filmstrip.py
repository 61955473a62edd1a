"""What happened beside what was foreseen, picture by picture.

The agent plays from the first picture of an episode. Then its model is shown that picture once more, and
asked what the same actions lead to; it sees no other picture in between.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from common.envs.registry import make_env
from common.filmstrip import draw, spread
from common.types import begin


class Dreamer(Protocol):
    """An agent that can say what it expects to see."""

    act: Callable[[np.ndarray], np.ndarray]

    def show(self, obs: Tensor) -> Tensor:
        """What obs [N, D] shows, for people: [N, SIZE, SIZE] or [N, SIZE, SIZE, 3] in [0, 1]."""

    def imagine(self, obs: Tensor, actions: Tensor) -> Tensor:
        """What obs [N, D], an episode's first and the last that `act` was shown, and then the actions
        [T, N, K] lead to: [T+1, ...], as `show` has it."""


def play(agent: Dreamer, env_id: str, seed: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures that were seen and that were foreseen in one episode of at most `steps` steps, [T+1, ...]."""
    env = make_env(env_id)
    obs, _ = env.reset(seed=seed)
    seen, actions, over = [obs], [], False
    begin(agent.act, np.ones(1, bool))
    while len(actions) < steps and not over:
        actions.append(np.clip(agent.act(seen[-1][None]), -1, 1))
        obs, _, terminated, truncated, _ = env.step(actions[-1][0])
        seen.append(obs)
        over = terminated or truncated
    env.close()
    begin(agent.act, np.ones(1, bool))
    agent.act(seen[0][None])
    first = torch.from_numpy(seen[0][None])
    with torch.no_grad():
        foreseen = agent.imagine(first, torch.from_numpy(np.stack(actions)).float())[:, 0]
        shown = agent.show(torch.from_numpy(np.stack(seen)))
    return shown.numpy(), foreseen.numpy()


def film(agent: Dreamer, env_id: str, seed: int, path: Path, steps: int = 16) -> Path:
    """One PNG."""
    pictures = dict(zip(("seen", "foreseen"), play(agent, env_id, seed, steps), strict=True))
    chosen = spread(len(pictures["seen"]))
    draw({name: row[chosen].clip(0, 1) for name, row in pictures.items()}, chosen).savefig(path, dpi=100)
    return path
