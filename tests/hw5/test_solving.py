"""Collocation and learning from samples as runs: what they write, and what the environment makes of it."""

import math
from dataclasses import replace

import pytest
import torch

from common.envs.control_tasks import TASKS
from common.logger import RunLogger, read_rows
from common.types import UsageError
from hw5_planning_control.lqr import lqr
from hw5_planning_control.lqr_flm import FLMConfig
from hw5_planning_control.run import PRESETS
from hw5_planning_control.solving import (
    CollocationConfig,
    LearnConfig,
    ObstacleConfig,
    continuous,
    gains_along,
    keep_clear,
    learn_from_samples,
    solve_on_grids,
)

CARTPOLE = "course/CartPoleSwingUp-v0"
DOUBLE = "course/DoubleIntegrator-v0"


def solve(driver, config, directory):
    """What the driver found, and its rows."""
    directory.mkdir(exist_ok=True)
    logger = RunLogger(directory, 1)
    found, _ = driver(config, logger)
    logger.close("finished")
    return found, read_rows(directory / "metrics.jsonl")


def test_grids_end_at_kellys_optimum_and_the_plan_is_played(tmp_path):
    """58.80767 at 100 segments (Kelly 2017); held constant for 0.04 s at a time the plan costs 59.15
    with feedback, and 1,081 without: the pole is missed."""
    preset = replace(PRESETS["collocate-cartpole"], algo=CollocationConfig((10, 50)))
    found, rows = solve(solve_on_grids, preset, tmp_path / "closed")
    costs = [-row["return_mean"] for row in rows if row["split"] == "eval"]
    told = [row for row in rows if row["split"] == "train"]
    assert costs[-1] == pytest.approx(58.80767, abs=1e-3)
    assert [row["plan/segments"] for row in told] == [10, 50]
    assert all(row["plan/converged"] and row["plan/violation"] < 1e-8 for row in told)
    assert -found["return_mean"] == pytest.approx(costs[-1], rel=0.01)
    alone = replace(preset, train=replace(preset.train, feedback=False))
    assert -solve(solve_on_grids, alone, tmp_path / "open")[0]["return_mean"] > 2 * costs[-1]


def test_the_continuous_task_costs_per_second_what_the_other_costs_per_step(generator):
    task = TASKS[CARTPOLE]
    x, u = (torch.randn(size, generator=generator, dtype=torch.float64) for size in (4, 1))
    problem = continuous(task)
    assert problem.cost(x, u).item() == pytest.approx(task.cost(x, u).item() / 0.04)
    assert problem.x_final.tolist() == [1, math.pi, 0, 0]
    assert [limit.tolist() for limit in problem.limits()] == [[-20], [20]]


def test_gains_along_rest_are_those_of_the_regulator():
    task = TASKS[DOUBLE]
    K = gains_along(task, torch.zeros(51, 2, dtype=torch.float64), torch.zeros(50, 1, dtype=torch.float64))
    F = task.jacobian(torch.zeros(2).double(), torch.zeros(1).double()).expand(50, 2, 3)
    C = torch.diag(torch.tensor([*task.Q, *task.R], dtype=torch.float64)).expand(50, 3, 3)
    C_final = torch.diag(torch.tensor(task.Q_T, dtype=torch.float64))
    expected = lqr(F, torch.zeros(50, 2).double(), C, torch.zeros(50, 3).double(), C_final).K
    torch.testing.assert_close(K, expected, rtol=0, atol=1e-10)


def test_the_car_keeps_clear_of_discs_that_its_cost_does_not_know(tmp_path):
    """Without multipliers the cheapest way cuts the rim. The plan touches the margin, and is played."""
    preset = replace(PRESETS["lagrangian-cardiscs"], algo=ObstacleConfig(penalty=10.0, tolerance=0.02))
    found, rows = solve(keep_clear, preset, tmp_path)
    told = [row for row in rows if row["split"] == "train"]
    costs = [-row["return_mean"] for row in rows if row["split"] == "eval"]
    assert told[0]["plan/clearance"] < 0.05
    assert told[-1]["plan/violation"] < 0.02
    assert told[-1]["plan/clearance"] == pytest.approx(0.1, abs=0.02)
    assert costs == sorted(costs)  # each round forbids more
    assert -found["return_mean"] == pytest.approx(costs[-1], rel=1e-3)


def test_controllers_improve_from_samples_and_play_better_without_noise(tmp_path):
    """Five seeds: the first controls cost 26 to 102 with their noise, the last 0.49 to 0.63 with theirs and
    0.04 to 0.08 without."""
    preset = replace(
        PRESETS["lqr-flm-pendulum"],
        env_id=DOUBLE,
        algo=FLMConfig(rounds=2, samples=8, start_std=0.1),
        train=LearnConfig(explore=0.1, eval_episodes=4),
    )
    found, rows = solve(learn_from_samples, preset, tmp_path)
    evals = [row for row in rows if row["split"] == "eval"]
    assert [row["step"] for row in evals] == [0, 1, 2]
    first, *_, last = (-row["return_mean"] for row in evals)
    assert last < 0.1 * first
    assert -found["return_mean"] < last
    kls = [row["policy/kl"] for row in rows if row["split"] == "train"]
    assert kls == pytest.approx([10, 10], rel=1e-6)
    assert found["return_std"] > 0


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: CollocationConfig(()), r"segments must be numbers of at least 1, got \(\)"),
        (lambda: CollocationConfig((5, 0)), "segments must be numbers of at least 1"),
        (lambda: CollocationConfig(tolerance=0.0), "tolerance must be positive"),
        (lambda: ObstacleConfig(margin=-0.1), "margin must be finite and at least 0"),
        (lambda: ObstacleConfig(growth=0.5), "growth must be at least 1"),
        (lambda: LearnConfig(explore=-1.0), "explore must be positive"),
        (lambda: LearnConfig(eval_episodes=0), "eval_episodes must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_named(make, sentence):
    with pytest.raises(UsageError, match=sentence):
        make()
