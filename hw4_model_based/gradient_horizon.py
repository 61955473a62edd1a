"""Why v2.0 is hard: the gradient through T steps explodes or vanishes. One picture and one table.

python -m hw4_model_based.gradient_horizon [--out gradient_horizon.png] [--seed 0]

ds_T/da_0 = (A + B K)_{T-1} ... (A + B K)_1 B_0 of a pendulum under u = K (s - s*): hanging and damped it
vanishes; upright it grows by exp(2.29 dt) = 1.12 a step, and so does the gradient with respect to the
gains; with the gains of an LQR it vanishes again: what a good policy has tamed is easy to improve, the first
one is not. A model fitted to data has the Jacobians of the world nearly, and explodes as the world does.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from common.envs.integration import discretize
from common.envs.systems import Pendulum
from common.seeding import generator
from hw4_model_based.dynamics import Dynamics, DynamicsConfig
from hw4_model_based.policy_backprop import Derivatives, Step, differentiate, mean_step, sensitivity

DT = 0.05  # s
PENDULUM = discretize(Pendulum(damping=2.0).dynamics, DT)
CONFIG = DynamicsConfig(
    members=1, elites=1, probabilistic=False, lr=5e-3, batch_size=256, max_epochs=60, patience=10
)
LONGEST = 60  # steps
OFF = 1e-3  # rad from the target at the start: it shall not fall, only its derivatives shall grow


class Case(NamedTuple):
    name: str
    step: Step
    start: tuple[float, ...]
    target: tuple[float, ...]
    gains: tuple[float, ...]


class Norms(NamedTuple):
    """At the horizons 1..T: [T] each."""

    state: Tensor  # of ds_T/da_0
    policy: Tensor  # of the gradient of J over T steps with respect to the gains


def learned(seed: int, size: int = 3_000) -> Step:
    """A network's pendulum, from transitions all over its states: s [2], a [1] -> s' [2]."""
    draws = generator(seed, "data")
    scale = torch.tensor([math.pi, 4.0, 4.0])
    z = (2 * torch.rand(size, 3, generator=draws) - 1) * scale
    obs = z[:, :2] + torch.tensor([math.pi / 2, 0.0])  # from below hanging to beyond upright
    model = Dynamics(2, 1, CONFIG, generator(seed, "model"))
    model.fit(obs, z[:, 2:], PENDULUM(obs, z[:, 2:]), draws)
    step = mean_step(model.double().requires_grad_(False))
    return lambda s, a: step(s[None, None], a[None, None])[0, 0]


def cases(seed: int) -> list[Case]:
    """The true pendulum thrice, the learned one thrice."""
    hang, top, net = (0.0, 0.0), (math.pi, 0.0), learned(seed)
    places = [
        ("hanging", hang, (0.0, 0.0)),
        ("upright", top, (0.0, 0.0)),
        ("upright, LQR", top, (-20.0, -6.0)),
    ]
    return [
        Case(f"{name}{suffix}", step, (where[0] + OFF, 0.0), where, gains)
        for suffix, step in (("", PENDULUM), (", learned", net))
        for name, where, gains in places
    ]


def norms(case: Case, horizon: int = LONGEST) -> Norms:
    """J = -1/2 sum_t |s_t - s*|^2 over the states reached."""
    start, target, gains = (torch.tensor(x, dtype=torch.float64) for x in case[2:])

    def policy(theta: Tensor, s: Tensor) -> Tensor:
        return (theta * (s - target)).sum(-1, keepdim=True)

    def reward(s: Tensor, a: Tensor, next_s: Tensor) -> Tensor:
        return -0.5 * (next_s - target).square().sum(-1)

    d = differentiate(case.step, reward, policy, gains, start, horizon)
    return Norms(sensitivity(d), torch.linalg.vector_norm(gradients(d), dim=1))


def gradients(d: Derivatives) -> Tensor:
    """dJ/dtheta of every horizon 1..T, forward: ds/dtheta is carried along instead of the costate. [T, P]"""
    s_theta, total = torch.zeros_like(d.B[0] @ d.D[0]), []
    for A, B, K, D, r_s, r_a in zip(*d, strict=True):
        a_theta = K @ s_theta + D
        total.append(r_s @ s_theta + r_a @ a_theta)
        s_theta = A @ s_theta + B @ a_theta
    return torch.stack(total).cumsum(0)


def growth(norm: Tensor) -> float:
    """Factor per step, over the second half of the horizons."""
    half = len(norm) // 2
    return float((norm[-1] / norm[half - 1]) ** (1 / (len(norm) - half)))


def table(found: dict[str, Norms]) -> str:
    """Markdown."""
    rows = [
        f"| {name} | {growth(n.state):.3f} | {n.state[9]:.4f} | {n.state[-1]:.4f} "
        f"| {n.policy[-1] / n.policy[9]:.1f} |"
        for name, n in found.items()
    ]
    head = f"| | growth of ds_T/da_0 a step | at T = 10 | at T = {LONGEST} | dJ/dK at {LONGEST} over at 10 |"
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def draw(found: dict[str, Norms]) -> Figure:
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, part, title in ((left, "state", "|ds_T / da_0|"), (right, "policy", "|dJ / dK| over T steps")):
        colours = {}
        for name, n in found.items():
            place = name.removesuffix(", learned")
            line = ":" if place != name else "-"
            (drawn,) = axes.plot(
                range(1, LONGEST + 1), getattr(n, part), line, color=colours.get(place), label=name
            )
            colours[place] = drawn.get_color()
        axes.set(xlabel="T", yscale="log", title=title)
    left.legend(fontsize=7)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hw4_model_based.gradient_horizon", allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("gradient_horizon.png"))
    parser.add_argument("--seed", type=int, default=0, help="of the learned model")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        found = {case.name: norms(case) for case in cases(args.seed)}
        draw(found).savefig(args.out, dpi=120)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(table(found))
    print(args.out)


if __name__ == "__main__":
    main()
