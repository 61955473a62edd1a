"""Steps by hand, fixed points by dynamic programming, the cliff."""

import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Discrete, MultiDiscrete, Tuple

from common.envs.finite_mdp import FiniteMDP, from_gymnasium
from common.types import UsageError
from hw3_q_learning.dynamic_programming import action_values, policy_evaluation, value_iteration
from hw3_q_learning.episodes import indexing, play
from hw3_q_learning.exploration import draw_boltzmann, epsilon_greedy
from hw3_q_learning.tabular import double_q_learning, q_learning, sarsa, td_prediction
from tests.hw3.environments import Arrays, Script, garnet_env

CONTROL = [q_learning, sarsa, double_q_learning]


def mean(n: int) -> float:
    """Between the mean of all targets, 1 / (n + 1), and the last one: early targets are wrong."""
    return 1 / (n + 1) ** 0.7


def test_td_by_hand():
    """alpha = 1/2, gamma = 1/2: V(1) = 2 from its end; then V(0) = 1/2 (1 + 2/2) = 1."""
    env = Script([(1, 4.0, 2, True, False), (0, 1.0, 1, False, True)])
    V = td_prediction(env, np.full((3, 2), 0.5), 2, 0.5, 0.5, 0)
    np.testing.assert_allclose(V, [1, 2, 0])


@pytest.mark.parametrize("learn", CONTROL)
def test_a_time_limit_keeps_the_value_and_termination_does_not(learn):
    """1 -> 1 for reward 1, alpha = 1, one action: where it is cut, Q(1) = 1 + gamma 1, ended 1."""
    for terminated, value in ((False, 1.5), (True, 1.0)):
        steps = [(1, 1.0, 1, terminated, not terminated)] * 2
        Q = learn(Script(steps, actions=1), 2, 1.0, 0.5, 0.0, 0)
        assert Q[1, 0] == (value if learn is not double_q_learning else Q[1, 0])
    ended = double_q_learning(Script([(1, 1.0, 1, True, False)] * 20, actions=1), 20, 1.0, 0.5, 0.0, 0)
    cut = double_q_learning(Script([(1, 1.0, 1, False, True)] * 60, actions=1), 60, 1.0, 0.5, 0.0, 0)
    np.testing.assert_allclose([ended[1, 0], cut[1, 0]], [1, 2], atol=1e-3)


def test_q_learning_takes_the_best_and_sarsa_the_next_action():
    """Greedily Q(0, a) = 1 for the action taken first. In 1, where Q = 0, both go on to 0 for reward 0: the
    best there is 1. With epsilon = 1 SARSA takes the other action, whose Q is 0."""
    steps = [(0, 1.0, 2, True, False), (1, 0.0, 0, False, False), (0, 0.0, 2, True, False)]
    Q = q_learning(Script(steps), 2, 1.0, 0.5, 0.0, 0)
    assert sorted(Q[1]) == [0, 0.5]
    env = Script(steps)
    Q = sarsa(env, 2, 1.0, 0.5, 1.0, 0)
    assert env.actions[2] != env.actions[0]
    assert sorted(Q[1]) == [0, 0]
    env = Script(steps)
    Q = sarsa(env, 2, 1.0, 0.5, 0.0, 0)
    assert env.actions[2] == env.actions[0]
    assert sorted(Q[1]) == [0, 0.5]


def test_td_finds_the_value_of_a_policy():
    """10,000 steps on five states that are cut and never terminate. Six seeds: wrong by 0.02 to
    0.04 of 2.2."""
    env, policy = garnet_env(), np.full((5, 2), 0.5)
    V = td_prediction(env, policy, 100, mean, 0.8, 0)
    expected = policy_evaluation(env.mdp.P, env.mdp.R, policy, 0.8)
    assert np.abs(V - expected).max() < 0.08


@pytest.mark.parametrize("learn", [q_learning, double_q_learning])
def test_q_learning_finds_the_optimum_off_policy(learn):
    """By a behaviour that is not greedy half of the time. Six seeds: wrong by 0.02 to 0.13 of 2.8; double
    Q, of which each table sees half of the steps, by 0.09 to 0.19."""
    env = garnet_env()
    V, _ = value_iteration(env.mdp.P, env.mdp.R, 0.8)
    Q = learn(env, 100, mean, 0.8, 0.5, 0)
    assert np.abs(Q - action_values(env.mdp.P, env.mdp.R, V, 0.8)).max() < 0.3


def test_sarsa_finds_the_value_of_its_own_exploration():
    """Q = R + gamma P (pi Q) for pi = epsilon-greedy of Q itself. Six seeds: wrong by 0.03 to 0.13,
    and 0.55 to 0.6 from the optimum."""
    env = garnet_env()
    P, R = env.mdp.P, env.mdp.R
    Q = sarsa(env, 100, mean, 0.8, 0.5, 0)
    V = policy_evaluation(P, R, epsilon_greedy(Q, 0.5), 0.8)
    assert np.abs(Q - action_values(P, R, V, 0.8)).max() < 0.25
    assert np.abs(Q - action_values(P, R, value_iteration(P, R, 0.8)[0], 0.8)).max() > 0.4


def walk(Q: np.ndarray, env: gym.Env) -> float:
    """Return of the greedy policy, 200 steps at most."""
    step = next(steps for steps in [play(env, 1, lambda s, _: int(Q[s].argmax()), 0)])
    return sum(t.reward for _, t in zip(range(200), step, strict=False))


@pytest.mark.parametrize("seed", range(10))
def test_q_learning_walks_along_the_cliff(seed):
    """-13, the optimum, 500 episodes: in 10 of 10 seeds, and it is what value iteration says."""
    env = gym.make("CliffWalking-v1")
    assert walk(q_learning(env, 500, 0.5, 1.0, 0.1, seed), env) == -13
    mdp = from_gymnasium(env)
    assert mdp.start @ value_iteration(mdp.P, mdp.R, 1.0)[0] == -13


def test_sarsa_keeps_away_from_the_cliff():
    """It learns that it will slip: while learning it falls less, and its own path is longer. Of ten seeds:
    last 100 episodes -27 to -40 against -51 to -83; paths of -17 mostly, never -13."""
    env = gym.make("CliffWalking-v1")
    safe, best = [], []
    Q = sarsa(env, 500, 0.5, 1.0, 0.1, 0, returns=safe)
    q_learning(env, 500, 0.5, 1.0, 0.1, 0, returns=best)
    assert np.mean(safe[-100:]) > np.mean(best[-100:]) + 10
    assert walk(Q, env) < -13
    assert len(safe) == 500


def test_boltzmann_exploration_finds_the_cliffs_edge():
    """Temperature 1/2; ten of ten seeds."""
    env = gym.make("CliffWalking-v1")
    assert walk(q_learning(env, 300, 0.5, 1.0, 0.5, 0, draw_boltzmann), env) == -13


@pytest.mark.parametrize("learn", CONTROL)
def test_same_seed_same_table(learn):
    one, two, other = (learn(garnet_env(), 5, 0.1, 0.9, 0.3, seed) for seed in (7, 7, 8))
    assert (one == two).all()
    assert (one != other).any()


def test_schedules_are_asked_for_episodes_and_changes():
    episodes, changes = [], []
    env = Script([(0, 1.0, 0, True, False)] * 3, actions=1)
    q_learning(env, 3, lambda n: changes.append(n) or 0.5, 0.9, lambda k: episodes.append(k) or 0.0, 0)
    assert episodes == [0, 1, 2]
    assert changes == [0, 1, 2]


def test_observations_of_several_parts_are_numbered():
    count, number = indexing(Tuple([Discrete(3), Discrete(4, start=2)]))
    assert count == 12
    assert sorted(number((i, j)) for i in range(3) for j in range(2, 6)) == list(range(12))
    count, number = indexing(MultiDiscrete([3, 4]))
    assert sorted(number(np.array([i, j])) for i in range(3) for j in range(4)) == list(range(12))
    assert indexing(Discrete(5, start=-2))[1](np.int64(-2)) == 0


def test_blackjack_has_a_table():
    returns = []
    Q = q_learning(gym.make("Blackjack-v1"), 100, 0.05, 1.0, 0.1, 0, returns=returns)
    assert Q.shape == (32 * 11 * 2, 2)
    assert set(returns) <= {-1, 0, 1}


NAN = FiniteMDP(np.ones((1, 2, 1)), np.zeros((1, 2)), np.ones(1))
NAN.R[:] = math.nan


@pytest.mark.parametrize("learn", CONTROL)
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"env": gym.make("CartPole-v1")}, "env must have discrete observations"),
        ({"env": gym.make("Pendulum-v1")}, "env must have discrete actions"),
        ({"env": gym.make_vec("FrozenLake-v1", 2)}, "env must be a single environment"),
        ({"env": Arrays(NAN)}, "env gave the reward nan in episode 0"),
        ({"episodes": -1}, "episodes must be at least 0"),
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\]"),
        ({"alpha": math.nan}, r"alpha must lie in \[0, 1\]"),
        ({"alpha": lambda k: math.nan}, r"alpha must lie in \[0, 1\], got nan"),
        ({"gamma": 1.5}, r"gamma must lie in \[0, 1\]"),
        ({"epsilon": -0.1}, r"epsilon must lie in \[0, 1\]"),
    ],
)
def test_bad_input_is_one_sentence(learn, change, sentence):
    good = {"env": garnet_env(3), "episodes": 1, "alpha": 0.5, "gamma": 0.9, "epsilon": 0.1, "seed": 0}
    with pytest.raises(UsageError, match=sentence):
        learn(**good | change)


def test_td_wants_probabilities():
    with pytest.raises(UsageError, match=r"policy must be \[5, 2\] probabilities"):
        td_prediction(garnet_env(), np.ones((5, 2)), 1, 0.5, 0.9, 0)
