"""Asynchronous advantage actor-critic (A3C, Mnih et al. 2016): workers push gradients to a shared model.

each worker, for ever: pull theta; T steps of its own N environments; push g = grad L(theta), L as in a2c.py
the model, for ever:   take the next push; theta <- theta - Adam(g), whatever has become of theta meanwhile
One Adam, so its moments are shared as well. With one worker this is A2C, bit for bit; with more, who comes
first is up to the machine: a seed does not fix the result, and pushes are a few updates stale.

In the paper the workers write to shared memory. Here they are processes with a pipe each to the model's: no
lock and no memory is shared, so that a worker that is killed takes nothing along but its own rollout.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from common.rollout import Collector
from common.seeding import child_seed, seed_everything
from common.types import EnvSpec, Metrics, UsageError, require, require_at_least
from hw2_policy_gradient.a2c import A2C, A2CConfig

CONTEXT = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
DEATHS = 3  # of a worker, with no gradient in between: then it is no accident
CPU = torch.device("cpu")


@dataclass(frozen=True)
class A3CConfig(A2CConfig):
    workers: int = 2  # processes, num_envs environments each; with two or more no run repeats another

    def __post_init__(self):
        super().__post_init__()
        require_at_least(self, 1, "workers")
        require(self.workers <= 1024, f"workers must lie in [1, 1024], got {self.workers}")


class Order(NamedTuple):
    """Model to worker: the next rollout."""

    theta: np.ndarray  # [P]
    version: int  # updates that theta has seen
    length: int  # T
    seed: int | None  # of new episodes and actions; None goes on with the old ones


class Push(NamedTuple):
    """Worker to model: what became of an order."""

    gradient: np.ndarray  # [P] of L at the order's theta
    version: int  # of that theta
    losses: Metrics
    episodes: Metrics

    def cut(self) -> Push:
        """As for a rollout; but its last row was bootstrapped like a truncation all along."""
        return self


class A3C(A2C):
    """The shared model: A2C whose gradients come from elsewhere."""

    def __init__(self, spec: EnvSpec, config: A3CConfig, total_updates: int, device: torch.device, seed: int):
        super().__init__(spec, config, total_updates, device, seed)
        self.spec = spec

    def update(self, push: Push) -> Metrics:
        gradient = torch.from_numpy(push.gradient).to(self.parameters[0].device)
        pieces = gradient.split([p.numel() for p in self.parameters])
        for p, piece in zip(self.parameters, pieces, strict=True):
            p.grad = piece.view_as(p)
        stale = {"grad/staleness": self.updates - push.version}  # updates between pull and push
        return push.losses | self.descend() | stale


def work(
    pipe: Connection, make_envs: Callable[[], gym.vector.VectorEnv], spec: EnvSpec, config: A2CConfig
) -> None:
    """The life of a worker: an order, a push, until the model's process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the model's to answer, it ends the workers
    torch.set_num_threads(1)
    with suppress(ConnectionError):  # nobody there any more
        try:
            collector = Collector(make_envs(), CPU)
            while True:
                order: Order = pipe.recv()
                if order.seed is not None:
                    seed_everything(order.seed)
                    agent = A2C(spec, config, 1, CPU, order.seed)
                    collector.reset(order.seed, 0)
                vector_to_parameters(torch.from_numpy(order.theta), agent.parameters)
                rollout, episodes = collector.collect(agent.explore, order.length)
                losses = agent.backward(rollout)
                gradient = parameters_to_vector([p.grad for p in agent.parameters]).numpy()
                pipe.send(Push(gradient, order.version, losses, episodes))
        except Exception as error:  # the model's process ends the run with it
            error.add_note(traceback.format_exc())
            pipe.send(error)


def share_imports() -> None:
    """Fork workers from a process that imports, once, all that this one has: a start costs 0.1 s, not 4."""
    ours = [name for name in sys.modules if name.split(".")[0] in ("common", __package__)]
    CONTEXT.set_forkserver_preload([*ours, "torch._dynamo"])  # the latter on behalf of Adam


class Worker:
    """A worker's process, and this end of its pipe."""

    def __init__(self, number: int, *arguments: object):
        self.number, self.arguments = number, arguments
        self.deaths = 0  # since the last push
        self.start()

    def start(self) -> None:
        self.pipe, other_end = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=work, args=(other_end, *self.arguments), daemon=True)
        self.process.start()
        other_end.close()  # the worker holds the only one now: its death is the end of the file
        self.idle = self.anew = True

    def order(self, order: Order) -> None:
        with suppress(ConnectionError):  # it is dead, which `answer` will find
            self.pipe.send(order)
        self.idle = self.anew = False

    def answer(self) -> Push | None:
        """Its push, or None if it died; then it starts again."""
        try:
            push = self.pipe.recv()
        except (EOFError, OSError):
            self.stop()
            status, self.deaths = self.process.exitcode, self.deaths + 1
            told = f"worker {self.number} ended, exit status {status}"
            if self.deaths == DEATHS:
                raise UsageError(f"{told}, {DEATHS} times before it had pushed a gradient") from None
            print(f"warning: {told}; its rollout is lost, it starts again", file=sys.stderr, flush=True)
            self.start()
            return None
        if isinstance(push, Exception):
            raise push
        self.deaths, self.idle = 0, True
        return push

    def stop(self) -> None:
        self.process.kill()  # it holds nothing that another misses
        self.process.join()
        self.pipe.close()


class Workers:
    """The collector of A3C, to the trainer like any other: instead of rollouts it brings their gradients."""

    def __init__(self, agent: A3C, make_envs: Callable[[], gym.vector.VectorEnv]):
        """`make_envs` is called in every worker and must be a function that can be imported there."""
        self.agent = agent
        self._arguments = make_envs, agent.spec, agent.config
        self._workers: list[Worker] = []  # whose push was taken longest ago comes first

    def reset(self, seed: int, step: int) -> None:
        """New episodes with everyone's next order; `step` environment steps lie behind."""
        self._seed = child_seed(seed, step)
        if not self._workers:
            for number in range(self.agent.config.workers):
                self._workers.append(Worker(number, *self._arguments))
        for worker in self._workers:
            worker.anew = True

    def collect(self, explore: Callable[[np.ndarray, int], np.ndarray], length: int) -> tuple[Push, Metrics]:
        """The next push, of T = `length` steps, and the mean return of the episodes that ended in them.

        The workers explore with copies of the model, made when they were given their order.
        """
        while True:
            theta = None
            for worker in self._workers:
                if worker.idle:
                    if theta is None:
                        theta = parameters_to_vector(self.agent.parameters).detach().cpu().numpy()
                    version = self.agent.updates
                    seed = child_seed(self._seed, worker.number, version) if worker.anew else None
                    worker.order(Order(theta, version, length, seed))
            ready = wait([worker.pipe for worker in self._workers])
            worker = next(worker for worker in self._workers if worker.pipe in ready)
            if (push := worker.answer()) is not None:
                self._workers.remove(worker)
                self._workers.append(worker)
                return push, push.episodes

    def close(self) -> None:
        for worker in self._workers:
            worker.stop()
        self._workers = []
