"""Environment id -> N environments that agree on three things: SAME_STEP autoreset (the step that ends an
episode also starts the next one, the true successor is in info["final_obs"]), observations that are one
vector, and continuous actions in [-1, 1], clipped and rescaled to the environment's own limits here.
"""

from __future__ import annotations

import difflib
import importlib
from types import ModuleType

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

import common.envs  # noqa: F401  registers course/...
from common.types import EnvSpec, UsageError, require


class SameStepCartPole(CartPoleVectorEnv):
    """Gymnasium's NumPy CartPole, which restarts an episode one step late (NEXT_STEP), made SAME_STEP."""

    metadata = CartPoleVectorEnv.metadata | {"autoreset_mode": AutoresetMode.SAME_STEP}

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        ended = terminated | truncated
        if ended.any():
            info = {"final_obs": obs.copy(), "_final_obs": ended}
            self.state[:, ended] = self.np_random.uniform(self.low, self.high, (4, ended.sum()))
            self.steps[ended] = 0
            self.prev_done[:] = False  # or the parent would restart them once more
            obs = self.state.T.astype(np.float32)
        return obs, reward, terminated, truncated, info


NATIVE = {"CartPole-v1": SameStepCartPole}  # vectorised in NumPy: one call for all N


def make_env(env_id: str, render_mode: str | None = None) -> gym.Env:
    """One environment as the agents know it, continuous actions in [-1, 1]."""
    try:
        is_mujoco = "mujoco" in str(gym.spec(env_id).entry_point)
        if is_mujoco:
            mujoco = importlib.import_module("mujoco")
            mujoco.set_mju_user_warning(lambda message: None)  # else MUJOCO_LOG.TXT lands where we stand
        env = gym.make(env_id, **({"render_mode": render_mode} if render_mode else {}))
        if is_mujoco and render_mode:
            follow(env.unwrapped, mujoco)
    except (gym.error.Error, ImportError) as error:
        close = difflib.get_close_matches(env_id, gym.registry, n=1)
        hint = f"; did you mean {close[0]}?" if close and close[0] != env_id else f": {error}"
        raise UsageError(f"there is no environment {env_id!r} here{hint}") from error
    box = env.action_space
    if isinstance(box, Box) and not (np.all(box.low == -1) and np.all(box.high == 1)):
        bounded = np.isfinite(box.low).all() and np.isfinite(box.high).all()
        require(bounded, f"env_id must have actions with finite limits, got {box}")
        env = gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
    return env


def follow(env: gym.Env, mujoco: ModuleType) -> None:
    """Gymnasium's camera stands still and its floor ends after 40 m. Here the model's own camera follows the
    robot, if it has one, and the floor is drawn without end, its squares as large as before."""
    model = env.model
    floor = (model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE) & (model.geom_matid >= 0)
    model.mat_texrepeat[model.geom_matid[floor]] /= 2 * model.geom_size[floor, :2]
    model.geom_size[floor, :2] = 0  # MuJoCo's word for infinity
    camera = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
    if camera >= 0:
        env.mujoco_renderer.camera_id = camera


def make_envs(env_id: str, num_envs: int) -> VectorEnv:
    """N environments in one process: for these, worker processes cost more than they bring."""
    if env_id in NATIVE and num_envs > 1:  # of a single one NumPy's overhead would be more than the step
        return NATIVE[env_id](num_envs)
    return SyncVectorEnv([lambda: make_env(env_id)] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def spec(envs: VectorEnv) -> EnvSpec:
    """Sizes for the agent, or a UsageError where the spaces are not what the homeworks can learn."""
    obs, action = envs.single_observation_space, envs.single_action_space
    require(
        isinstance(obs, Box) and len(obs.shape) == 1,
        f"env_id must have one vector of numbers as observation, got {obs}",
    )
    if isinstance(action, Discrete):
        require(action.start == 0, f"env_id must have actions that count from 0, got {action}")
        return EnvSpec(envs.num_envs, obs.shape[0], int(action.n), True)
    require(
        isinstance(action, Box) and len(action.shape) == 1,
        f"env_id must have discrete actions or one vector of numbers, got {action}",
    )
    return EnvSpec(envs.num_envs, obs.shape[0], action.shape[0], False)


def step_envs(envs: VectorEnv, action: np.ndarray) -> tuple[np.ndarray, ...]:
    """`envs.step` with continuous actions clipped to [-1, 1]; stops where policy or environment break."""
    if isinstance(envs.single_action_space, Box):
        action = np.clip(action, -1, 1)
        if not np.isfinite(action).all():
            raise FloatingPointError("the policy gave an action that is not finite")
    obs, reward, terminated, truncated, info = envs.step(action)
    require_finite("reward", reward)
    require_finite("observation", obs)
    return obs, reward, terminated, truncated, info


def require_finite(name: str, value: np.ndarray) -> None:
    """FloatingPointError if the environment gave something else."""
    if not np.isfinite(value).all():
        raise FloatingPointError(f"the environment returned a {name} that is not finite")
