"""The loop with a stand-in search: what is counted, evaluated and saved, and when it ends."""

import signal

import numpy as np
import pytest
import torch

from common.logger import RunLogger, read_rows
from common.population import Episodes, Players
from common.types import UsageError
from hw2_policy_gradient.evolution_trainer import EvolutionTrainConfig, train
from tests.helpers import Counter, vector

CONFIG = EvolutionTrainConfig(total_steps=70, num_envs=2, eval_every=20, eval_episodes=2, save_every=30)


class Stand:
    """Four members that do nothing; notes what it is told. Its parameters may turn bad."""

    population = 4

    def __init__(self, bad_at: int = -1):
        self.net, self.generation, self.bad_at = torch.nn.Linear(1, 1), 0, bad_at

    def act(self, obs):
        return np.zeros(len(obs), np.int64)

    def members(self, first, count):
        return self.act

    def update(self, episodes):
        self.generation += 1
        if self.generation == self.bad_at:
            torch.nn.init.constant_(self.net.weight, np.nan)
        return {"grad/norm": float(episodes.steps)}


def go(folder, search, config=CONFIG, play=None, step=0):
    logger = RunLogger(folder, config.total_steps, step)
    play = play or Players(search, vector(Counter, 2), seed=0)
    try:
        return train(search, play, vector(Counter, 2), logger, config, seed=0, step=step)
    finally:
        logger.close("x")


def steps(folder, split):
    return [row["step"] for row in read_rows(folder / "metrics.jsonl") if row["split"] == split]


def test_counts_the_steps_of_whole_generations(tmp_path):
    """Four members, three steps each: 12 a generation, the sixth passes 70. Evaluated at the multiples of 20,
    which all seeds share whatever their generations last, and at the end."""
    assert go(tmp_path, Stand()) == "finished"
    assert steps(tmp_path, "train") == [12, 24, 36, 48, 60, 72]
    assert steps(tmp_path, "eval") == [20, 40, 60, 72]
    row = read_rows(tmp_path / "metrics.jsonl")[0]
    assert (row["grad/norm"], row["rollout/return_mean"], row["rollout/return_max"]) == (12.0, 3.0, 3.0)
    saved = sorted(path.name[:12] for path in (tmp_path / "checkpoint").iterdir())
    assert saved == ["000000000060", "000000000072"]


def test_between_two_generations_the_older_policy_is_evaluated(tmp_path):
    """At step 20 the first generation, of steps 1 to 12, is learned from, and the second not yet; at 60 the
    fifth, which ends there, is."""

    class Counting(Stand):
        def act(self, obs):
            learned.append(self.generation)
            return super().act(obs)

        def members(self, first, count):
            return super().act

    learned = []
    go(tmp_path, Counting())
    assert learned[::3] == [1, 3, 5, 6]


def test_every_generation_has_seeds_of_its_own_that_a_resumed_run_has_too(tmp_path):
    class Noted(Players):
        def __call__(self, step):
            noted.append(step)
            return super().__call__(step)

    noted, search = [], Stand()
    go(tmp_path, search, play=Noted(search, vector(Counter, 2), seed=0), step=48)
    assert noted == [48, 60]


def test_ctrl_c_ends_with_the_generation_and_saves(tmp_path):
    def play(step):
        signal.raise_signal(signal.SIGINT)
        return Episodes(np.ones(4), 12, np.zeros(1), np.ones(1))

    assert go(tmp_path, Stand(), play=play) == "interrupted"
    assert [path.name[:12] for path in (tmp_path / "checkpoint").iterdir()] == ["000000000012"]


def test_parameters_that_are_not_finite_are_never_saved(tmp_path):
    with pytest.raises(FloatingPointError, match="not finite after step 36: the parameters of net"):
        go(tmp_path, Stand(bad_at=3))
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("name", vars(EvolutionTrainConfig()))
def test_settings_below_one_are_named(name):
    with pytest.raises(UsageError, match=f"{name} must be at least 1, got 0"):
        EvolutionTrainConfig(**{name: 0})


@pytest.mark.parametrize("name", ["num_envs", "workers", "eval_episodes"])
def test_settings_that_no_machine_can_hold_are_named(name):
    with pytest.raises(UsageError, match=rf"{name} must lie in \[1, 65535\], got 65536"):
        EvolutionTrainConfig(**{name: 2**16})
