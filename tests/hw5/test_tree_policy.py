"""Search from what is seen."""

import gymnasium as gym
import numpy as np
import pytest

from common.envs.registry import make_env, make_envs
from common.types import UsageError
from hw5_planning_control.mcts import uct
from hw5_planning_control.tree_policy import MCTSConfig, model_of, tree_policy


def policy(env_id: str, seed: int = 0, **settings):
    return tree_policy(*model_of(make_env(env_id)), MCTSConfig(**settings), np.random.default_rng(seed))


def test_it_plays_what_a_search_from_the_state_answers():
    envs = make_envs("course/Breakout-v0", 3)
    obs, _ = envs.reset(seed=0)
    act, generator = policy("course/Breakout-v0", simulations=50, horizon=12), np.random.default_rng(0)
    expected = [
        uct(env.unwrapped.game, env.unwrapped.state, 50, 1.0, generator, 12).action for env in envs.envs
    ]
    assert act(obs).tolist() == expected


@pytest.mark.parametrize("env_id", ["course/TicTacToe-v0", "course/ConnectThree-v0"])
def test_an_opponent_that_plays_by_chance_does_not_win(env_id):
    """200 simulations per move, 20 games."""
    envs = make_envs(env_id, 20)
    act, (obs, _), over = policy(env_id), envs.reset(seed=0), np.zeros(20, bool)
    rewards = np.zeros(20)
    while not over.all():
        obs, reward, terminated, _, _ = envs.step(act(obs))
        rewards += reward * ~over
        over |= terminated
    assert rewards.min() >= 0
    assert rewards.mean() > 0.7


def test_the_cliff_is_walked_past_by_the_shortest_way():
    """-1 per step, -100 at the cliff. From two steps before the goal the return is -2."""
    model, states = model_of(gym.make("CliffWalking-v1"))
    act = tree_policy(model, states, MCTSConfig(400, 10.0, 8), np.random.default_rng(0))
    state, total, terminal = 34, 0.0, False  # the row above the cliff, one column before the goal's
    while not terminal:
        state, reward, terminal = model.step(state, int(act(np.array([state]))[0]), np.random.default_rng(0))
        total += reward
    assert total == -2


@pytest.mark.parametrize("solve", [False, True])
def test_proofs_are_asked_for_by_the_settings(solve):
    envs = make_envs("course/TicTacToe-v0", 8)
    obs, _ = envs.reset(seed=0)
    model, states = model_of(make_env("course/TicTacToe-v0"))
    generator = np.random.default_rng(0)
    expected = [uct(model, s, 300, 1.0, generator, 40, solve=solve).action for s in states(obs)]
    assert policy("course/TicTacToe-v0", simulations=300, solve=solve)(obs).tolist() == expected
    other = [uct(model, s, 300, 1.0, generator, 40, solve=not solve).action for s in states(obs)]
    assert other != expected


@pytest.mark.parametrize("env_id", ["course/Breakout-v0", "FrozenLake-v1"])
def test_proofs_are_refused_where_chance_plays(env_id):
    with pytest.raises(UsageError, match="solve must be False where chance plays, got True"):
        policy(env_id, solve=True)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: MCTSConfig(simulations=0), "simulations must be at least 1"),
        (lambda: MCTSConfig(exploration=0.0), "exploration must be positive"),
        (lambda: model_of(gym.make("CartPole-v1")), "env must be a toy-text environment"),
    ],
)
def test_bad_input_is_named(make, sentence):
    with pytest.raises(UsageError, match=sentence):
        make()
