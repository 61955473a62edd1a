"""What results are compared with: the true dynamics are those of the environments."""

import dataclasses

import numpy as np
import pytest
import torch

from common.envs import registry
from hw4_model_based import references
from hw4_model_based.mpc import MPCConfig
from hw4_model_based.references import TRUE, random_policy, score
from hw4_model_based.run import PRESETS


@pytest.mark.parametrize("env_id", TRUE)
def test_the_true_dynamics_are_the_environments(env_id):
    envs = registry.make_envs(env_id, 3)
    obs, _ = envs.reset(seed=0)
    step, draws = TRUE[env_id][0], np.random.default_rng(0)
    for _ in range(30):
        action = draws.uniform(-1, 1, envs.action_space.shape).astype(np.float32)
        before = torch.from_numpy(obs).float()
        obs, *_ = registry.step_envs(envs, action)
        np.testing.assert_allclose(step(before, torch.from_numpy(action)), obs, atol=1e-4)
    envs.close()


@pytest.mark.parametrize("preset", ["mpc-obstacles", "pets-cartpole"])
def test_the_search_is_that_of_the_preset(preset):
    algo, known = PRESETS[preset].algo, TRUE[PRESETS[preset].env_id][1]
    for field in dataclasses.fields(MPCConfig):
        if field.name != "model":
            assert getattr(known, field.name) == getattr(algo, field.name), field.name


def test_plans_of_the_true_dynamics_find_the_way_and_random_actions_do_not(monkeypatch):
    monkeypatch.setattr(references, "EPISODES", 3)
    env_id = "course/Obstacles-v0"
    known = score(env_id, lambda envs: references.Omniscient(env_id, registry.spec(envs), 0), 0)
    chance = score(env_id, lambda envs: random_policy(registry.spec(envs), 0), 0)
    assert known > -25
    assert chance < -80
    assert chance == score(env_id, lambda envs: random_policy(registry.spec(envs), 0), 0)


def test_pd_control_sees_the_state_behind_the_pixels(monkeypatch):
    """With gains that brake in time it comes near; the wrong way round it ends at the wall."""
    monkeypatch.setattr(references, "EPISODES", 3)
    good, bad = (
        score("course/PointMassPixels-v0", lambda envs, p=p: references.pd_policy(envs, p, 5.0), 0)
        for p in (3.0, -3.0)
    )
    assert good > -4
    assert bad < -30
