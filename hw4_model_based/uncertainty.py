"""Output entropy is not model uncertainty, in one picture and one table.

python -m hw4_model_based.uncertainty [--out uncertainty.png] [--seed 0]

H(s'|s, a; theta) of one network is the noise that it has learned to expect. Where there were no data it says
what it likes: under one seed that it is sure, under another that it is not. What is not known is p(theta|D):
the members of an ensemble, each fitted to a bootstrap of the data, or networks drawn from the posterior of a
Bayesian one, agree where data are and part where there are none,

Var E_theta[s'|s, a] = 1/E sum_e (mu_e - mean mu)^2.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from common.distributions import LOG_2PI
from common.seeding import generator
from common.types import require
from hw4_model_based.bayesian_network import BayesianConfig, BayesianDynamics
from hw4_model_based.dynamics import Dynamics, DynamicsConfig, mixture_moments

NOISE = 0.1  # standard deviation of what the world adds
CONFIG = DynamicsConfig(
    hidden=(32, 32), lr=1e-2, batch_size=32, max_epochs=150, weight_decay=0.0, patience=40
)
BAYES = BayesianConfig()


class Beliefs(NamedTuple):
    """At states [G]."""

    obs: Tensor
    mean: Tensor  # of s', all members
    entropy: Tensor  # of one network, the first, in nats
    disagreement: Tensor  # standard deviation of the members' means
    bayesian: Tensor  # the same of networks drawn from the posterior of one Bayesian network
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
    """An ensemble and a Bayesian network fitted to the world, asked between -4 and 4."""
    draws = generator(seed, "world")
    data = world(size, draws)
    obs, action = torch.linspace(-4, 4, points), torch.zeros(points, 1)
    model = Dynamics(1, 1, CONFIG, generator(seed, "model"))
    model.fit(*data, draws)
    mean, std = (x.squeeze(-1) for x in model.predict(obs[:, None], action))  # [E, G]
    centre, aleatoric, epistemic = mixture_moments(mean, std**2)
    entropy = 0.5 * (1 + LOG_2PI) + std[0].log()
    bayes = BayesianDynamics(1, 1, BAYES, generator(seed, "bayes"))
    bayes.fit(*data, draws)
    drawn = bayes.predict(obs[:, None], action, 100, draws)[0].squeeze(-1)  # [E, G]
    return Beliefs(obs, centre, entropy, epistemic.sqrt(), drawn.std(0), aleatoric.sqrt())


def ratios(b: Beliefs) -> tuple[float, float, float]:
    """Off the data over on the data, medians: one network's standard deviation, the ensemble's disagreement,
    the Bayesian network's."""
    on = on_data(b.obs)
    deviation = (b.entropy - 0.5 * (1 + LOG_2PI)).exp()
    return tuple(float(x[~on].median() / x[on].median()) for x in (deviation, b.disagreement, b.bayesian))


def coverage(mean: Tensor, std: Tensor, target: Tensor) -> tuple[float, float]:
    """Share of the targets [B, D] within one and within two standard deviations of what E members predict
    together, [E, B, D] each. Of a calibrated Gaussian prediction it is 68.27 % and 95.45 %."""
    centre, aleatoric, epistemic = mixture_moments(mean, std**2)
    ok = target.shape == centre.shape and target.numel() > 0
    require(ok, f"target must be {list(centre.shape)} and not empty, got {list(target.shape)}")
    z = (target - centre).abs() / (aleatoric + epistemic).sqrt()
    return float((z < 1).double().mean()), float((z < 2).double().mean())


def uneven_world(size: int, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """s' = s + sin s + noise of deviation 0.1 e^{s/2}, s in [-2, 2]: obs, action, next_obs [B, 1]."""
    obs = 4 * torch.rand(size, 1, generator=draws) - 2
    noise = NOISE * (obs / 2).exp() * torch.randn(size, 1, generator=draws)
    return obs, torch.zeros(size, 1), obs + obs.sin() + noise


def calibration(seed: int, size: int = 2_000) -> tuple[float, float]:
    """Coverage by an ensemble of as many new data as it was fitted to, of the uneven world."""
    draws = generator(seed, "calibration")
    config = replace(CONFIG, hidden=(16, 16), lr=5e-3, batch_size=128, max_epochs=40, patience=5)
    model = Dynamics(1, 1, config, generator(seed, "model"))
    model.fit(*uneven_world(size, draws), draws)
    obs, action, next_obs = uneven_world(size, draws)
    return coverage(*model.predict(obs, action), next_obs)


def table(seeds: int = 5) -> str:
    """Markdown."""
    found = np.array([ratios(beliefs(seed)) for seed in range(seeds)])
    names = ("one network's standard deviation", "the ensemble's disagreement", "the Bayesian network's")
    rows = [
        f"| {name} | {np.median(x):.1f} | {x.min():.1f} to {x.max():.1f} |"
        for name, x in zip(names, found.T, strict=True)
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
    right.plot(b.obs, b.disagreement.log(), label="log of the ensemble's disagreement")
    right.plot(b.obs, b.bayesian.log(), label="log of the Bayesian network's")
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
    one, two = calibration(args.seed)
    print(f"within one deviation {one:.1%} of new data, within two {two:.1%}")
    print(args.out)


if __name__ == "__main__":
    main()
