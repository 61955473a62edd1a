"""One run, one directory: metrics.jsonl, TensorBoard events, summary.json, and the progress bar."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from tensorboardX import SummaryWriter
from torch import Tensor
from tqdm import tqdm

from common.checkpoint import write_atomically
from common.types import Metrics, UsageError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

EVAL_KEYS = {"return_mean", "return_std", "return_min", "return_max", "length_mean", "episodes"}
VERSIONED = ("torch", "gymnasium", "mujoco", "numpy")


class RunLogger:
    """Rows `split, step, wall_s, ...` to metrics.jsonl and TensorBoard."""

    def __init__(self, directory: Path, total: int, step: int = 0, wall_s: float = 0.0):
        """Go on from `step` of `total`, `wall_s` seconds in: later rows of a killed run are dropped, as they
        will come again."""
        self.directory = directory
        self._lock = lock(directory)
        path = directory / "metrics.jsonl"
        kept = [row for row in read_rows(path) if row["step"] <= step] if step else []
        for events in () if step else directory.glob("events.out.tfevents.*"):
            events.unlink()  # of a run killed before its first checkpoint
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        evals = [row for row in kept if row["split"] == "eval"]
        self.last_eval = {key: evals[-1][key] for key in EVAL_KEYS} if evals else {}
        self._file = path.open("a", buffering=1)  # by the line: a crash loses none
        self._tensorboard = SummaryWriter(str(directory), purge_step=step + 1 if step else None)
        self._start = time.perf_counter() - wall_s
        self._bar = tqdm(
            total=total, initial=step, unit=" steps", disable=None, dynamic_ncols=True, leave=False
        )

    @property
    def wall_s(self) -> float:
        """Seconds of training so far, those before a resume included."""
        return time.perf_counter() - self._start

    def write(self, split: str, step: int, metrics: Metrics) -> None:
        """One row. A value that is not finite stops the run with FloatingPointError."""
        if bad := [key for key, value in metrics.items() if not math.isfinite(value)]:
            raise FloatingPointError(f"not finite at step {step}: {', '.join(bad)}, of {metrics}")
        if split == "eval":
            if missing := EVAL_KEYS - metrics.keys():
                raise ValueError(f"an eval row must hold {sorted(missing)}")
            self._show(step, metrics)
        row = {"split": split, "step": step, "wall_s": round(self.wall_s, 3)} | metrics
        self._file.write(json.dumps(row) + "\n")
        for key, value in metrics.items():
            self._tensorboard.add_scalar(key if "/" in key else f"{split}/{key}", value, step)
        self._bar.update(step - self._bar.n)

    def _show(self, step: int, scores: Metrics) -> None:
        self.last_eval = scores
        told = f"return {scores['return_mean']:.1f}"
        self._bar.set_postfix_str(told, refresh=False)
        if self._bar.disable:  # no terminal: a line for the log file
            print(f"step {step}  {told}  {self.wall_s:.0f} s", file=sys.stderr, flush=True)

    def close(self, status: str, **summary: object) -> None:
        """Write summary.json. `status` is finished, interrupted or failed."""
        self._bar.close()
        self._file.close()
        self._tensorboard.close()
        self._lock.close()
        summary = {"status": status, **self.last_eval, "wall_s": round(self.wall_s, 3)} | summary
        text = json.dumps(summary | provenance(), indent=2) + "\n"
        write_atomically(self.directory / "summary.json", text.encode())


def read_rows(path: Path) -> list[dict]:
    """The rows of a metrics.jsonl, up to the line that a crash cut short."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or not row.keys() >= {"split", "step", "wall_s"}:
            raise UsageError(f"{path} is not a file of metrics: {line[:60]}")
        rows.append(row)
    return rows


def lock(directory: Path) -> IO:
    """Hold the run directory as long as the file is open: two processes in one run would spoil it.

    The system lets go of it even after kill -9.
    """
    file = (directory / "lock").open("w")
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.close()
        raise UsageError(f"{directory} is in use by another process") from error
    return file


def provenance() -> dict[str, object]:
    """What a number depends on beside the settings: commit, Python and package versions, machine."""
    try:
        git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        commit = subprocess.run(git, capture_output=True, text=True, timeout=5).stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        commit = None
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in VERSIONED}
    return {"git_commit": commit, "platform": platform.platform(), "versions": versions}


def numbers(metrics: dict[str, Tensor | float]) -> Metrics:
    """Read from the device only when they are logged; of a vector the mean."""
    return {
        key: float(value.mean() if isinstance(value, Tensor) else value) for key, value in metrics.items()
    }
