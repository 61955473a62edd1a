"""Goal-conditioned cloning and its iteration, GCSL (Lynch et al. 2019; Ghosh et al. 2021).

max_theta sum log pi_theta(a_t | s_t, g = s_{t+h}): whatever was done shows how to get to where it led.
1. play towards goals, at first at random
2. relabel: every state that a trajectory came to later is a goal that it reached
3. clone, and again: trajectories get straighter as the policy does

Steps that led somewhere by a detour are cloned as well; the shorter h, the smaller the detour can be.
"""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch

from common.distributions import Categorical
from common.seeding import child_seed, generator
from common.types import EnvSpec, require, require_at_least, require_positive, require_unit
from hw1_imitation.behavior_cloning import BCConfig, BehaviorCloning
from hw1_imitation.demonstrations import Act, Demonstrations, collect


@dataclass(frozen=True)
class GoalConfig(BCConfig):
    hidden: tuple[int, ...] = (128, 128)  # units per layer; none is a linear policy
    steps: int = 10_000  # played before each round
    horizon: int = 80  # h, steps to a goal at most
    relabels: int = 4  # goals for each step that was played
    random: float = 0.2  # share of the actions drawn at random while data are collected
    temperature: float = 0.5  # of the policy as it acts: below 1 it prefers what it saw most

    def __post_init__(self):
        super().__post_init__()
        require_at_least(self, 1, "steps", "horizon", "relabels")
        require(max(self.steps, self.relabels) < 2**31, "steps and relabels must be below 2^31")
        require_unit(self, "random")
        require_positive(self, "temperature")


def relabel(
    data: Demonstrations, goal: slice, horizon: int, copies: int, generator: torch.Generator
) -> Demonstrations:
    """`copies` pairs ([s_t, s_{t+h}], a_t) of every step, h uniform up to `horizon` or the trajectory's end.

    The observations are [s, g] of equal lengths; `goal` says which columns g is in. The last step of a
    trajectory, whose successor is not recorded, is left out.
    """
    size = data.obs.shape[1] - (goal.stop - goal.start)
    ends = data.length.cumsum(0).repeat_interleave(data.length)  # [M]
    rows = torch.arange(len(data)).repeat(copies)
    left = (ends[rows] - 1 - rows).clamp(max=horizon)
    rows, left = rows[left > 0], left[left > 0]
    require(len(rows) > 0, "data must hold a trajectory of two steps at least")
    h = 1 + (torch.rand(len(rows), generator=generator) * left).long().clamp(max=horizon - 1)
    obs = data.obs[rows].clone()
    obs[:, goal] = data.obs[rows + h, :size]
    return Demonstrations(obs, data.action[rows], torch.tensor([len(rows)]))


class Exploring:
    """The policy, but for a share of its actions drawn uniformly: [N, D] -> [N]"""

    def __init__(self, policy: Act, actions: int, share: float, generator: np.random.Generator):
        self.policy, self.actions, self.share, self.generator = policy, actions, share, generator

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        drawn = self.generator.integers(self.actions, size=len(obs))
        return np.where(self.generator.random(len(obs)) < self.share, drawn, self.policy(obs))


class GoalCloning(BehaviorCloning):
    """Acts by drawing: what is most frequent in a corner of the maze may never lead out of it."""

    def __init__(self, spec: EnvSpec, config: GoalConfig, device: torch.device, seed: int):
        ok = spec.discrete and spec.obs_dim % 2 == 0
        require(ok, "env_id must have discrete actions and observations [state, goal]")
        super().__init__(spec, config, device, seed)
        self.generator = generator(seed, "act", device=device)

    @torch.inference_mode()
    def act(self, obs: np.ndarray) -> np.ndarray:
        logits = self.policy(torch.as_tensor(obs, dtype=torch.float32, device=self.device))
        return Categorical(logits / self.config.temperature).sample(self.generator).cpu().numpy()


def practise(
    policy: Act, envs: gym.vector.VectorEnv, spec: EnvSpec, config: GoalConfig, i: int, seed: int
) -> Demonstrations:
    """Steps 1 and 2 of round i, all at random in round 0. Observations are [s, g]."""
    numbers = np.random.default_rng(child_seed(seed, "explore", i))
    act = Exploring(policy, spec.action_dim, config.random if i else 1.0, numbers)
    steps = -(-config.steps // envs.num_envs)
    played = collect(act, envs, steps, child_seed(seed, "practice", i))
    goal = slice(spec.obs_dim // 2, spec.obs_dim)
    return relabel(played, goal, config.horizon, config.relabels, generator(seed, "relabel", i))
