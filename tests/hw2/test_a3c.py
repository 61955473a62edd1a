"""Worker processes that push gradients: one alone is A2C, one killed is one rollout lost."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch

from common import cli
from common.logger import RunLogger, read_rows
from common.rollout import Collector
from common.seeding import child_seed
from common.types import EnvSpec, UsageError
from hw2_policy_gradient import run as module
from hw2_policy_gradient.a2c import A2C, A2CConfig
from hw2_policy_gradient.a3c import A3C, A3CConfig, Push, Workers
from hw2_policy_gradient.trainer import TrainConfig, train
from tests.helpers import CPU, Counter, random_rollout, rows, run_directory, vector

SPEC = EnvSpec(num_envs=2, obs_dim=1, action_dim=2, discrete=True)
COUNTERS = partial(vector, Counter)


@pytest.fixture
def collector():
    """`collector(workers, make_envs)`, whose processes do not outlive the test."""
    made = []

    def make(workers: int, make_envs=COUNTERS) -> Workers:
        made.append(Workers(A3C(SPEC, A3CConfig(hidden=(8,), workers=workers), 20, CPU, seed=0), make_envs))
        return made[-1]

    yield make
    for each in made:
        each.close()
    assert multiprocessing.active_children() == []


def death():
    os._exit(7)


def parameters(agent: A2C) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(agent.parameters).detach()


def test_the_model_takes_the_step_of_a2c():
    """Given the gradient that A2C has, whatever the model's own rollout would be."""
    a2c, rollout = A2C(SPEC, A2CConfig(hidden=(8,)), 20, CPU, seed=0), random_rollout(SPEC, 5)
    a3c = A3C(SPEC, A3CConfig(hidden=(8,)), 20, CPU, seed=0)
    losses = a2c.backward(rollout)
    gradient = torch.cat([p.grad.flatten() for p in a2c.parameters]).numpy().copy()
    norm = a2c.descend()
    assert a3c.update(Push(gradient, 0, losses, {})) == losses | norm | {"grad/staleness": 0}
    assert torch.equal(parameters(a3c), parameters(a2c))


def test_staleness_counts_the_updates_between_pull_and_push():
    a3c = A3C(SPEC, A3CConfig(hidden=(8,)), 20, CPU, seed=0)
    push = Push(np.zeros(parameters(a3c).numel(), np.float32), 0, {}, {})
    assert [a3c.update(push)["grad/staleness"] for _ in range(3)] == [0, 1, 2]


def test_one_worker_is_a2c_bit_for_bit(collector):
    workers = collector(1)
    a3c, a2c = workers.agent, A2C(SPEC, A2CConfig(hidden=(8,)), 20, CPU, seed=0)
    workers.reset(seed=5, step=0)
    seed = child_seed(child_seed(5, 0), 0, 0)
    a2c.generator.manual_seed(child_seed(seed, "explore"))
    here = Collector(COUNTERS(), CPU)
    here.reset(seed, 0)
    for _ in range(4):
        rollout, episodes = here.collect(a2c.explore, 5)
        push, told = workers.collect(a3c.explore, 5)
        assert told == episodes
        assert a3c.update(push) == a2c.update(rollout) | {"grad/staleness": 0}
        assert torch.equal(parameters(a3c), parameters(a2c))


def test_workers_differ_and_take_turns(collector):
    workers = collector(2)
    workers.reset(seed=0, step=0)
    pushes = [workers.collect(workers.agent.explore, 8)[0] for _ in range(6)]
    assert len({push.gradient.tobytes() for push in pushes}) > 1
    for push in pushes:
        workers.agent.update(push)
    assert torch.isfinite(parameters(workers.agent)).all()


def test_killed_workers_lose_their_own_rollout_only(collector, tmp_path, capfd):
    """kill -9 of whoever is at a rollout, three times in a run, which makes every step all the same."""
    workers, killed = collector(2), []

    class Watched(A3C):
        def update(self, push):
            at_work = workers._workers[0]  # the other one delivered this
            if self.updates in (5, 25, 45) and at_work.deaths == 0:
                time.sleep(0.002 * len(killed))  # into its rollout
                os.kill(at_work.process.pid, signal.SIGKILL)
                killed.append(at_work)
            return super().update(push)

    workers.agent.__class__ = Watched
    config = TrainConfig(60 * 32, 2, 16, eval_every=10**9, eval_episodes=1, save_every=10**9)
    logger = RunLogger(tmp_path, config.total_steps)
    assert train(workers.agent, workers, vector(Counter, 1), logger, config, seed=0) == "finished"
    logger.close("finished")
    assert read_rows(tmp_path / "metrics.jsonl")[-1]["step"] == config.total_steps
    assert workers.agent.updates == 60
    assert torch.isfinite(parameters(workers.agent)).all()
    assert killed
    told = capfd.readouterr().err.count("exit status -9; its rollout is lost, it starts again")
    assert told == len(killed)


def test_a_worker_that_never_delivers_ends_the_run(collector):
    workers = collector(1, death)
    workers.reset(seed=0, step=0)
    with pytest.raises(UsageError, match="worker 0 ended, exit status 7, 3 times before it had pushed"):
        workers.collect(workers.agent.explore, 2)


def test_what_goes_wrong_in_a_worker_is_raised_here(collector):
    workers = collector(2, partial(vector, Counter, nan_reward_at=2))
    workers.reset(seed=0, step=0)
    with pytest.raises(FloatingPointError, match="a reward that is not finite") as error:
        workers.collect(workers.agent.explore, 2)
    assert "in work" in error.value.__notes__[0]


@pytest.mark.parametrize("busy", [True, False])
def test_workers_end_with_the_model(busy, collector):
    """When its process dies the system closes the pipes. No other worker holds their ends open."""
    workers = collector(2)
    workers.reset(seed=0, step=0)
    if busy:
        workers.collect(workers.agent.explore, 300)
    processes = multiprocessing.active_children()
    assert len(processes) == 2
    for worker in workers._workers:
        worker.pipe.close()
        worker.process.join(20)
    assert [process.exitcode for process in processes] == [0, 0]
    workers._workers.clear()


@pytest.mark.parametrize("workers", [0, -1, 2000])
def test_bad_numbers_of_workers_are_named(workers):
    with pytest.raises(UsageError, match="workers must"):
        A3CConfig(workers=workers)


def test_settings_of_a2c_are_checked_as_well():
    with pytest.raises(UsageError, match="gamma must"):
        A3CConfig(gamma=2.0)


def main(monkeypatch, *args: object) -> int:
    """The command line in this process; the exit status."""
    monkeypatch.setattr(sys, "argv", ["run", *map(str, args)])
    with pytest.raises(SystemExit) as end:
        cli.main(module.PRESETS, "ppo-cartpole", module.run)
    assert multiprocessing.active_children() == []
    return end.value.code


BRIEF = ["a3c-cartpole", "--algo.no-lr-decay", "--train.save-every", 2048, "--train.eval-every", 2048]
BRIEF += ["--train.eval-episodes", 2, "--train.total-steps"]


def test_one_worker_stopped_and_resumed_equals_the_uninterrupted_run(tmp_path, monkeypatch):
    """With more workers it is another run, as it is without stopping."""
    one, whole, parts = ["--algo.workers", 1, "--out"], tmp_path / "whole", tmp_path / "parts"
    assert main(monkeypatch, *BRIEF, 4096, *one, whole) == 0
    assert main(monkeypatch, *BRIEF, 2048, *one, parts) == 0
    assert main(monkeypatch, "--resume", run_directory(parts), "--train.total-steps", 4096) == 0
    assert rows(run_directory(parts)) == rows(run_directory(whole))


def test_ctrl_c_ends_the_workers_and_the_run_can_go_on(tmp_path, monkeypatch):
    def interrupt():
        while not any(path.stat().st_size for path in tmp_path.rglob("metrics.jsonl")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    assert main(monkeypatch, *BRIEF, 10**7, "--out", tmp_path) == 130
    directory = run_directory(tmp_path)
    step = read_rows(directory / "metrics.jsonl")[-1]["step"]
    assert main(monkeypatch, "--resume", directory, "--train.total-steps", step + 2048) == 0
    assert rows(directory)[-1]["step"] == step + 2048
