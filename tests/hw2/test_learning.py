"""Learning curves of the shipped presets, full budget, one seed; thresholds hold for the seeds of results/.

Best evaluation and mean of the last five are graded together: the best alone praises a run that collapsed,
the last alone is luck.
"""

import dataclasses

import pytest

from common.results import best_and_last, load_runs
from hw2_policy_gradient.run import PRESETS, run


def learn(preset: str, out, seed: int = 0) -> tuple[float, float]:
    run(dataclasses.replace(PRESETS[preset], out=out, seed=seed))
    (best,), (last,) = best_and_last(load_runs(out))
    return best, last


def test_reinforce_learns_cartpole(tmp_path):
    """Random policy 22, highest 500. Ten seeds: best 500 in all, last window 343 to 500, median 500."""
    best, last = learn("reinforce-cartpole", tmp_path)
    assert best >= 400
    assert last >= 300


def test_actor_critic_balances_the_pendulum(tmp_path):
    """Random policy 6, highest 1000. Five seeds: best 1000 in all, last window 901 to 1000."""
    best, last = learn("actor-critic-invertedpendulum", tmp_path)
    assert best >= 1000
    assert last >= 900


@pytest.mark.learning
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(3))
def test_ppo_lands(seed, tmp_path):
    """Random policy about -180, solved at 200. Three seeds: last window 266 to 276."""
    best, last = learn("ppo-lunarlander", tmp_path, seed)
    assert best >= 220
    assert last >= 180


@pytest.mark.learning
@pytest.mark.timeout(3600)
def test_ppo_makes_the_cheetah_run(tmp_path):
    """Random policy about -280, Stable-Baselines3 1,569, best tuned library 5,784.
    Three seeds: best 6,409 to 7,177, last window 5,529 to 6,973."""
    best, last = learn("ppo-halfcheetah", tmp_path)
    assert best >= 4000
    assert last >= 3500
