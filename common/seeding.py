"""One seed per run. Every consumer of randomness draws from its own child of it, found by name."""

from __future__ import annotations

import random
import zlib

import numpy as np
import torch


def child_seed(seed: int, *names: str | int) -> int:
    """A seed in [0, 2^63) that depends on every name: child_seed(0, "env", 2048).

    Never seed + 1: then the second environment of run k would be the first of run k + 1.
    """
    keys = [name if isinstance(name, int) else zlib.crc32(name.encode()) for name in names]
    return int(np.random.SeedSequence([seed, *keys]).generate_state(1, np.uint64)[0] >> 1)


def generator(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """The torch generator of the child called `names`."""
    return torch.Generator(device).manual_seed(child_seed(seed, *names))


def seed_everything(seed: int) -> None:
    """The global generators, which only third parties use: everything of ours takes a generator."""
    random.seed(seed)
    np.random.seed(child_seed(seed, "numpy") % 2**32)  # noqa: NPY002
    torch.manual_seed(child_seed(seed, "torch"))
