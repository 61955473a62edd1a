"""Learning curves of the shipped presets, one seed: best evaluation and mean of the last five together."""

import dataclasses

import pytest

from common.results import best_and_last, load_runs
from hw3_q_learning import run as module


def learn(monkeypatch, preset: str, out, steps: int | None = None) -> tuple[float, float]:
    monkeypatch.setattr(module, "conclude", lambda *args: None)
    config = module.PRESETS[preset]
    train = dataclasses.replace(config.train, total_steps=steps or config.train.total_steps)
    module.run(dataclasses.replace(config, train=train, out=out))
    (best,), (last,) = best_and_last(load_runs(out))
    return best, last


def test_ddpg_swings_the_pendulum_up(monkeypatch, tmp_path):
    """Random policy -1,200, optimal -139 on average. Five seeds of so many steps: best -158 to -87, the last
    window, from 4,000 steps on, -241 to -143."""
    best, last = learn(monkeypatch, "ddpg-pendulum", tmp_path, steps=8_000)
    assert best >= -200
    assert last >= -350


@pytest.mark.learning
def test_dqn_holds_the_pole_and_goes_on_holding_it(monkeypatch, tmp_path):
    """Random policy 22, highest 500. Ten seeds: best 500 in all, last window 473 to 500."""
    best, last = learn(monkeypatch, "dqn-cartpole", tmp_path)
    assert best >= 475
    assert last >= 450
