"""What can be known without a network, in one picture and one table.

python -m hw3_q_learning.theory [--out theory.png] [--runs 40]

The contraction of value iteration, the growth of fitted value iteration, the maximisation bias, the cliff,
off-policy corrections: each by the functions that the files of this homework export.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.envs.finite_mdp import from_gymnasium, random_mdp
from common.types import require
from hw3_q_learning.dynamic_programming import action_values, policy_evaluation, value_iteration
from hw3_q_learning.fitted_q import fitted_value_iteration, mean_step, star, two_states
from hw3_q_learning.maximization_bias import OneArmedBandits, expected_maximum
from hw3_q_learning.retrace import COEFFICIENTS, expected_update, n_step_update
from hw3_q_learning.tabular import double_q_learning, q_learning, sarsa

Array = np.ndarray
GAMMAS = (0.5, 0.9, 0.99)


def contraction(gamma: float, sweeps: int = 60) -> Array:
    """|V_k - V*| of value iteration on FrozenLake from V_0 = 1: [sweeps + 1]."""
    mdp = from_gymnasium(gym.make("FrozenLake-v1"))
    V, best = np.ones(len(mdp.R)), value_iteration(mdp.P, mdp.R, gamma, 1e-13)[0]
    errors = [np.abs(V - best).max()]
    for _ in range(sweeps):
        V = action_values(mdp.P, mdp.R, V, gamma).max(1)
        errors.append(np.abs(V - best).max())
    return np.array(errors)


def growth(gamma: float, iterations: int = 100) -> Array:
    """|phi_k| of fitted value iteration on two states: [iterations + 1]."""
    P, R, features, weights, start = two_states()
    return np.abs(fitted_value_iteration(P, R, gamma, features, weights, iterations, start)[:, 0])


def star_values(gamma: float, steps: int = 3000, alpha: float = 0.05) -> Array:
    """Largest |V| on Baird's star by small steps: [steps + 1]."""
    P, R, features, weights, phi = star()
    A, _ = mean_step(P.reshape(7, 7), R, np.zeros(7, int), gamma, features, weights)
    largest = [np.abs(features @ phi).max()]
    for _ in range(steps):
        phi = phi + alpha * A @ phi
        largest.append(np.abs(features @ phi).max())
    return np.array(largest)


def left_share(learn, runs: int, episodes: int = 300) -> Array:
    """Share of runs that go left in each episode: [episodes]."""
    envs = [OneArmedBandits() for _ in range(runs)]
    for seed, env in enumerate(envs):
        learn(env, episodes, 0.1, 1.0, 0.1, seed)
    return np.mean([env.left for env in envs], 0)


def cliff_returns(learn, runs: int, episodes: int = 300) -> Array:
    """Mean return while learning, of each episode: [episodes]."""
    curves = []
    for seed in range(runs):
        returns: list[float] = []
        learn(gym.make("CliffWalking-v1"), episodes, 0.5, 1.0, 0.1, seed, returns=returns)
        curves.append(returns)
    return np.mean(curves, 0)


def off_policy_errors(iterations: int = 40, gamma: float = 0.9) -> dict[str, Array]:
    """|Q_k - Q^pi| of exact updates from the data of a policy mu far from pi: [iterations + 1] each."""
    rng = np.random.default_rng(0)
    mdp = random_mdp(6, 3, 2, rng)
    pi, mu = rng.dirichlet(np.full(3, 0.5), 6), rng.dirichlet(np.full(3, 2.0), 6)
    q_pi = action_values(mdp.P, mdp.R, policy_evaluation(mdp.P, mdp.R, pi, gamma), gamma)
    problem = (mdp.P, mdp.R, pi, mu)
    updates = {
        name: lambda Q, c=c: expected_update(*problem, c(pi, mu, 1.0), gamma, Q)
        for name, c in COEFFICIENTS.items()
        if name in ("tree backup", "Retrace")
    }
    updates |= {f"{n} steps": lambda Q, n=n: n_step_update(*problem, n, gamma, Q) for n in (1, 3)}
    errors = {}
    for name, update in updates.items():
        Q, path = np.zeros_like(q_pi), []
        for _ in range(iterations + 1):
            path.append(np.abs(Q - q_pi).max())
            Q = update(Q)
        errors[name] = np.array(path)
    return errors


def table() -> str:
    """Markdown: the numbers that are exact."""
    lines = ["| what | value |", "|---|---|"]
    for gamma in GAMMAS:
        errors = contraction(gamma)
        factor = (errors[1:] / errors[:-1])[errors[1:] > 1e-9].max()
        lines.append(
            f"| largest factor of value iteration's error, FrozenLake, gamma = {gamma} | {factor:.4f} |"
        )
    for gamma in (0.8, 0.9):
        path = growth(gamma, 10)
        lines.append(
            f"| factor of fitted value iteration, two states, gamma = {gamma} | {path[1] / path[0]:.4g} |"
        )
    for gamma in (0.85, 0.99):
        path = star_values(gamma)
        lines.append(
            f"| growth of Baird's star in 3,000 small steps, gamma = {gamma} | {path[-1] / path[0]:.3g} |"
        )
    for actions in (2, 10):
        lines.append(f"| E[max] of {actions} standard normals | {expected_maximum(actions):.4f} |")
    for name, errors in off_policy_errors().items():
        lines.append(f"| error after 40 updates off-policy, {name} | {errors[-1]:.2g} of {errors[0]:.2g} |")
    return "\n".join(lines)


def draw(runs: int) -> Figure:
    """Everything in six panels."""
    require(runs >= 1, f"runs must be at least 1, got {runs}")
    figure = Figure(figsize=(14, 7.5), layout="constrained")
    panels = figure.subplots(2, 3).flatten()
    for i, gamma in enumerate(GAMMAS):
        errors = contraction(gamma)
        panels[0].plot(errors, color=f"C{i}", label=f"gamma = {gamma}")
        panels[0].plot(errors[0] * gamma ** np.arange(len(errors)), "--", color=f"C{i}", lw=1)
    _finish(panels[0], "Value iteration contracts, |V - V*|; dashed gamma^k", "sweeps", ylim=(1e-8, 2))
    for gamma in (0.8, 5 / 6, 0.9, 0.99):
        panels[1].plot(growth(gamma), label=f"gamma = {gamma:.3g}")
    _finish(panels[1], "Fitted value iteration on two states, |phi|", "iterations")
    for gamma in (0.8, 0.85, 0.9, 0.99):
        panels[2].plot(star_values(gamma), label=f"gamma = {gamma}")
    _finish(panels[2], "Small steps on Baird's star, largest |V|", "steps")
    for learn in (q_learning, double_q_learning):
        panels[3].plot(left_share(learn, runs), label=learn.__name__)
    panels[3].axhline(0.1 * 5 / 9, color="gray", ls="--", lw=1)
    _finish(panels[3], f"Maximisation bias: share of {runs} runs going left", "episodes", "linear", (0, 1))
    for learn in (sarsa, q_learning):
        panels[4].plot(cliff_returns(learn, max(runs // 4, 1)), label=learn.__name__)
    _finish(panels[4], "CliffWalking-v1: return while learning", "episodes", "linear", (-150, 0))
    for name, errors in off_policy_errors().items():
        panels[5].plot(errors, label=name)
    _finish(panels[5], "Another policy's data, |Q - Q^pi|", "updates", ylim=(1e-6, 10))
    return figure


def _finish(
    axes: Axes, title: str, xlabel: str, yscale: str = "log", ylim: tuple[float, float] | None = None
) -> None:
    axes.set(title=title, xlabel=xlabel, yscale=yscale)
    if ylim:
        axes.set_ylim(*ylim)
    axes.legend(fontsize=8)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m hw3_q_learning.theory", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("theory.png"), help="the picture")
    parser.add_argument(
        "--runs", type=int, default=40, help="of the maximisation bias; a quarter on the cliff"
    )
    args = parser.parse_args(argv)
    try:
        draw(args.runs).savefig(args.out, dpi=100)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(table())
    print(args.out)


if __name__ == "__main__":
    main()
