"""The half-cheetah that must not throw its front leg up: HalfCheetah-v5's body, 500 steps of 0.01 s.

Reward: the velocity in m/s, minus 10 each while the front thigh is above 0.2, the front shin above 0 and the
front foot above 0. After the half-cheetah of the homework on models of Berkeley's CS 285; HalfCheetah-v5
acts every 0.05 s, lets the legs go where they like, and charges for torque instead.
"""

from __future__ import annotations

import torch
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

from common.envs.model_tasks import cheetah_reward


class CheetahRun(HalfCheetahEnv):
    """Observation as HalfCheetah-v5's: [height, 7 angles, 2 velocities, 7 angular velocities]."""

    def __init__(self, **options):
        super().__init__(frame_skip=1, **options)

    def _get_rew(self, x_velocity, action):
        seen = torch.from_numpy(self._get_obs())
        return float(cheetah_reward(seen, torch.from_numpy(action), seen)), {}
