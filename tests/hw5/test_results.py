"""What the hand-out says of the committed results, by these results."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import hw5_planning_control

FOLDER = Path(hw5_planning_control.__file__).parent / "results"


def column(name: str, key: str = "return_mean") -> dict[str, np.ndarray]:
    """Of NAME.csv by algorithm: [seeds, evaluations]"""
    found = defaultdict(lambda: defaultdict(list))
    with (FOLDER / f"{name}.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found[row["algo"]][row["seed"]].append(float(row[key]))
    return {algo: np.array([*seeds.values()]) for algo, seeds in found.items()}


def test_guided_policies_swing_up_from_all_starts_and_agree_with_their_plans():
    """A start that fails costs hundreds. Cloning is left with more than five times the residual."""
    cost, residual = column("teaching"), column("teaching", "policy/residual")
    assert (cost["guided policy search"][:, -5:] > -25).all()
    guided, cloned = residual["guided policy search"], residual["cloning"]
    assert (guided[:, -1] < 0.2 * guided[:, 0]).all()
    assert (guided[:, -1] < 0.2 * cloned[:, -1]).all()


def test_a_policy_of_pixels_costs_as_little_as_its_teacher():
    found, teacher = column("remapping"), column("remapping", "teacher/return_mean")
    assert (found["pixels"][:, -5:] > 1.1 * teacher["pixels"][:, -5:]).all()  # both are minus the cost


def test_plato_crashes_less_than_dagger_and_drives_as_far():
    steps, crashes = column("plato"), column("plato", "policy/crashes")
    assert (crashes["plato"][:, -1] <= crashes["dagger"][:, -1]).sum() >= 4
    assert crashes["plato"][:, -1].sum() < 0.6 * crashes["dagger"][:, -1].sum()
    assert steps["plato"][:, -5:].mean() > steps["dagger"][:, -5:].mean() - 1


@pytest.mark.parametrize(
    ("name", "better", "other", "seeds"),
    [
        ("distillation", "soft", "hard", 4),
        ("division", "divide and conquer", "one policy", 5),
        ("noise", "feedback", "open loop", 3),
    ],
)
def test_what_is_said_to_be_better_is_so_in_as_many_seeds(name, better, other, seeds):
    """By the last evaluation."""
    found = column(name)
    assert (found[better][:, -1] > found[other][:, -1]).sum() >= seeds


def test_the_pendulum_is_planned_for_as_well_as_asked():
    """Fifty starts a seed, -150 or better by CEM."""
    assert (column("pendulum")["cem"].mean(1) > -150).all()
