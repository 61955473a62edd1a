import random

import numpy as np
import torch

from common.seeding import child_seed, generator, seed_everything


def test_children_differ_by_seed_name_and_number():
    seeds = {child_seed(s, name, k) for s in range(50) for name in ("env", "eval") for k in range(20)}
    assert len(seeds) == 2000
    assert all(0 <= s < 2**63 for s in seeds)


def test_neighbouring_runs_share_no_environment():
    """SyncVectorEnv seeds environment i with seed + i: runs 0 and 1 must lie further apart than that."""
    starts = sorted(child_seed(s, "env", 0) for s in range(100))
    assert np.diff(starts).min() > 10_000


def test_generator_repeats():
    assert torch.equal(torch.rand(3, generator=generator(1, "a")), torch.rand(3, generator=generator(1, "a")))
    assert not torch.equal(
        torch.rand(3, generator=generator(1, "a")), torch.rand(3, generator=generator(1, "b"))
    )


def test_global_generators_repeat():
    draws = []
    for _ in range(2):
        seed_everything(3)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    assert draws[0] == draws[1]
