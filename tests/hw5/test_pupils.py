"""What the runs of pupils write, and that they learn where their tasks say so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common import checkpoint
from common.cli import RunOptions
from common.envs.control_tasks import TASKS
from common.envs.lob import WALL
from common.envs.registry import make_env, make_envs, spec, step_envs
from common.logger import RunLogger, read_rows
from common.types import UsageError
from hw5_planning_control import pupils
from hw5_planning_control.distillation import DistillationConfig
from hw5_planning_control.divide_and_conquer import DivideConfig
from hw5_planning_control.planner_imitation import StudentConfig
from hw5_planning_control.pupils import (
    ExamConfig,
    ImitateConfig,
    ManyLakesConfig,
    PupilConfig,
    StartsConfig,
    arena_of,
    conquer,
    imitate,
    master_lakes,
    microseconds,
    planner_of,
)
from hw5_planning_control.run import PRESETS
from hw5_planning_control.shooting import CEMConfig, cem_planner
from hw5_planning_control.tree_policy import MCTSConfig
from tests.helpers import run

CEM = CEMConfig(iterations=1, samples=20, elites=4)
PENDULUM = replace(
    PRESETS["imitate-mpc-pendulum"],
    algo=ImitateConfig(CEM, StudentConfig(hidden=8, epochs=2), rounds=2, steps=3),
    train=PupilConfig(num_envs=2, horizon=4, eval_episodes=2),
)


def taught(lesson, config: RunOptions, out: Path) -> tuple[dict, object, list[dict], list[dict]]:
    """What the lesson gives back, its train rows and its eval rows."""
    logger = RunLogger(out, config.algo.rounds)
    found, act = lesson(config, logger)
    logger.close("finished")
    written = read_rows(out / "metrics.jsonl")
    assert checkpoint.load_latest(out / "checkpoint")["step"] == config.algo.rounds
    return found, act, *([row for row in written if row["split"] == split] for split in ("train", "eval"))


def test_a_pupil_of_mpc_is_graded_and_timed_beside_its_planner(tmp_path):
    found, act, train, evals = taught(imitate, PENDULUM, tmp_path)
    assert [row["step"] for row in evals] == [1, 2]
    assert found["return_mean"] == evals[-1]["return_mean"]
    assert [row["plan/labels"] for row in train[:-1]] == [6, 12]
    assert train[-1]["plan/return_mean"] < 0
    assert train[-1]["speed/planner_us"] > train[-1]["speed/network_us"] > 0
    assert act(np.zeros((3, 3))).shape == (3, 1)


def test_a_pupil_of_tree_search_learns_its_actions(tmp_path):
    search = ImitateConfig(MCTSConfig(4, 1.0, 4), StudentConfig(hidden=8, epochs=2), rounds=1, steps=2)
    config = replace(
        PRESETS["imitate-mcts-breakout"], algo=search, train=PupilConfig(num_envs=2, eval_episodes=1)
    )
    _, act, train, _ = taught(imitate, config, tmp_path)
    assert train[0]["plan/labels"] == 4
    assert act(make_envs(config.env_id, 5).reset(seed=0)[0]).dtype == np.int64


def test_the_planner_forgets_what_it_planned_before():
    """It plays the first control of a plan from rest, also after it was asked elsewhere."""
    obs, task = np.array([[1.0, 0.0, 0.5], [-1.0, 0.0, 2.0]]), TASKS["Pendulum-v1"]
    act = planner_of(PENDULUM)
    seed = pupils.child_seed(PENDULUM.seed, "plan")
    plan = cem_planner(task, CEM, torch.Generator().manual_seed(seed))
    rest = torch.zeros(2, 4, 1, dtype=torch.float64)
    for seen in (obs, -obs):
        expected = task.action(plan(task.state(seen), rest).u[:, 0])
        np.testing.assert_array_equal(act(seen), expected)


def test_the_time_of_an_action_is_the_median_of_one_observation_each(monkeypatch):
    """Of 1, 100 and 2 seconds."""
    ticks, asked = iter([0.0, 1.0, 1.0, 101.0, 101.0, 103.0]), []
    monkeypatch.setattr(pupils.time, "perf_counter", lambda: next(ticks))
    assert microseconds(lambda obs: asked.append(obs.shape), np.zeros((3, 4))) == 2e6
    assert asked == [(1, 4)] * 3


def lakes(hidden: int, **settings) -> RunOptions:
    student = DistillationConfig(epochs=100, lr=1e-2, hidden=(hidden,))
    algo = ManyLakesConfig(student, lakes=2, teachers=2, **settings)
    return replace(PRESETS["distill-frozenlake"], algo=algo, train=ExamConfig(evaluations=2))


def test_one_network_does_on_every_lake_what_its_teachers_do(tmp_path):
    """Teachers who tried everything 3,000 times are all but perfect: 0.74 is the optimum of the first lake
    within its 100 steps."""
    found, act, train, evals = taught(master_lakes, lakes(64, tries=3000), tmp_path)
    assert [row["step"] for row in evals] == [50, 100]
    assert found["episodes"] == 2
    assert train[-1]["policy/worst_share"] >= 0.9
    assert train[-1]["teacher/return_mean"] == pytest.approx(train[-1]["teacher/alone_mean"], abs=0.02)
    assert found["return_min"] == pytest.approx(0.74, abs=0.03) or found["return_max"] > 0.74
    assert act(np.array([0, 4, 14])).tolist()[0] == 0  # left, into the wall: the one way that cannot slip


def test_an_ensemble_knows_a_lake_better_than_its_members(tmp_path):
    _, _, train, _ = taught(master_lakes, lakes(4, tries=5), tmp_path)
    assert train[-1]["teacher/return_mean"] > train[-1]["teacher/alone_mean"]


@pytest.mark.parametrize("env_id", ["course/PendulumSwingUp-v0", "course/Quadrotor-v0", "course/Lob-v0"])
def test_the_arena_is_the_environment(env_id):
    """The same observations and rewards, to the end; actions beyond the limits are clipped."""
    random, envs = torch.Generator().manual_seed(0), make_envs(env_id, 2)
    arena, (obs, _) = arena_of(env_id, 0.3, random), envs.reset(seed=0)
    x = WALL * torch.tensor(obs) if env_id == "course/Lob-v0" else TASKS[env_id].state(obs)
    for t in range(arena.steps):
        np.testing.assert_allclose(arena.observe(x, t), obs, rtol=1e-5, atol=1e-5)
        action = 1.5 * torch.randn(2, spec(envs).action_dim, generator=random)
        x, reward = arena.step(x, action, t)
        obs, expected, over, *_ = step_envs(envs, action.numpy())
        np.testing.assert_allclose(reward, expected, rtol=1e-4, atol=1e-6)
    assert over.all()


def test_starts_spread_around_the_tasks_own():
    x = arena_of("course/AcrobotSwingUp-v0", 2.0, torch.Generator().manual_seed(0)).starts(4000)
    torch.testing.assert_close(x.mean(0), torch.zeros(4).double(), rtol=0, atol=0.15)
    torch.testing.assert_close(x.std(0), torch.full((4,), 2.0).double(), rtol=0, atol=0.15)


def test_a_divided_policy_is_graded_when_it_was_put_together(tmp_path):
    config = replace(
        PRESETS["divide-lob"],
        env_id="course/PendulumSwingUp-v0",
        algo=DivideConfig(rounds=3, distil_every=2, episodes=8, epochs=1, distil_steps=2, hidden=4),
        train=StartsConfig(eval_episodes=5),
    )
    found, act, train, evals = taught(conquer, config, tmp_path)
    assert [row["step"] for row in train] == [1, 2, 3]
    assert [row["step"] for row in evals] == [2, 3]
    assert ["loss/distillation" in row for row in train] == [False, True, True]
    assert (found["episodes"], found["length_mean"]) == (5, 100)
    env = make_env(config.env_id)
    assert np.abs(act(env.reset(seed=0)[0][None])).max() <= 1


@pytest.mark.parametrize(
    ("lesson", "preset", "env_id", "sentence"),
    [
        (conquer, "divide-lob", "Pendulum-v1", "env_id must be course/Lob-v0 or a task with a horizon"),
        (master_lakes, "distill-frozenlake", "CliffWalking-v1", "env_id must be a frozen lake"),
        (imitate, "imitate-mpc-pendulum", "CartPole-v1", "env_id must have known dynamics"),
        (imitate, "imitate-mcts-breakout", "Pendulum-v1", "env must be a toy-text environment"),
    ],
)
def test_an_environment_of_another_kind_is_refused(lesson, preset, env_id, sentence):
    with pytest.raises(UsageError, match=sentence):
        lesson(replace(PRESETS[preset], env_id=env_id), None)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ImitateConfig(CEM, rounds=0), "rounds must be at least 1"),
        (lambda: PupilConfig(eval_episodes=0), "eval_episodes must be at least 1"),
        (lambda: ManyLakesConfig(value_unit=0.0), "value_unit must be positive"),
        (lambda: StartsConfig(spread=-1.0), "spread must be finite and at least 0"),
        (lambda: ExamConfig(evaluations=0), "evaluations must be at least 1"),
    ],
)
def test_bad_settings_are_named(make, sentence):
    with pytest.raises(UsageError, match=sentence):
        make()


def test_the_command_line_runs_a_lesson(tmp_path):
    settings = ["--algo.lakes", 2, "--algo.teachers", 1, "--algo.student.epochs", 2]
    result = run("distill-frozenlake", *settings, "--out", tmp_path, module="hw5_planning_control.run")
    assert result.returncode == 0, result.stderr
    assert "over 2 episodes" in result.stdout.splitlines()[-1]
