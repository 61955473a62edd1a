"""The student against labels that are known, and the loop against a planner that counts."""

import math
from itertools import islice

import numpy as np
import pytest
import torch

from common.envs.control_tasks import TASKS
from common.envs.registry import make_envs, spec
from common.evaluation import evaluate
from common.types import EnvSpec, UsageError
from hw5_planning_control.planner_imitation import (
    Pairs,
    Student,
    StudentConfig,
    agreement,
    dagger,
    imitation_loss,
)
from hw5_planning_control.planners import LQRConfig, lqr_planner

DOUBLE = "course/DoubleIntegrator-v0"


def student(env_spec: EnvSpec, **settings) -> Student:
    return Student(env_spec, StudentConfig(**settings), torch.Generator().manual_seed(0))


def test_losses_by_hand():
    """-log 3/4 and -log 1/2, mean; the mean of 1 and 4 and two zeros."""
    out = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])
    expected = (math.log(4 / 3) + math.log(2)) / 2
    assert imitation_loss(out, torch.tensor([0, 1]), True).item() == pytest.approx(expected, rel=1e-6)
    u = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    assert imitation_loss(u, torch.zeros(2, 2), False).item() == pytest.approx(5 / 4)


def test_agreement_by_hand():
    assert agreement(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]), True) == 0.75
    assert agreement(np.array([[0.0], [1.0]]), np.array([[0.5], [1.0]]), False) == -0.25


@pytest.mark.parametrize("discrete", [True, False])
def test_a_student_learns_what_it_is_told(discrete):
    """Which of two numbers is the larger, or half their difference."""
    obs = 2 * torch.rand(256, 2, generator=torch.Generator().manual_seed(0)) - 1
    label = (obs[:, 0] > obs[:, 1]).long() if discrete else (obs[:, :1] - obs[:, 1:]) / 2
    pupil = student(EnvSpec(1, 2, 2 if discrete else 1, discrete), hidden=32, epochs=30)
    before = agreement(pupil.act(obs.numpy()), label.numpy(), discrete)
    pupil.update(obs, label)
    after = agreement(pupil.act(obs.numpy()), label.numpy(), discrete)
    assert before < (0.8 if discrete else -0.2)
    assert after > (0.95 if discrete else -0.05)


def test_the_step_size_falls_within_a_round_and_starts_anew(monkeypatch):
    pupil = student(EnvSpec(1, 2, 2, True), epochs=4, lr=0.8)
    rates, step = [], pupil.optimizer.step
    monkeypatch.setattr(
        pupil.optimizer, "step", lambda: rates.append(pupil.optimizer.param_groups[0]["lr"]) or step()
    )
    obs = torch.zeros(5, 2)
    for _ in range(2):
        pupil.update(obs, torch.zeros(5, dtype=torch.int64))
    assert rates == pytest.approx([0.8, 0.6, 0.4, 0.2] * 2)


def test_controls_stay_within_their_limits():
    pupil = student(EnvSpec(1, 2, 3, False))
    assert pupil.act(np.full((4, 2), 1e6)).shape == (4, 3)
    assert np.abs(pupil.act(np.full((4, 2), 1e6))).max() <= 1


class Listener:
    """A student that plays -1 and remembers what it was taught."""

    discrete = False

    def __init__(self):
        self.lessons = []

    def act(self, obs):
        return np.full((len(obs), 1), -1.0)

    def update(self, obs, label):
        self.lessons.append((obs, label))
        return {}


def test_the_planner_drives_first_and_labels_always():
    """It plays and says 1. In the first round the speed rises, then it falls, and all labels are 1."""
    listener, envs = Listener(), make_envs(DOUBLE, 2)
    lessons = dagger(listener, lambda obs: np.ones((len(obs), 1)), envs, Pairs(None), steps=5, seed=0)
    found = [*islice(lessons, 2)]
    (first, _), (both, label) = listener.lessons
    speed = both.view(10, 2, -1)[:, 0, 1]
    assert (speed[:6].diff() > 0).all()
    assert (speed[5:].diff() < 0).all()
    assert torch.equal(both[:10], first)
    assert (label == 1).all()
    assert [row["plan/labels"] for row in found] == [10, 20]
    assert [row["plan/agreement"] for row in found] == [-2.0, -2.0]


def test_a_student_of_lqr_comes_close_to_its_return():
    """Four rounds of 200 labels, the gains of the plan at the time that the observation ends with."""
    task, envs = TASKS[DOUBLE], make_envs(DOUBLE, 4)
    x, u = torch.ones(1, 2, dtype=torch.float64), torch.zeros(1, task.horizon, 1, dtype=torch.float64)
    K = lqr_planner(task, LQRConfig(), torch.Generator())(x, u).K[0]  # the goal is zero, and so is k

    def planner(obs):
        t = (obs[:, -1] * task.horizon).round().astype(int)
        return task.action((K[t] @ task.state(obs)[..., None])[..., 0]).clip(-1, 1)

    pupil = student(spec(envs), hidden=32, epochs=20)
    for _ in islice(dagger(pupil, planner, envs, Pairs(None), steps=50, seed=0), 4):
        pass
    cost, best = (-evaluate(act, envs, 9)["return_mean"] for act in (pupil.act, planner))
    assert cost < 1.2 * best


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"lr": -1.0}, "lr must be positive, got -1"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be positive"),
    ],
)
def test_bad_settings_are_named(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        StudentConfig(**settings)
