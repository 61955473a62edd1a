"""Experts that this repository trained: the mean of a Gaussian policy, as a small file of arrays.

a = W_L tanh(... tanh(W_1 z + b_1) ...) + b_L,   z = (o - m) / s, cut to [-10, 10];   a is cut to [-1, 1]

python -m hw1_imitation.trained_experts RUN_DIR    writes policies/ENV_ID.npz of a run of homework 2

The .json beside it names the command that trained it and its return. No code is loaded.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common import checkpoint
from common.cli import INTERRUPTED
from common.envs import registry
from common.evaluation import evaluate
from common.seeding import child_seed
from common.types import require
from hw1_imitation import sealed
from hw1_imitation.sealed import Origin

FOLDER = Path(__file__).parent / "policies"
LIMIT = 10.0  # of normalised observations, in standard deviations
EPISODES = 100  # that an expert's return is measured over
SEED = 0  # of those episodes
TRAINED = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5")
Layers = list[tuple[np.ndarray, np.ndarray]]  # W [n, m], b [n]


def act(obs: np.ndarray, mean: np.ndarray, std: np.ndarray, layers: Layers) -> np.ndarray:
    """[N, D] -> [N, K] in [-1, 1]"""
    x = ((obs - mean) / std).clip(-LIMIT, LIMIT)
    *inner, (W_last, b_last) = layers
    for W, b in inner:
        x = np.tanh(x @ W.T + b)
    return (x @ W_last.T + b_last).clip(-1, 1)


def policy_of(arrays: dict[str, np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """observations [N, D] -> [N, K] in [-1, 1]"""
    layers = [(arrays[f"weight{i}"], arrays[f"bias{i}"]) for i in range(len(arrays) // 2 - 1)]
    return lambda obs: act(obs, arrays["mean"], arrays["std"], layers)


def load(path: Path) -> tuple[Callable[[np.ndarray], np.ndarray], Origin]:
    """The policy of a file, or a UsageError that says in one sentence what is wrong with it."""
    arrays, origin = sealed.read(path)
    depth = (len(arrays) - 2) // 2
    names = ["mean", "std", *(f"{kind}{i}" for i in range(depth) for kind in ("weight", "bias"))]
    ok = depth >= 1 and {*arrays} == {*names}
    require(ok, f"{path} must hold mean, std, weight0, bias0, ..., got {sealed.short([*arrays])}")
    ok = all(x.dtype in ("float32", "float64") and np.isfinite(x).all() for x in arrays.values())
    require(ok, f"{path} must hold finite real numbers")
    mean, std = arrays["mean"], arrays["std"]
    ok = mean.ndim == 1 and mean.shape == std.shape and (std > 0).all()
    require(ok, f"{path}: mean and std must be [D], std positive, got {mean.shape} and {std.shape}")
    width = len(mean)
    for i in range(depth):
        W, b = arrays[f"weight{i}"], arrays[f"bias{i}"]
        ok = W.ndim == 2 and b.shape == W.shape[:1] and W.shape[1] == width
        require(
            ok, f"{path}: weight{i} and bias{i} must be [n, {width}] and [n], got {W.shape} and {b.shape}"
        )
        width = len(b)
    return policy_of(arrays), origin


def trained_expert(env_id: str) -> Callable[[np.ndarray], np.ndarray]:
    """Of the file that the repository ships."""
    require(env_id in TRAINED, f"env_id must have a trained expert, as {', '.join(TRAINED)}, got {env_id!r}")
    policy, origin = load(FOLDER / f"{env_id}.npz")
    require(origin.env_id == env_id, f"the policy of {env_id} must be for it, it is for {origin.env_id}")
    return policy


def arrays_of(policy: dict) -> dict[str, np.ndarray]:
    """Of a saved Gaussian policy of homework 2, by the names of its parameters."""
    numbers = {name: tensor.numpy() for name, tensor in policy.items()}
    ok = {"normalize.mean", "normalize.var", "log_std"} <= numbers.keys()
    require(ok, "the run must have continuous actions and normalised observations")
    layers = sorted(int(name.split(".")[1]) for name in numbers if name.endswith(".weight"))
    arrays = {"mean": numbers["normalize.mean"], "std": np.sqrt(numbers["normalize.var"] + 1e-8)}
    for i, layer in enumerate(layers):
        arrays |= {f"weight{i}": numbers[f"net.{layer}.weight"], f"bias{i}": numbers[f"net.{layer}.bias"]}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def portable(command: str) -> str:
    """Without where the run was kept, which is another place on another machine."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--out")
    parser.add_argument("--resume")
    left, words = parser.parse_known_args(shlex.split(command))
    require(left.resume is None, "the run must have been made by one command, it was resumed")
    return shlex.join(words)


def main() -> None:
    """Keep the policy of a run as an expert."""
    parser = argparse.ArgumentParser(prog="python -m hw1_imitation.trained_experts", description=main.__doc__)
    parser.add_argument("run", type=Path, help="run directory of homework 2")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the file goes")
    args = parser.parse_args()
    try:
        saved = checkpoint.load_latest(args.run / "checkpoint")
        ok = saved is not None and "policy" in saved.get("agent", {})
        require(ok, f"{args.run} must hold a trained policy of homework 2")
        env_id = json.loads((args.run / "config.json").read_text())["env_id"]
        arrays = arrays_of(saved["agent"]["policy"])
        envs = registry.make_envs(env_id, EPISODES)
        scores = evaluate(policy_of(arrays), envs, child_seed(SEED, "eval"))
        command = portable(json.loads((args.run / "summary.json").read_text())["command"])
        args.folder.mkdir(exist_ok=True)
        path = args.folder / f"{env_id}.npz"
        sealed.write(path, arrays, Origin(env_id, command, SEED, scores["return_mean"]))
        print(f"return {scores['return_mean']:.1f} +- {scores['return_std']:.1f}: {path}")
    except (ValueError, OSError, KeyError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
