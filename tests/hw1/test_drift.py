"""Mistakes of a policy on a road, counted over time."""

import numpy as np
import pytest

from common.envs import registry
from hw1_imitation import drift
from hw1_imitation.drift import ENV_ID, Row, main, measure, mistakes
from hw1_imitation.experts import expert


def watch(policy, cars=6, steps=60):
    return mistakes(policy, expert(ENV_ID), registry.make_envs(ENV_ID, cars), steps, seed=0)


def test_the_expert_makes_no_mistake():
    assert not watch(expert(ENV_ID)).any()


def test_small_differences_are_none():
    teacher = expert(ENV_ID)
    assert not watch(lambda obs: teacher(obs) + 0.9 * drift.TOLERANCE, steps=3).any()
    assert watch(lambda obs: teacher(obs) - 1.1 * drift.TOLERANCE, steps=3).all()


def test_off_the_road_every_step_is_a_mistake():
    """Hard to the left for ten steps leaves the road. Gymnasium puts the car back to the start, where the
    expert steers it without a flaw: a mistake all the same."""
    teacher, step = expert(ENV_ID), iter(range(60))
    wrong = watch(lambda obs: np.ones((len(obs), 1)) if next(step) < 10 else teacher(obs))
    assert wrong[20:].all()


def test_cloning_drifts_and_dagger_does_not(monkeypatch):
    """Mistakes of 200 cars within 160 steps, seeds 0 to 4: cloning 60, 82, 89, 70, 48, DAgger 10, 24, 0, 22,
    0. Here they learn a quarter as long, and fewer are watched."""
    for name, value in {"UPDATES": 75, "CARS": 30, "HORIZONS": (80, 160)}.items():
        monkeypatch.setattr(drift, name, value)
    rows = {(row.algo, row.horizon): row.cost for row in measure(seed=0)}
    assert rows["cloning", 160] > 5 * rows["dagger", 160]
    assert rows["cloning", 160] > 2.5 * rows["cloning", 80]


def test_the_command_writes_the_numbers(tmp_path, monkeypatch, capsys):
    def rows(seed):
        return [Row(a, seed, T, k * T**k) for k, a in ((2, "cloning"), (1, "dagger")) for T in drift.HORIZONS]

    monkeypatch.setattr(drift, "measure", rows)
    main(["--seeds", "0", "1", "--csv", str(tmp_path / "new" / "drift.csv")])
    printed = capsys.readouterr().out.splitlines()
    assert printed[2].endswith("| 2.00 |")
    assert printed[3].endswith("| 1.00 |")
    assert len((tmp_path / "new" / "drift.csv").read_text().splitlines()) == 1 + 4 * len(drift.HORIZONS)


def test_a_negative_seed_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--seeds", "-1"])
    assert end.value.code == 2
    assert "seeds must not be negative, got -1" in capsys.readouterr().err
