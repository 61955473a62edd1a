"""A file of plain arrays, the .json beside it that says where they come from, and a digest of both.

Reading executes nothing that the files hold: no pickle, and whatever is wrong is one sentence.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import io
import json
import math
from pathlib import Path

import numpy as np

from common.checkpoint import write_atomically
from common.types import require

FORMAT = 1
VERSIONED = ("gymnasium", "mujoco")  # another major version of these moves otherwise
KINDS = {"str": str, "int": int, "float": float}


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where arrays come from."""

    env_id: str
    expert: str  # how it was made
    seed: int  # of the environments
    return_mean: float  # of the expert over whole episodes


ORIGIN = {field.name: KINDS[field.type] for field in dataclasses.fields(Origin)}


def write(path: Path, arrays: dict[str, np.ndarray], origin: Origin) -> None:
    """path (.npz), and the same name with .json."""
    _check_name(path)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    versions = {name: _version(name) for name in VERSIONED}
    about = {"format": FORMAT, **dataclasses.asdict(origin), "versions": versions}
    about["sha256"] = digest(about, buffer.getvalue())
    write_atomically(path, buffer.getvalue())
    write_atomically(path.with_suffix(".json"), (json.dumps(about, indent=2) + "\n").encode())


def read(path: Path) -> tuple[dict[str, np.ndarray], Origin]:
    """What `write` wrote, or a UsageError (a ValueError) that says in one sentence what is wrong."""
    _check_name(path)
    sidecar = path.with_suffix(".json")
    try:
        data, text = path.read_bytes(), sidecar.read_bytes()
    except OSError as error:
        require(False, f"cannot read {error.filename}: {error.strerror}")
    about = _read_sidecar(sidecar, text)
    require(about["sha256"] == digest(about, data), f"{path} is not what {sidecar.name} has the digest of")
    for name, version in about["versions"].items():
        here = _version(name)
        ok = version.split(".")[0] == here.split(".")[0]
        require(ok, f"{path} was recorded with {name} {version}, and this is {here}: record it anew")
    return _read_arrays(path, data), Origin(**{key: about[key] for key in ORIGIN})


def digest(about: dict, data: bytes) -> str:
    """SHA-256 of the arrays' file and of everything else that the sidecar says."""
    said = json.dumps({key: value for key, value in about.items() if key != "sha256"}, sort_keys=True)
    return hashlib.sha256(said.encode() + b"\0" + data).hexdigest()


def short(value: object) -> str:
    """On one line, whatever a damaged file holds."""
    return repr(value)[:60]


def _read_sidecar(path: Path, text: bytes) -> dict:
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        require(False, f"{path} is not JSON: {type(error).__name__}")
    keys = {"format", *ORIGIN, "versions", "sha256"}
    require(isinstance(about, dict) and about.keys() == keys, f"{path} must hold {', '.join(sorted(keys))}")
    require(about["format"] == FORMAT, f"{path}: format must be {FORMAT}, got {short(about['format'])}")
    for key, kind in ORIGIN.items():
        ok = type(about[key]) is kind and (kind is not float or math.isfinite(about[key]))
        require(ok, f"{path}: {key} must be a {kind.__name__}, got {short(about[key])}")
    versions = about["versions"]
    ok = isinstance(versions, dict) and versions.keys() == {*VERSIONED}
    ok = ok and all(isinstance(v, str) and v.isprintable() for v in versions.values())
    require(ok, f"{path}: versions must name those of {', '.join(VERSIONED)}, got {short(versions)}")
    return about


def _read_arrays(path: Path, data: bytes) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in file.files}
    except Exception as error:  # zipfile, zlib, ast and NumPy raise a dozen kinds, none of them the user's
        require(False, f"{path} is not an .npz of plain arrays, {type(error).__name__}")


@functools.cache
def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _check_name(path: Path) -> None:
    require(path.suffix == ".npz", f"path must end in .npz, got {path}")
