"""Whole episodes of a population of policies, in this process or in many.

A member is known by its number: whoever holds a copy of the search draws its parameters from that. So each
of W workers holds a copy; it is told the returns of the last generation and answers with those of its own
members, and neither parameters nor noise are ever sent (Salimans et al. 2017, algorithm 2). N members play
side by side in one vector environment; which N is settled by their numbers: W changes nothing but the time.
"""

from __future__ import annotations

import io
import multiprocessing
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple, Protocol

import gymnasium as gym
import numpy as np
import torch

from common import checkpoint
from common.evaluation import Act, first_episodes
from common.seeding import child_seed, seed_everything
from common.types import Metrics, UsageError, require


class Episodes(NamedTuple):
    """One of each of M members."""

    returns: np.ndarray  # [M] float64, undiscounted
    steps: int  # environment steps in all of them
    obs_mean: np.ndarray  # [D] float64, over those steps
    obs_var: np.ndarray  # [D] float64


class Search(Protocol):
    """Proposes members and learns from their returns. Saved and evaluated like an Agent."""

    population: int  # members in a generation
    act: Act  # of the policy as evaluated

    def members(self, first: int, count: int) -> Act:
        """The policies `first` ... `first + count - 1` of this generation, each in its own environment."""

    def update(self, episodes: Episodes) -> Metrics:
        """Learn from the whole generation; the next one begins."""


def play(search: Search, envs: gym.vector.VectorEnv, first: int, seed: int) -> Episodes:
    """The members from `first` on, one in each environment. After its end an environment is not counted."""
    policy, seen = search.members(first, envs.num_envs), []

    def act(obs: np.ndarray) -> np.ndarray:
        seen.append(obs)
        return policy(obs)

    returns, length, _ = first_episodes(act, envs, seed)
    obs = np.stack(seen)[np.arange(len(seen))[:, None] < length].astype(np.float64)
    return Episodes(returns, len(obs), obs.mean(0), obs.var(0))


def merge(parts: list[Episodes]) -> Episodes:
    """All of them, in this order."""
    returns, steps, means, variances = (np.stack(column) for column in zip(*parts, strict=True))
    share = (steps / steps.sum())[:, None]
    mean = (share * means).sum(0)
    var = (share * (variances + (means - mean) ** 2)).sum(0)
    return Episodes(returns.ravel(), int(steps.sum()), mean, var)


class Players:
    """`players(step)` plays the generation that begins at environment step `step`.

    Nothing random is left over from one generation to the next: its seeds come from `step`.
    """

    def __init__(self, search: Search, envs: gym.vector.VectorEnv, seed: int):
        self.search, self.envs, self.seed = search, envs, seed
        self.groups = groups(search.population, envs.num_envs)

    def __call__(self, step: int) -> Episodes:
        return merge(self.some(self.groups, step))

    def some(self, groups: list[int], step: int) -> list[Episodes]:
        parts = []
        for k in groups:
            seed = child_seed(self.seed, "env", step, k)
            seed_everything(seed)  # for environments that draw from the global generators
            parts.append(play(self.search, self.envs, k, seed))
        return parts


def groups(population: int, num_envs: int) -> list[int]:
    """The first member of each group that plays side by side."""
    ok = population % num_envs == 0
    require(ok, f"num_envs must divide the population of {population}, got {num_envs}")
    return list(range(0, population, num_envs))


class Workers:
    """As Players, in `count` processes with a copy of the search each. Use it in a `with`.

    build() -> search and environments, sent to each process; the copies start from the state of `search`, and
    afterwards learn, as `search` itself has to, from the episodes that were returned.
    """

    def __init__(
        self,
        build: Callable[[], tuple[Search, gym.vector.VectorEnv]],
        search: Search,
        num_envs: int,
        count: int,
        seed: int,
    ):
        self.groups, self.last = groups(search.population, num_envs), None
        context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
        state = io.BytesIO()
        torch.save(checkpoint.state_of(search), state)
        self.pipes, self.processes = [], []
        for _ in range(min(count, len(self.groups))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, build, state.getvalue(), seed), daemon=True)
            process.start()
            theirs.close()  # so that a worker that dies is an end of file here
            self.pipes.append(ours)
            self.processes.append(process)

    def __call__(self, step: int) -> Episodes:
        count = len(self.pipes)
        for k, pipe in enumerate(self.pipes):
            pipe.send((self.last, self.groups[k::count], step))
        answers = [_answer(pipe) for pipe in self.pipes]
        self.last = merge([answers[k % count][k // count] for k in range(len(self.groups))])
        return self.last

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.close()
            process.kill()  # it holds nothing that is not elsewhere
            process.join()


def _answer(pipe: Connection) -> list[Episodes]:
    try:
        answer = pipe.recv()
    except (EOFError, ConnectionError) as error:
        raise UsageError("workers: one was killed; fewer of them need less memory") from error
    if isinstance(answer, Exception):
        raise answer
    return answer


def _work(pipe: Connection, build: Callable, state: bytes, seed: int) -> None:
    """Play until the pipe is closed, also where a kill -9 closes it."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the trainer's to honour, at its next boundary
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    try:
        search, envs = build()
        checkpoint.restore(search, torch.load(io.BytesIO(state), weights_only=True))
        players = Players(search, envs, seed)
        while True:
            last, mine, step = pipe.recv()
            if last is not None:
                search.update(last)
            pipe.send(players.some(mine, step))
    except (EOFError, ConnectionError):
        pass
    except Exception as error:
        pipe.send(error)
