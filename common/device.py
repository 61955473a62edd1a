"""Where tensors live and how many threads work on them."""

from __future__ import annotations

import os

import torch

from common.types import UsageError, require


def setup(device: str, threads: int) -> torch.device:
    """Choose "cpu", "cuda", "cuda:1", "mps" or "auto" (cuda if there is one), and the torch threads.

    One thread is the default of every run: handing half of a 64-unit layer to a second thread costs more
    than it saves, and two runs beside each other would fight over the cores. TF32 is left off, so that
    a GPU computes what a CPU computes, to rounding.

    Numbers below 1e-38 count as zero: Adam's averages of units that are never active shrink to them, and
    arithmetic with them takes many times as long.
    """
    cores = os.cpu_count() or 1
    require(threads <= cores, f"threads must be at most {cores}, this machine's cores, got {threads}")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        if chosen.type == "meta":  # tensors without numbers
            raise RuntimeError
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {device!r} is not available here; use cpu, cuda or auto") from error
    return chosen
