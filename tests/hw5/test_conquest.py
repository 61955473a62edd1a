"""Divide and conquer on environments: their equations, their starts, and when the policy is graded."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.envs.control_tasks import TASKS
from common.envs.lob import WALL
from common.envs.registry import make_env, make_envs, spec, step_envs
from common.types import UsageError
from hw5_planning_control.conquest import Conquest, StartsConfig, arena_of
from hw5_planning_control.divide_and_conquer import DivideConfig
from hw5_planning_control.run import PRESETS
from tests.hw5.problems import taught


@pytest.mark.parametrize("env_id", ["course/PendulumSwingUp-v0", "course/Quadrotor-v0", "course/Lob-v0"])
def test_the_arena_is_the_environment(env_id):
    """The same observations and rewards, to the end; actions beyond the limits are clipped."""
    random, envs = torch.Generator().manual_seed(0), make_envs(env_id, 2)
    arena, (obs, _) = arena_of(env_id, 0.3), envs.reset(seed=0)
    x = WALL * torch.tensor(obs) if env_id == "course/Lob-v0" else TASKS[env_id].state(obs)
    for t in range(arena.steps):
        np.testing.assert_allclose(arena.observe(x, t), obs, rtol=1e-5, atol=1e-5)
        action = 1.5 * torch.randn(2, spec(envs).action_dim, generator=random)
        x, reward = arena.step(x, action, t)
        obs, expected, over, *_ = step_envs(envs, action.numpy())
        np.testing.assert_allclose(reward, expected, rtol=1e-4, atol=1e-6)
    assert over.all()


def test_starts_spread_around_the_tasks_own():
    x = arena_of("course/AcrobotSwingUp-v0", 2.0).starts(4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(x.mean(0), torch.zeros(4).double(), rtol=0, atol=0.15)
    torch.testing.assert_close(x.std(0), torch.full((4,), 2.0).double(), rtol=0, atol=0.15)


def test_a_divided_policy_is_graded_when_it_was_put_together(tmp_path):
    config = replace(
        PRESETS["divide-lob"],
        env_id="course/PendulumSwingUp-v0",
        algo=DivideConfig(rounds=3, distil_every=2, episodes=8, epochs=1, distil_steps=2, hidden=4),
        train=StartsConfig(eval_episodes=5),
    )
    lesson = Conquest(config)
    train, evals = taught(lesson, 3, tmp_path)
    assert [row["step"] for row in train] == [1, 2, 3]
    assert [row["step"] for row in evals] == [2, 3]
    assert ["loss/distillation" in row for row in train] == [False, True, True]
    assert (evals[-1]["episodes"], evals[-1]["length_mean"]) == (5, 100)
    env = make_env(config.env_id)
    assert np.abs(lesson.act(env.reset(seed=0)[0][None])).max() <= 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"env_id": "Pendulum-v1"}, "env_id must be course/Lob-v0 or a task with a horizon"),
        ({"algo": DivideConfig(axis=1)}, "axis must lie in"),
    ],
)
def test_what_cannot_be_divided_is_refused(change, sentence):
    with pytest.raises(UsageError, match=sentence):
        Conquest(replace(PRESETS["divide-lob"], **change))


def test_bad_settings_are_named():
    with pytest.raises(UsageError, match="spread must be finite and at least 0"):
        StartsConfig(spread=-1.0)
