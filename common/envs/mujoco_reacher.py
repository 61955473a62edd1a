"""An arm of seven joints brings its fingertip to a target and keeps it there: 200 steps of 0.02 s.

Reward: minus ten times the distance left, in metres. After the reacher of the homework on models of
Berkeley's CS 285, with an arm of our own.
"""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import torch
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.spaces import Box
from gymnasium.utils import EzPickle

from common.envs.model_tasks import arm_reward

TARGETS = np.array([[0.2, -0.4, -0.3], [0.6, 0.4, 0.3]])  # m, corners of the box they are drawn from
POSE = np.array([0.0, 0.5, 0.0, -1.2, 0.0, 0.4, 0.0])  # rad, at first, give or take a little: the arm is bent
SLOW = 0.1  # s, velocities are shown times this


class Reacher(MujocoEnv, EzPickle):
    """Observation = [7 angles, 7 angular velocities / 10, fingertip, target]; actions are torques."""

    metadata = {  # noqa: RUF012, as Gymnasium has it
        "render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"],
        "render_fps": 50,
    }

    def __init__(self, **options):
        EzPickle.__init__(self, **options)
        path = Path(__file__).parent / "assets" / "arm.xml"
        space = Box(-np.inf, np.inf, (20,), np.float64)
        MujocoEnv.__init__(self, str(path), 2, space, camera_name="side", **options)
        self.finger, self.target = (self.model.site(name).id for name in ("finger", "target"))

    def step(self, action):
        self.do_simulation(action, self.frame_skip)
        obs = self._get_obs()
        seen = torch.from_numpy(obs)
        return obs, float(arm_reward(seen, torch.from_numpy(action), seen)), False, False, {}

    def reset_model(self):
        self.model.site_pos[self.target] = self.np_random.uniform(*TARGETS)
        noise = 0.05 * self.np_random.standard_normal((2, 7))
        self.set_state(POSE + noise[0], noise[1])
        return self._get_obs()

    def _get_obs(self):
        mujoco.mj_kinematics(self.model, self.data)  # a step leaves the fingertip where it was 0.01 s before
        finger, target = self.data.site_xpos[[self.finger, self.target]]
        return np.concatenate([self.data.qpos, SLOW * self.data.qvel, finger, target])
