"""Which sums of undiscounted rewards are finite: the graph of an MDP (Bertsekas and Tsitsiklis 1991).

Without a discount a policy has a value if it earns nothing once it stays among the same states. A state is
at rest where that can be had for ever; a policy is proper if it comes to rest from everywhere.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from common.types import require

Array = np.ndarray


def closed_classes(P: Array | sparse.sparray) -> list[Array]:
    """The sets of states of a chain P [S, S] that are never left and reach all of themselves, ascending."""
    graph = sparse.csr_array(P)
    graph.eliminate_zeros()
    count, label = connected_components(graph, connection="strong")
    edges = graph.tocoo()
    left = label[edges.row] != label[edges.col]
    closed = np.ones(count, bool)
    closed[label[edges.row[left]]] = False
    members = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label))[:-1])
    return [members[k] for k in closed.nonzero()[0]]


def resting_actions(P: Array | sparse.sparray, R: Array) -> tuple[Array, Array]:
    """(states [S] bool at rest, if their policy wants; actions [S, A] bool, there those that keep the rest).

    P as rows [S A, S]. Raises unless some policy comes to rest from every state.
    """
    rest = np.ones(len(R), bool)
    while True:
        stay = (R == 0) & ((P @ ~rest).reshape(R.shape) == 0) & rest[:, None]
        rest, before = stay.any(1), rest
        if (rest == before).all():
            break
    allowed = stay | ~rest[:, None]
    way_to(rest, allowed, P)
    return rest, allowed


def way_to(goal: Array, allowed: Array, P: Array | sparse.sparray, fallback: Array | None = None) -> Array:
    """A policy [S] of allowed actions that comes to `goal` [S] sooner or later, with probability one.

    At the goal the first allowed action; elsewhere one that may step closer, in the number of steps if lucky.
    Where there is none: that of `fallback`, or an error.
    """
    policy, reached = allowed.argmax(1), goal.copy()
    arrived = goal.nonzero()[0]
    while len(arrived):
        closer = allowed & ((P[:, arrived] @ np.ones(len(arrived))).reshape(allowed.shape) > 0)
        arrived = (closer.any(1) & ~reached).nonzero()[0]
        policy[arrived] = closer[arrived].argmax(1)
        reached[arrived] = True
    if fallback is not None:
        return np.where(reached, policy, fallback)
    require(bool(reached.all()), "gamma must be below 1 here: every policy collects rewards for ever")
    return policy
