"""Seconds of processor time beside a peer's, in the same process, in turn."""

import time
from collections.abc import Callable

import numpy as np


def in_turn(functions: dict[str, Callable[[], object]], calls: int, rounds: int = 15) -> dict[str, float]:
    """Median milliseconds per call of each; the first round does not count."""
    found = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            begin = time.process_time()
            for _ in range(calls):
                function()
            found[name].append(1e3 * (time.process_time() - begin) / calls)
    medians = {name: float(np.median(times[1:])) for name, times in found.items()}
    print("\n" + ", ".join(f"{name} {ms:.3g} ms" for name, ms in medians.items()))
    return medians
