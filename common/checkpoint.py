"""Exact resume. A checkpoint is one file of tensors and plain numbers, read with weights_only=True."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from common.types import UsageError

KEPT = 2  # the newest may turn out damaged


def state_of(agent: object) -> dict:
    """All that an agent owns, by attribute name, settings left out.

    An attribute of a kind that cannot be saved raises TypeError: passing over it in silence would let the
    resumed run drift away from the uninterrupted one.
    """
    state = {}
    for name, value in vars(agent).items():
        if hasattr(value, "state_dict"):
            state[name] = value.state_dict()
        elif isinstance(value, torch.Generator):
            state[name] = value.get_state()
        elif isinstance(value, np.random.Generator):
            state[name] = value.bit_generator.state
        elif _is_data(value):
            state[name] = value._asdict() if hasattr(value, "_fields") else value
        elif not _is_setting(value):
            raise TypeError(f"{type(agent).__name__}.{name}: a {type(value).__name__} cannot be saved")
    return state


def _is_data(value: object) -> bool:
    """A number or a tensor, or tensors in a list or by name. Parameters are saved with their module."""
    if isinstance(value, list) or hasattr(value, "_fields"):
        return all(type(item) is torch.Tensor for item in value)
    return isinstance(value, bool | int | float | torch.Tensor)


def _is_setting(value: object) -> bool:
    """Does it never change? Parameters change, but their module or optimiser is saved."""
    if isinstance(value, tuple):
        return all(_is_setting(item) for item in value)
    frozen = dataclasses.is_dataclass(value) and value.__dataclass_params__.frozen
    return frozen or isinstance(value, torch.device | torch.nn.Parameter | int | float | str)


def require_finite(agent: object, step: int) -> None:
    """FloatingPointError if a parameter of a network of the agent is not: never act with it or save it."""
    for name, value in vars(agent).items():
        parameters = getattr(value, "parameters", None)
        for parameter in parameters() if callable(parameters) else ():
            if not torch.isfinite(parameter).all():
                raise FloatingPointError(f"not finite after step {step}: the parameters of {name}")


def restore(agent: object, state: dict) -> None:
    """Put `state_of(agent)` back into an agent built with the same settings."""
    for name, value in state.items():
        try:
            target = getattr(agent, name)
            if hasattr(target, "load_state_dict"):
                target.load_state_dict(value)
            elif isinstance(target, torch.Generator):
                target.set_state(value.cpu())
            elif isinstance(target, np.random.Generator):
                target.bit_generator.state = value
            elif hasattr(target, "_fields"):
                setattr(agent, name, type(target)(**value))
            else:
                setattr(agent, name, value)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            told = f"the checkpoint's {name} does not fit this version of the program: {error!r}"
            raise UsageError(f"{told}; start the run anew") from error


def save(folder: Path, step: int, **content: object) -> None:
    """Write, sync, rename: a crash leaves the old files whole. The name carries the content's digest."""
    buffer = io.BytesIO()
    torch.save({"step": step, **content}, buffer)
    data = buffer.getvalue()
    folder.mkdir(exist_ok=True)
    write_atomically(folder / f"{step:012d}_{_digest(data)}.pt", data)
    for old in sorted(folder.glob("*.pt"))[:-KEPT]:
        old.unlink()


def load_latest(folder: Path, device: torch.device | str = "cpu") -> dict | None:
    """The newest whole checkpoint; None where none was ever written; UsageError where all are damaged."""
    paths = sorted(folder.glob("*.pt"), reverse=True)
    for path in paths:
        data = path.read_bytes()
        if path.stem.endswith(_digest(data)):
            return torch.load(io.BytesIO(data), map_location=device, weights_only=True)
        print(f"warning: {path} is damaged, going back to the one before", file=sys.stderr)
    if paths:
        raise UsageError(f"every checkpoint in {folder} is damaged; start the run anew")
    return None


def write_atomically(path: Path, data: bytes) -> None:
    """`path` holds either what it held or all of `data`, whatever happens in between."""
    part = path.with_name(f"{path.name}.tmp")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


@contextmanager
def stop_signals():
    """Ctrl-C and SIGTERM become a request in the list, which the trainer honours at its next boundary.

    A second Ctrl-C stops at once.
    """
    requested: list[int] = []

    def handle(number, frame):
        requested.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
