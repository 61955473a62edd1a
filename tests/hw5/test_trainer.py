"""The plan-execute loop: what is planned is what is played, and what feedback is worth."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from common.envs.control_tasks import TASKS
from common.envs.registry import make_envs
from common.evaluation import evaluate, scores
from common.logger import RunLogger, read_rows
from common.types import UsageError
from hw5_planning_control.planners import LQRConfig, lqr_planner, problem_of
from hw5_planning_control.shooting import cost_of
from hw5_planning_control.trainer import (
    ControlConfig,
    Controller,
    OptimizeConfig,
    control,
    optimize,
    pool,
)

DOUBLE = "course/DoubleIntegrator-v0"


def lqr(x: Tensor, u: Tensor):
    return lqr_planner(TASKS[DOUBLE], LQRConfig(), torch.Generator())(x, u)


class Stand(NamedTuple):
    """A plan of counting controls, which remembers the planner's arguments."""

    x: Tensor
    u: Tensor
    K: Tensor


def counting(calls: list):
    """Its k-th plan is 100 k, 100 k + 1, ..."""

    def plan(x: Tensor, u: Tensor) -> Stand:
        N, T, m = u.shape
        calls.append(u.clone())
        new = 100.0 * len(calls) + torch.arange(T, dtype=torch.float64)[None, :, None].expand(N, T, m)
        return Stand(torch.zeros(N, T + 1, 2).double(), new, torch.zeros(N, T, m, 2).double())

    return plan


class Clock:
    """A task of 7 steps, to see what is played."""

    m, horizon, u_low, u_high, rest = 1, 7, -1.0, 1.0, -3.0

    def state(self, obs):
        return torch.from_numpy(obs)

    def action(self, u):
        return u[:, 0].tolist()


def play(**settings) -> tuple[list, list]:
    """Seven actions of two episodes, and the first controls of every plan."""
    calls = []
    controller = Controller(counting(calls), Clock(), **settings)
    controller.begin(np.ones(2, bool))
    return [controller(np.zeros((2, 2)))[0] for _ in range(7)], [u[0, :, 0].tolist() for u in calls]


def test_open_loop_plans_once_and_plays_it_to_the_end():
    actions, firsts = play()
    assert actions == [100, 101, 102, 103, 104, 105, 106]
    assert firsts == [[-3.0] * 7]


def test_mpc_plays_the_first_control_of_each_plan_and_starts_from_the_rest_of_the_last():
    actions, firsts = play(horizon=3, replan_every=1)
    assert actions == [100, 200, 300, 400, 500, 600, 700]
    assert firsts[1] == [101, 102, -3]
    assert firsts[4:] == [[401, 402, -3], [501, 502], [601]]  # no step is planned beyond the end


def test_every_third_step_a_plan():
    actions, firsts = play(horizon=4, replan_every=3)
    assert actions == [100, 101, 102, 200, 201, 202, 300]
    assert firsts == [[-3] * 4, [103, -3, -3, -3], [203]]


def test_a_second_episode_starts_without_the_memory_of_the_first():
    calls = []
    controller = Controller(counting(calls), Clock())
    for _ in range(2):
        controller.begin(np.ones(2, bool))
        controller(np.zeros((2, 2)))
    assert calls[1].tolist() == calls[0].tolist()


def test_feedback_pulls_towards_the_planned_state():
    plan = Stand(torch.ones(1, 8, 2), torch.full((1, 7, 1), 5.0), torch.tensor([[[[-2.0, -3.0]]] * 7]))
    for feedback, expected in ((True, 5 - 2 * 1 - 3 * 4), (False, 5)):
        controller = Controller(lambda x, u: plan, Clock(), feedback=feedback)
        controller.begin(np.ones(1, bool))
        assert controller(np.array([[2.0, 5.0]], np.float32)) == [expected]


@pytest.mark.parametrize("env_id", [name for name in TASKS if name.startswith("course/")])
def test_the_environment_plays_what_the_problem_says(env_id):
    """Minus the return of random controls = the cost of the same controls by the problem's own functions."""
    task, envs = TASKS[env_id], make_envs(env_id, 2)
    x = task.state(envs.reset(seed=5)[0])
    noise = torch.randn(2, task.horizon, task.m, generator=torch.Generator().manual_seed(0)).double()
    u = (task.rest + 0.1 * noise).clamp(task.u_low, task.u_high)
    problem = problem_of(task, x, task.horizon)
    states = problem.rollout(u)
    K = torch.zeros(2, task.horizon, task.m, task.n, dtype=torch.float64)
    played = evaluate(Controller(lambda x, _: Stand(states, u, K), task), envs, 5)
    cost = problem.total_cost(states, u)
    torch.testing.assert_close(-played["return_mean"], cost.mean().item(), rtol=1e-6, atol=0)
    torch.testing.assert_close(cost_of(task, x, u), cost, rtol=1e-12, atol=0)
    assert played["length_mean"] == task.horizon


def test_pendulum_task_is_gymnasiums_pendulum():
    task, envs = TASKS["Pendulum-v1"], make_envs("Pendulum-v1", 3)
    x = task.state(envs.reset(seed=0)[0])
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        u = 4 * torch.rand(3, 1, generator=generator, dtype=torch.float64) - 2
        obs, reward, *_ = envs.step(task.action(u))
        np.testing.assert_allclose(-task.cost(x, u).numpy(), reward, rtol=1e-3, atol=1e-4)
        x = task.step(x, u)
        np.testing.assert_allclose(x[:, 0].cos(), obs[:, 0], atol=1e-4)
        np.testing.assert_allclose(x[:, 1], obs[:, 2], atol=1e-3)
        x = task.state(obs)


def returns_under_noise(**settings) -> float:
    envs = make_envs(DOUBLE, 8)
    envs.set_attr("noise", 0.1)
    return evaluate(Controller(lqr, TASKS[DOUBLE], **settings), envs, 0)["return_mean"]


def test_feedback_beats_the_open_loop_under_noise_and_replanning_equals_it():
    """Certainty equivalence: the plan from the new state is the feedback law of the first plan."""
    feedback, replanning = returns_under_noise(), returns_under_noise(feedback=False, replan_every=1)
    assert feedback == pytest.approx(replanning, rel=1e-6)
    assert feedback > returns_under_noise(feedback=False) + 1


def test_without_noise_all_three_are_the_same():
    envs, task = make_envs(DOUBLE, 3), TASKS[DOUBLE]
    runs = [
        evaluate(Controller(lqr, task, **settings), envs, 0)["return_mean"]
        for settings in ({}, {"feedback": False}, {"replan_every": 1})
    ]
    assert runs == pytest.approx([runs[0]] * 3, rel=1e-6)


def test_the_noise_has_the_deviation_that_it_says():
    envs = make_envs(DOUBLE, 400)
    x = TASKS[DOUBLE].state(envs.reset(seed=0)[0])
    envs.set_attr("noise", 0.3)
    obs, *_ = envs.step(np.zeros((400, 1), np.float32))
    error = TASKS[DOUBLE].state(obs) - TASKS[DOUBLE].step(x, torch.zeros(400, 1, dtype=torch.float64))
    assert error.std(0).numpy() == pytest.approx([0.3, 0.3], rel=0.14)  # 4 standard errors


class Optimized(NamedTuple):
    x: Tensor
    u: Tensor
    K: Tensor
    cost: Tensor
    cost_history: Tensor
    converged: Tensor
    gradient_norm: Tensor


def test_optimizer_rows_are_its_cost_history_and_the_last_one_is_played(tmp_path):
    task, firsts = TASKS[DOUBLE], []

    def planner(x, u):
        firsts.append(u)
        plan = lqr(x, u)
        cost = problem_of(task, x, task.horizon).total_cost(plan.x, plan.u)
        history = torch.stack([cost + 2, cost], -1)
        return Optimized(*plan, cost, history, torch.tensor([True, False]), torch.tensor([1.0, 3.0]))

    logger = RunLogger(tmp_path, 1)
    config = OptimizeConfig(starts=2, start_std=0.1)
    played, best = optimize(planner, task, make_envs(DOUBLE, 2), logger, config, seed=3)
    logger.close("finished")
    first, second, train = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in (first, second, train)] == [0, 1, 1]
    assert first["return_mean"] == pytest.approx(second["return_mean"] - 2)
    assert played["return_mean"] == pytest.approx(second["return_mean"], rel=1e-6)
    assert (train["plan/converged"], train["grad/norm"]) == (0.5, 2.0)
    assert best.u.shape == (1, 50, 1)
    assert firsts[0].std().item() == pytest.approx(0.1 * 10, rel=0.25)


def test_batches_of_episodes_are_seeded_by_their_step_and_rounded_up(tmp_path):
    task, seeds, logger = TASKS[DOUBLE], [], RunLogger(tmp_path, 250)

    def make(seed):
        seeds.append(seed)
        return Controller(lqr, task)

    config = ControlConfig(total_steps=250, num_envs=2)
    assert control(make, make_envs(DOUBLE, 2), logger, config, seed=0) == "finished"
    logger.close("finished")
    rows = [row for row in read_rows(tmp_path / "metrics.jsonl") if row["split"] == "eval"]
    assert [row["step"] for row in rows] == [100, 200, 300]
    assert len(set(seeds)) == len({row["return_mean"] for row in rows}) == 3


def test_pooled_scores_are_those_of_all_episodes():
    returns, length = np.array([1.0, 5.0, 2.0, 8.0, -4.0]), np.full(5, 10.0)
    halves = [scores(returns[:2], length[:2]), scores(returns[2:], length[2:])]
    pooled, whole = pool(halves), scores(returns, length)
    assert pooled == pytest.approx(whole)


@pytest.mark.parametrize(
    ("config", "changes", "sentence"),
    [
        (OptimizeConfig(), {"starts": 0}, "starts must be at least 1, got 0"),
        (OptimizeConfig(), {"start_std": float("nan")}, "start_std must be finite and at least 0, got nan"),
        (ControlConfig(), {"total_steps": 0}, "total_steps must be at least 1"),
        (ControlConfig(), {"noise": -1.0}, "noise must be finite and at least 0, got -1"),
        (ControlConfig(), {"horizon": 5}, r"replan_every must lie in \[1, horizon = 5\], got 0"),
        (ControlConfig(), {"horizon": 5, "replan_every": 6}, r"replan_every must lie in \[1, horizon = 5\]"),
    ],
)
def test_bad_settings_are_named(config, changes, sentence):
    with pytest.raises(UsageError, match=sentence):
        replace(config, **changes)
