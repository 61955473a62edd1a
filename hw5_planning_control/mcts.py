"""Monte Carlo tree search with UCT (Kocsis and Szepesvari 2006; survey: Browne et al. 2012), undiscounted.

1. TreePolicy(s_1): go down to a leaf s_l, by an action never tried or else the one with the best
       Score = Q / N + 2 C sqrt(2 ln N_parent / N)
2. DefaultPolicy(s_l): what random actions earn from there to the end
3. update Q and N of everything between s_1 and s_l

Q and N belong to pairs (s, a), since under chance many states may follow one action. A node is a state at a
depth: two ways to it share what they learn, and there is no cycle. C is in units of the return: a tenth to a
quarter of its range is enough, as Score doubles it; more makes Q / N remember what exploring cost. Where two
play, rewards are those of player +1, and player -1 minimises them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

import numpy as np

from common.types import require


class Model(Protocol):
    """What is searched. Where two play it also has `player(state)`: +1 or -1 moves there."""

    def actions(self, state: Hashable) -> Sequence[Any]:
        """What can be done in a state that is not terminal: at least one action."""

    def step(self, state: Hashable, action: Any, generator: np.random.Generator) -> tuple[Any, float, bool]:
        """(next state, reward, is the next state terminal)"""


class SearchResult(NamedTuple):
    action: Any  # to be played
    visits: np.ndarray  # [A] int, in the order of model.actions(state)
    values: np.ndarray  # [A] Q / N or the proven value; of an action never tried the worst, -inf or +inf


class Node:
    """A state at a depth; lists over its actions. `mean` is in the sign of who moves: larger is better."""

    __slots__ = ("actions", "count", "floor", "mean", "proven", "sign", "untried", "value", "visits", "width")

    def __init__(self, actions: Sequence[Any], sign: int):
        require(len(actions) > 0, "model.actions must not be empty in a state that is not terminal")
        self.actions, self.sign = actions, sign
        self.untried = list(range(len(actions)))
        self.count = 0  # N_parent
        self.visits = [0] * len(actions)  # N
        self.mean = [0.0] * len(actions)  # Q / N; -inf once proven, so that it is not chosen again
        self.width = [0.0] * len(actions)  # 1 / sqrt(N)
        self.proven: dict[int, float] = {}  # index of an action -> its exact value, player +1's
        self.floor = -math.inf  # the best of it, for who moves
        self.value: float | None = None  # player +1's, once all actions are proven


def uct(
    model: Model,
    state: Hashable,
    simulations: int,
    exploration: float,
    generator: np.random.Generator,
    horizon: int = 1000,
    evaluate: Callable[[Any, np.random.Generator], float] | None = None,
    solve: bool = False,
) -> SearchResult:
    """Search from `state`, which is not terminal; exploration is C. The answer is the action of the greatest
    lower bound Q / N - 2 C sqrt(2 ln N_parent / N).

    horizon: steps after which a simulation is cut; what would follow counts nothing.
    evaluate: (state, generator) -> value of a leaf, instead of random play.
    solve: the model is deterministic. An action whose every continuation was seen is proven, has its exact
        value and is visited no more (Winands et al. 2008). With the root proven the search ends early.
    """
    _check(state, simulations, exploration, horizon, generator)
    player = getattr(model, "player", lambda state: 1)
    generator = BufferedGenerator(generator)
    counts = np.arange(1, simulations + 1)
    scale = [0.0, *(2 * exploration * np.sqrt(2 * np.log(counts))).tolist()]  # [N_parent]
    width = [math.inf, *(counts**-0.5).tolist()]  # [N]
    root = Node(model.actions(state), player(state))
    layers = [{state: root}]  # [depth], state -> node
    while root.count < simulations and root.value is None:
        path, leaf, value = tree_policy(model, layers, state, scale, horizon, generator)
        known = value is not None
        if not known:
            layers[len(path)][leaf] = Node(model.actions(leaf), player(leaf))
            if evaluate is None:
                value = default_policy(model, leaf, horizon - len(path), generator)
            else:
                value = evaluate(leaf, generator)
        backup(path, value, solve and known, width)
    better = [root.proven.get(i, root.sign * mean) * root.sign for i, mean in enumerate(root.mean)]
    better = np.where(np.array(root.visits) > 0, better, -math.inf)
    bound = better - scale[root.count] * np.array(root.width)
    return SearchResult(root.actions[int(bound.argmax())], np.array(root.visits), root.sign * better)


def tree_policy(
    model: Model,
    layers: list[dict[Hashable, Node]],
    state: Hashable,
    scale: list[float],
    horizon: int,
    generator: BufferedGenerator,
) -> tuple[list[tuple[Node, int, float]], Any, float | None]:
    """The way down as (node, index of the action, reward) of each step; the leaf; the leaf's value if it is
    known: of a terminal state, at the horizon, or proven."""
    node, path, step, draw = layers[0][state], [], model.step, generator.draw
    while True:
        if node.untried:
            i = node.untried.pop(int(draw() * len(node.untried)))
        else:
            c = scale[node.count]
            scores = [mean + c * width for mean, width in zip(node.mean, node.width)]  # noqa: B905  an eighth of the time
            i = scores.index(max(scores))
        state, reward, terminal = step(state, node.actions[i], generator)
        path.append((node, i, reward))
        depth = len(path)
        if terminal or depth == horizon:
            return path, state, 0.0
        if depth == len(layers):
            layers.append({})
        node = layers[depth].get(state)
        if node is None:
            return path, state, None
        if node.value is not None:
            return path, state, node.value


def default_policy(model: Model, state: Any, steps: int, generator: BufferedGenerator) -> float:
    """What uniformly random actions earn from `state`, in at most so many steps."""
    earned, draw, actions, step = 0.0, generator.draw, model.actions, model.step
    for _ in range(steps):
        choices = actions(state)
        state, reward, terminal = step(state, choices[int(draw() * len(choices))], generator)
        earned += reward
        if terminal:
            break
    return earned


def backup(path: list[tuple[Node, int, float]], value: float, exact: bool, width: list[float]) -> None:
    """Carry the value of a leaf up its path. An exact one proves the pair above, and the state above that if
    it was the last one open there: its best action's value is exact in turn."""
    for node, i, reward in reversed(path):
        value += reward
        node.count += 1
        node.visits[i] = n = node.visits[i] + 1
        if exact:
            node.proven[i] = value
            node.mean[i], node.width[i] = -math.inf, 0.0
            node.floor = max(node.floor, node.sign * value)
            exact = len(node.proven) == len(node.actions)
            if exact:
                node.value = node.sign * node.floor
        else:
            node.mean[i] += (node.sign * value - node.mean[i]) / n
            node.width[i] = width[n]
        if node.floor > node.mean[i]:
            value = node.sign * node.floor
    require(math.isfinite(value), "model.step and evaluate must give finite numbers, got nan or inf")


class BufferedGenerator(np.random.Generator):
    """The same generator with scalars drawn 1,024 at a time, a tenth of the time each; `draw()` is
    `random()` without arguments."""

    def __init__(self, generator: np.random.Generator):
        super().__init__(generator.bit_generator)
        blocks = iter(lambda: generator.random(1024).tolist(), None)
        self.draw = chain.from_iterable(blocks).__next__

    def random(self, size=None, dtype=np.float64, out=None):
        return self.draw() if size is None and out is None else super().random(size, dtype, out)


def _check(state: Hashable, simulations: int, exploration: float, horizon: int, generator: object) -> None:
    require(isinstance(state, Hashable), f"state must be hashable, got a {type(state).__name__}")
    require(simulations >= 1, f"simulations must be at least 1, got {simulations}")
    ok = 0 <= exploration < math.inf
    require(ok, f"exploration must be at least 0 and finite, got {exploration}")
    require(horizon >= 1, f"horizon must be at least 1, got {horizon}")
    ok = isinstance(generator, np.random.Generator)
    require(ok, f"generator must be a numpy Generator, got {type(generator).__name__}")
