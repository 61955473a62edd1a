"""Episodes of a population: what is counted, and that the number of processes changes nothing."""

import signal
from functools import partial

import numpy as np
import pytest

from common import checkpoint
from common.envs.registry import make_envs, spec
from common.population import Episodes, Players, Workers, groups, merge, play
from common.types import UsageError
from hw2_policy_gradient.evolution import CMAES, CMAESConfig, Evolution, EvolutionConfig
from tests.helpers import CPU, Counter, vector

EVOLUTION = (Evolution, EvolutionConfig(population=8, normalize_obs=True))
CMA = (CMAES, CMAESConfig(population=8))


def build(kind, config, env_id="CartPole-v1"):
    envs = make_envs(env_id, 2)
    return kind(spec(envs), config, CPU, seed=3), envs


class Uneven(Counter):
    """Terminates after as many steps as the sum of the actions says: 1 at once, 0 after three."""

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or bool(action), truncated, info


class Numbered:
    """Member k does k % 2."""

    population = 4

    def members(self, first, count):
        return lambda obs: np.arange(first, first + count) % 2


def test_only_steps_of_each_first_episode_are_counted():
    """Member 0 sees 0, 1, 2, member 1 only 0: four steps, mean 3/4, variance 11/16."""
    episodes = play(Numbered(), vector(Uneven), first=0, seed=0)
    assert episodes.returns.tolist() == [3.0, 1.0]
    assert episodes.steps == 4
    np.testing.assert_allclose((episodes.obs_mean, episodes.obs_var), [[0.75], [0.6875]])


def test_merged_statistics_are_those_of_all_steps():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(n, 3)) for n in (1, 5, 90)]
    merged = merge([Episodes(np.ones(2) * k, len(x), x.mean(0), x.var(0)) for k, x in enumerate(parts)])
    whole = np.concatenate(parts)
    assert merged.returns.tolist() == [0, 0, 1, 1, 2, 2]
    assert merged.steps == 96
    np.testing.assert_allclose(merged.obs_mean, whole.mean(0))
    np.testing.assert_allclose(merged.obs_var, whole.var(0))


def test_groups_must_fill_the_environments():
    assert groups(6, 2) == [0, 2, 4]
    with pytest.raises(UsageError, match="num_envs must divide the population of 6, got 4"):
        groups(6, 4)


@pytest.mark.parametrize(("kind", "config"), [EVOLUTION, CMA], ids=["evolution", "cma-es"])
def test_two_workers_find_what_one_process_finds(kind, config):
    """Bit for bit, three generations, from the second on of a search that was loaded."""
    search, envs = build(kind, config)
    search.update(Players(search, envs, seed=3)(0))
    copy, _ = build(kind, config)
    checkpoint.restore(copy, checkpoint.state_of(search))
    alone = Players(search, envs, seed=3)
    with Workers(partial(build, kind, config), copy, 2, count=2, seed=3) as workers:
        for step in (10, 20, 30):
            expected, episodes = alone(step), workers(step)
            assert all(np.array_equal(a, b) for a, b in zip(expected, episodes, strict=True))
            assert search.update(expected) == copy.update(episodes)
    state, other = checkpoint.state_of(search)["policy"], checkpoint.state_of(copy)["policy"]
    assert all(state[name].equal(other[name]) for name in state)


def test_more_workers_than_groups_are_not_started():
    search, _ = build(*CMA)
    with Workers(partial(build, *CMA), search, 4, count=5, seed=0) as workers:
        assert len(workers.processes) == 2


class Unplayable(Numbered):
    """Its state is empty, its environments give no reward."""


def broken():
    return Unplayable(), vector(Counter, nan_reward_at=2)


def test_what_goes_wrong_in_a_worker_goes_wrong_here():
    with (
        Workers(broken, Unplayable(), 2, count=1, seed=0) as workers,
        pytest.raises(FloatingPointError, match="reward that is not finite"),
    ):
        workers(0)


def test_a_killed_worker_is_one_sentence_and_ctrl_c_is_not_its_matter():
    search, _ = build(*CMA)
    with Workers(partial(build, *CMA), search, 2, count=2, seed=0) as workers:
        workers(0)
        for process in workers.processes:
            process.terminate()
        workers(1)
        workers.processes[1].kill()
        with pytest.raises(UsageError, match="workers: one was killed"):
            workers(2)
    assert [process.exitcode for process in workers.processes] == [-signal.SIGKILL] * 2
