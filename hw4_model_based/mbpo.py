"""v3.0: off-policy learning from real steps and from short branches of the model (MBPO, Janner et al. 2019).

every few steps   fit p_theta to all real data; from real states drawn at random, imagine branches of H steps
                  with the policy of now; keep them in a memory of their own
every update      a batch, a share of it real and the rest imagined, for any off-policy agent

H = 1 is Dyna with networks (Sutton 1990). With NAF it is Gu et al. 2016's imagination rollouts, who fitted
local linear models; with SAC it is MBPO. H may grow as the model gets better. Real batches alone leave the
agent as it is, bit for bit. Reward and end are known functions, not outputs of the model: the agent cannot
learn from a fall that the model did not notice. No gradient flows through the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from common.envs.model_tasks import ModelTask
from common.replay import Batch, Replay
from common.schedules import Linear
from common.seeding import generator
from common.types import Agent, EnvSpec, Metrics, require, require_at_least, require_unit
from hw4_model_based.dynamics import Dynamics, DynamicsConfig
from hw4_model_based.imagination import any_member, imagine, joined


@dataclass(frozen=True)
class MBPOConfig:
    real_ratio: float = 0.05  # share of real transitions in a batch; 1 is the agent without a model
    branches: int = 2_000  # imagined after every fit
    horizon: int = 1  # H, steps of each at first
    final_horizon: int = 1  # H in the end
    grow_from: int = 0  # environment step from which H grows
    grow_until: int = 1  # environment step at which it is final
    capacity: int = 20_000  # imagined transitions remembered: older ones are of a worse model and policy
    model: DynamicsConfig = field(default_factory=DynamicsConfig)  # settings of the dynamics

    def __post_init__(self):
        require_unit(self, "real_ratio")
        require_at_least(self, 1, "branches", "horizon", "capacity")
        require_at_least(self, 0, "grow_from")
        ok = self.horizon <= self.final_horizon < 2**31
        require(ok, f"final_horizon must be at least horizon = {self.horizon}, got {self.final_horizon}")
        ok = self.grow_from < self.grow_until < 2**31
        require(ok, f"grow_until must be above grow_from = {self.grow_from}, got {self.grow_until}")


def horizon_at(step: int, config: MBPOConfig) -> int:
    """H at environment step `step`: whole steps of a straight line."""
    c = config
    line = Linear(c.horizon, c.final_horizon, c.grow_until - c.grow_from)
    return int(line(max(step - c.grow_from, 0)))


class MBPO:
    def __init__(self, spec: EnvSpec, task: ModelTask, config: MBPOConfig, seed: int):
        require(not spec.discrete, "env_id must have continuous actions for MBPO")
        self.config, self.task = config, task
        self.draws, self.fits = generator(seed, "imagine"), generator(seed, "model")
        self.model = Dynamics(spec.obs_dim, spec.action_dim, config.model, self.fits)
        self.imagined = Replay(config.capacity, spec, torch.device("cpu"))

    def fit(self, data: Batch, learner: Agent) -> Metrics:
        """The model to all real data, and then branches from it."""
        if self.config.real_ratio == 1:
            return {}
        metrics = self.model.fit(data.obs, data.action, data.next_obs, self.fits)
        return metrics | self.branch(data.obs, learner)

    def branch(self, obs: Tensor, learner: Agent) -> Metrics:
        """From states drawn of obs [B, D], with the agent's behaviour policy."""
        c, step = self.config, len(obs)

        def policy(obs: Tensor) -> Tensor:
            return torch.from_numpy(learner.explore(obs.numpy(), step))

        start = obs[torch.randint(len(obs), (c.branches,), generator=self.draws)]
        world, horizon = any_member(self.model.predict, self.draws), horizon_at(step, c)
        branches = imagine(world, self.task, policy, start, horizon)
        self.imagined.add(branches.transitions())
        ended = branches.terminated.any(0).float().mean()
        return {"model/horizon": float(horizon), "model/terminated": float(ended)}

    def augment(self, batch: Batch, learner: Agent) -> Batch:
        """As many transitions as there were: a share of them, the rest imagined."""
        size = len(batch.reward)
        real = round(self.config.real_ratio * size)
        if real == size:
            return batch
        kept = Batch(*(x[:real] for x in batch[:5]))
        return joined(kept, self.imagined.sample(size - real, self.draws))
