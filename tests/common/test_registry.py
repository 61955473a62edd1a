import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from common.envs.registry import SameStepCartPole, make_env, make_envs, spec, step_envs
from common.types import EnvSpec, UsageError
from tests.helpers import Counter, vector


@pytest.mark.parametrize("seed", range(3))
def test_native_cartpole_agrees_with_gymnasiums_scalar_one(seed):
    """Started from the same states, both give the same steps up to the end of the episodes."""
    native, scalar = SameStepCartPole(4), [gym.make("CartPole-v1").unwrapped for _ in range(4)]
    native.reset(seed=seed)
    for i, env in enumerate(scalar):
        env.reset()
        env.state = native.state[:, i].copy()
    alive = np.ones(4, bool)
    rng = np.random.default_rng(seed)
    while alive.any():
        action = rng.integers(2, size=4)
        obs, reward, terminated, truncated, info = native.step(action)
        successor = info.get("final_obs", obs)
        for i in np.nonzero(alive)[0]:
            expected, r, over, _, _ = scalar[i].step(int(action[i]))
            np.testing.assert_allclose(successor[i], expected, rtol=1e-5, atol=1e-6)
            assert (r, over, False) == (reward[i], terminated[i], truncated[i])
        alive &= ~terminated


def test_a_single_cartpole_needs_no_vectors():
    assert isinstance(make_envs("CartPole-v1", 2), SameStepCartPole)
    assert isinstance(
        make_envs("CartPole-v1", 1).envs[0].unwrapped, gym.make("CartPole-v1").unwrapped.__class__
    )


def test_native_cartpole_starts_anew_in_the_same_step():
    envs = make_envs("CartPole-v1", 2)
    envs.reset(seed=0)
    envs.steps[:] = 499, 10
    obs, _, terminated, truncated, info = envs.step(np.array([0, 0]))
    assert (truncated.tolist(), terminated.tolist()) == ([True, False], [False, False])
    assert info["_final_obs"].tolist() == [True, False]
    assert np.abs(obs[0]).max() <= 0.05 < np.abs(info["final_obs"][0]).max()
    assert envs.steps.tolist() == [0, 11]
    _, reward, *_ = envs.step(np.array([0, 0]))
    assert reward.tolist() == [1.0, 1.0]  # NEXT_STEP would give a false step of reward 0 here
    assert envs.steps.tolist() == [1, 12]


def test_actions_are_rescaled_and_clipped_at_the_border():
    envs = make_envs("InvertedPendulum-v5", 1)  # takes [-3, 3]
    box = envs.single_action_space
    assert (box.low, box.high) == (-1, 1)
    after = []
    for action in (1.0, 7.0):
        envs.reset(seed=0)
        after.append(step_envs(envs, np.array([[action]]))[0])
    np.testing.assert_array_equal(*after)


def test_a_policy_that_says_nan_is_not_the_environments_fault():
    envs = make_envs("Pendulum-v1", 2)
    envs.reset(seed=0)
    with pytest.raises(FloatingPointError, match="the policy gave an action that is not finite"):
        step_envs(envs, np.array([[0.0], [np.nan]]))


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [
        ("CartPole-v1", EnvSpec(3, 4, 2, True)),
        ("LunarLander-v3", EnvSpec(3, 8, 4, True)),
        ("HalfCheetah-v5", EnvSpec(3, 17, 6, False)),
    ],
)
def test_spec(env_id, expected):
    assert spec(make_envs(env_id, 3)) == expected


@pytest.mark.parametrize(
    ("env_id", "sentence"),
    [
        ("CartPol-v1", "did you mean CartPole-v1"),
        ("NoSuchThing-v0", "there is no environment"),
        ("FrozenLake-v1", "must have one vector of numbers as observation"),
        ("CarRacing-v3", "must have one vector of numbers as observation"),
    ],
)
def test_what_cannot_be_learned_is_one_sentence(env_id, sentence):
    with pytest.raises(UsageError, match=sentence):
        spec(make_envs(env_id, 1))


def test_actions_without_limits_are_refused():
    class Unlimited(Counter):
        action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)

    gym.register("test/Unlimited-v0", entry_point=Unlimited)
    try:
        with pytest.raises(UsageError, match="finite limits"):
            make_env("test/Unlimited-v0")
    finally:
        del gym.registry["test/Unlimited-v0"]


@pytest.mark.parametrize(
    "action_space",
    [gym.spaces.MultiDiscrete([2, 2]), gym.spaces.Box(-1, 1, (2, 2)), gym.spaces.Discrete(2, start=1)],
)
def test_other_action_spaces_are_refused(action_space):
    kind = type("Other", (Counter,), {"action_space": action_space})
    with pytest.raises(UsageError, match="env_id must have"):
        spec(vector(kind))


def test_own_environments_pass_gymnasiums_checker():
    own = [env_id for env_id in gym.registry if env_id.startswith("course/")]
    assert own
    for env_id in own:
        env = make_env(env_id).unwrapped
        check_env(env, skip_render_check="human" in env.metadata["render_modes"])  # MuJoCo opens a window


@pytest.mark.parametrize(("env_id", "camera"), [("HalfCheetah-v5", "track"), ("course/Reacher-v0", "side")])
def test_the_camera_follows_where_the_model_has_one_that_does(env_id, camera):
    env = make_env(env_id, "rgb_array").unwrapped
    assert env.model.camera(env.mujoco_renderer.camera_id).name == camera


def test_the_drawn_floor_has_no_end_and_squares_as_large_as_before():
    """80 m long with 60 squares."""
    model = make_env("HalfCheetah-v5", "rgb_array").unwrapped.model
    np.testing.assert_array_equal(model.geom("floor").size[:2], 0)
    np.testing.assert_allclose(model.mat_texrepeat[model.geom("floor").matid], 60 / 80)
    np.testing.assert_array_equal(make_env("HalfCheetah-v5").unwrapped.model.geom("floor").size[:2], 40)


def test_cartpole_without_velocities_is_cartpole_with_half_its_view():
    env, whole = gym.make("course/CartPoleNoVelocity-v0"), gym.make("CartPole-v1")
    seen, state = env.reset(seed=3)[0], whole.reset(seed=3)[0]
    terminated = False
    while not terminated:
        np.testing.assert_array_equal(seen, state[[0, 2]])
        seen, reward, terminated, *_ = env.step(1)
        state, *expected = whole.step(1)
        assert [reward, terminated] == expected[:2]
    assert (env.spec.max_episode_steps, env.spec.reward_threshold) == (500, 475)


def test_mujoco_leaves_no_log_file_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_env("HalfCheetah-v5")
    assert not list(tmp_path.iterdir())
