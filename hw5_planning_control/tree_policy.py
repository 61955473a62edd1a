"""Tree search as a policy: at every step the root is the state that is seen, and the best action is played.

Nothing is kept from one step to the next, so the policy is a function of the state, but for chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from common.envs.breakout_env import BreakoutEnv, decode
from common.envs.finite_mdp import from_gymnasium
from common.envs.line_game_env import LineGameEnv
from common.envs.line_game_env import decode as stones
from common.types import require, require_at_least, require_positive
from hw5_planning_control.mcts import Model, uct

Decoder = Callable[[np.ndarray], list]  # observations [N, ...] -> N states of the model


@dataclass(frozen=True)
class MCTSConfig:
    simulations: int = 200  # per action
    exploration: float = 1.0  # C, about a tenth to a quarter of the range of the return
    horizon: int = 40  # steps after which a simulation is cut
    solve: bool = False  # prove wins and losses; only where no chance plays

    def __post_init__(self):
        require_at_least(self, 1, "simulations", "horizon")
        require_positive(self, "exploration")


def model_of(env: gym.Env) -> tuple[Model, Decoder]:
    """What is searched: a game's own rules, or the arrays of a toy-text environment."""
    if isinstance(env.unwrapped, BreakoutEnv):
        game = env.unwrapped.game
        return game, lambda obs: [decode(game, each) for each in obs]
    if isinstance(env.unwrapped, LineGameEnv):
        return env.unwrapped.game, lambda obs: [stones(each) for each in obs]
    return from_gymnasium(env), lambda obs: obs.tolist()


def tree_policy(
    model: Model, states: Decoder, config: MCTSConfig, generator: np.random.Generator
) -> Callable[[np.ndarray], np.ndarray]:
    """observations [N, ...] -> actions [N]"""
    c = config
    ok = not c.solve or getattr(model, "deterministic", False)
    require(ok, "solve must be False where chance plays, got True")

    def search(state: Any) -> Any:
        return uct(model, state, c.simulations, c.exploration, generator, c.horizon, solve=c.solve).action

    return lambda obs: np.array([search(state) for state in states(obs)])
