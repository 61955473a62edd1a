"""Costs of MuJoCo tasks against the returns of the environments."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from common.envs.mujoco_task import REWARDS, MujocoTask
from common.envs.registry import make_env
from common.types import UsageError


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def planned(task: MujocoTask, x, u) -> float:
    """Cost of the controls u [T, m] from x [n] on."""
    total = 0.0
    for control in u:
        total += task.cost(x, control)
        x = task.step(x, control)
    return float(total + task.final_cost(x))


@pytest.mark.parametrize("env_id", REWARDS)
def test_cost_is_minus_the_return_of_the_environment(env_id):
    """From the first observation: 20 gentle steps, or 200 wild ones where an episode ends by a fall, and the
    return after it does not grow. Contacts are solved to 1e-8, from another guess than the environment's."""
    falls = env_id in ("InvertedPendulum-v5", "Hopper-v5", "Walker2d-v5")
    task, env = MujocoTask(env_id), make_env(env_id)
    obs, _ = env.reset(seed=0)
    (x,) = task.state(obs[None])
    assert x.shape == (task.n,)
    u = 2 * torch.rand(200 if falls else 20, task.m, dtype=torch.float64, generator=generator()) - 1
    total, terminated = 0.0, False
    for control in u:
        if not terminated:
            _, reward, terminated, _, _ = env.step(task.action(control))
            total += reward
    assert terminated == falls
    assert planned(task, x, u) == pytest.approx(-total, rel=1e-5)


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Walker2d-v5"])
def test_health_is_that_of_the_environment(env_id):
    """At 500 states on both sides of every bound."""
    task, inner, rng = MujocoTask(env_id), gym.make(env_id).unwrapped, np.random.default_rng(0)
    half, answers = task.n // 2, []
    q, v = np.zeros((500, half)), rng.uniform(-40, 40, (500, half))
    q[:, 1], q[:, 2] = rng.uniform(0.5, 2.5, 500), 0.8 * rng.standard_normal(500) ** 3
    q[:, 3:], v[::10] = rng.uniform(-40, 40, q[:, 3:].shape), 110.0
    for inner.data.qpos[:], inner.data.qvel[:] in zip(q, v, strict=True):
        answers.append(inner.is_healthy)
    assert 50 < sum(answers) < 450
    assert task.healthy(torch.from_numpy(np.concatenate([q, v], 1))).tolist() == answers


def test_leading_dimensions_are_so_many_states():
    task = MujocoTask("Hopper-v5")
    x = task.dynamics.x0 + 0.01 * torch.randn(3, 2, task.n, dtype=torch.float64, generator=generator())
    u = torch.rand(3, 2, task.m, dtype=torch.float64, generator=generator())
    for function in (task.step, task.cost, lambda x, u: task.final_cost(x)):
        assert (function(x, u)[2, 1] == function(x[2, 1], u[2, 1])).all()


def test_an_unknown_environment_is_refused():
    with pytest.raises(UsageError, match=r"env_id must be one of InvertedPendulum-v5, .*, got 'Ant-v5'"):
        MujocoTask("Ant-v5")
