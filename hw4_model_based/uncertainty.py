"""Output entropy is not model uncertainty, in one picture and one table.

python -m hw4_model_based.uncertainty [--out uncertainty.png] [--seed 0]

H(s'|s, a; theta) of one network is the noise that it has learned to expect. Where there were no data it says
what it likes: under one seed that it is sure, under another that it is not. What is not known is p(theta|D):
the members of an ensemble, each fitted to a bootstrap of the data, agree where data are and part where there
are none,

Var E_theta[s'|s, a] = 1/E sum_e (mu_e - mean mu)^2.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from common.distributions import LOG_2PI
from common.seeding import generator
from hw4_model_based.dynamics import Dynamics, DynamicsConfig, mixture_moments

NOISE = 0.1  # standard deviation of what the world adds
CONFIG = DynamicsConfig(
    hidden=(32, 32), lr=1e-2, batch_size=32, max_epochs=150, weight_decay=0.0, patience=40
)


class Beliefs(NamedTuple):
    """At states [G]."""

    obs: Tensor
    mean: Tensor  # of s', all members
    entropy: Tensor  # of one network, the first, in nats
    disagreement: Tensor  # standard deviation of the members' means
    noise: Tensor  # root of the members' mean variance


def world(size: int, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """s' = s + sin(3 s) + noise, s in [-2, -1] or [0.5, 2]: obs, action, next_obs [B, 1]."""
    obs = 2.5 * torch.rand(size, 1, generator=draws) - 2
    obs = torch.where(obs > -1, obs + 1.5, obs)
    return obs, torch.zeros(size, 1), change(obs) + obs + NOISE * torch.randn(size, 1, generator=draws)


def change(obs: Tensor) -> Tensor:
    """Of the state, on average."""
    return (3 * obs).sin()


def on_data(obs: Tensor) -> Tensor:
    """Was there any? [G] bool"""
    return ((obs >= -2) & (obs <= -1)) | ((obs >= 0.5) & (obs <= 2))


def beliefs(seed: int, size: int = 400, points: int = 161) -> Beliefs:
    """An ensemble fitted to the world, asked between -4 and 4."""
    draws = generator(seed, "world")
    model = Dynamics(1, 1, CONFIG, generator(seed, "model"))
    model.fit(*world(size, draws), draws)
    obs = torch.linspace(-4, 4, points)
    mean, std = (x.squeeze(-1) for x in model.predict(obs[:, None], torch.zeros(points, 1)))  # [E, G]
    centre, aleatoric, epistemic = mixture_moments(mean, std**2)
    entropy = 0.5 * (1 + LOG_2PI) + std[0].log()
    return Beliefs(obs, centre, entropy, epistemic.sqrt(), aleatoric.sqrt())


def ratios(b: Beliefs) -> tuple[float, float]:
    """Off the data over on the data, medians: one network's standard deviation, and the disagreement."""
    on = on_data(b.obs)
    deviation = (b.entropy - 0.5 * (1 + LOG_2PI)).exp()
    return tuple(float(x[~on].median() / x[on].median()) for x in (deviation, b.disagreement))


def table(seeds: int = 5) -> str:
    """Markdown."""
    found = np.array([ratios(beliefs(seed)) for seed in range(seeds)])
    rows = [
        f"| {name} | {np.median(x):.1f} | {x.min():.1f} to {x.max():.1f} |"
        for name, x in zip(("one network's standard deviation", "disagreement"), found.T, strict=True)
    ]
    return "\n".join(
        [f"| off the data over on the data | median of {seeds} seeds | range |", "|---|---|---|", *rows]
    )


def draw(seed: int = 0) -> Figure:
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    b = beliefs(seed)
    _predictions(left, b, seed)
    right.plot(b.obs, b.entropy, label="entropy of one network, nats")
    right.plot(b.obs, b.disagreement.log(), label="log of the disagreement")
    right.set(xlabel="s", title="What is known of what is not known")
    for axes in (left, right):
        for low, high in ((-2, -1), (0.5, 2)):
            axes.axvspan(low, high, color="gray", alpha=0.15, linewidth=0)
        axes.legend(fontsize=8)
    return figure


def _predictions(axes: Axes, b: Beliefs, seed: int) -> None:
    obs, _, next_obs = world(400, generator(seed, "world"))
    axes.plot(obs, next_obs - obs, ".", markersize=2, color="gray", label="data")
    axes.plot(b.obs, change(b.obs), "--", color="black", linewidth=1, label="truth")
    middle = b.mean - b.obs
    axes.plot(b.obs, middle, label="ensemble")
    for width, name in ((b.noise, "noise"), (b.disagreement, "disagreement")):
        axes.fill_between(b.obs, middle - 2 * width, middle + 2 * width, alpha=0.25, label=f"2 x {name}")
    axes.set(xlabel="s", ylabel="s' - s", ylim=(-4, 4), title="Data in the gray bands only")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hw4_model_based.uncertainty", allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("uncertainty.png"))
    parser.add_argument("--seed", type=int, default=0, help="of the picture")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        draw(args.seed).savefig(args.out, dpi=120)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(table())
    print(args.out)


if __name__ == "__main__":
    main()
