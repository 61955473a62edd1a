"""Simulations per second of tree search, beside the usual tree of nodes in plain Python on the same model."""

import math
import time

import gymnasium as gym
import numpy as np
import pytest

from common.envs.finite_mdp import from_gymnasium
from hw5_planning_control.mcts import uct

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]
SIMULATIONS = 20_000


def plain_uct(model, root, simulations, exploration, generator):
    """N and Q in dictionaries by (state, depth) and action."""
    nodes = {}
    for _ in range(simulations):
        state, terminal, path, total = root, False, [], 0.0
        while not terminal:
            node = nodes.get((state, len(path)))
            new = node is None
            if new:
                node = nodes[state, len(path)] = {a: [0, 0.0] for a in model.actions(state)}
            untried = [a for a, (n, _) in node.items() if n == 0]
            if untried:
                action = untried[generator.integers(len(untried))]
            else:
                width = 2 * exploration * math.sqrt(2 * math.log(sum(n for n, _ in node.values())))
                action = max(node, key=lambda a: node[a][1] / node[a][0] + width / math.sqrt(node[a][0]))
            state, reward, terminal = model.step(state, action, generator)
            path.append((node[action], reward))
            if new:
                break
        while not terminal:
            choices = model.actions(state)
            action = choices[generator.integers(len(choices))]
            state, reward, terminal = model.step(state, action, generator)
            total += reward
        for entry, reward in reversed(path):
            total += reward
            entry[0] += 1
            entry[1] += total
    return nodes[root, 0]


def test_fifty_thousand_simulations_per_second_on_frozen_lake():
    """The slippery 4 x 4 lake from its start, the best of five runs each, in turn."""
    mdp = from_gymnasium(gym.make("FrozenLake-v1"))
    rates = {uct: [], plain_uct: []}
    for seed in range(5):
        for search, found in rates.items():
            begin = time.process_time()
            search(mdp, 0, SIMULATIONS, 1.0, np.random.default_rng(seed))
            found.append(SIMULATIONS / (time.process_time() - begin))
    ours, plain = (max(found) for found in rates.values())
    print(f"\nsimulations per second: {ours:,.0f}, plain Python {plain:,.0f}")
    assert ours >= 50_000
    assert ours > 1.5 * plain
