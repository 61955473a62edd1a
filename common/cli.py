"""python -m hwN_x.run [PRESET] [options]: the command line of every homework."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import io
import itertools
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import tyro

from common.checkpoint import write_atomically
from common.logger import lock
from common.types import UsageError, require

# Another value of these is still the same run.
HARMLESS = {"device", "threads", "out", "resume", "video", "train.workers"}
RESUMABLE = HARMLESS | {"train.total_steps"}  # may differ on --resume
INTERRUPTED = 130  # exit status, as the shell gives for Ctrl-C


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of every run. A homework's RunConfig adds `algo` and `train`."""

    preset: tyro.conf.Suppress[str]
    env_id: str  # Gymnasium id
    seed: int = 0  # all randomness of the run comes from it
    device: str = "cpu"  # cpu, cuda or auto
    threads: int = 1  # torch threads
    out: Path = Path("runs")  # run directories go under it
    resume: Path | None = None  # run directory to go on with
    video: bool = False  # film the trained policy

    def __post_init__(self):
        require(0 <= self.seed < 2**63, f"seed must lie in [0, 2^63), got {self.seed}")
        require(self.threads >= 1, f"threads must be at least 1, got {self.threads}")


def main(presets: dict[str, RunOptions], default: str, run: Callable[[RunOptions], str]) -> None:
    """Run what sys.argv asks for. `run` returns "finished" or "interrupted"."""
    try:
        status = run(parse(presets, default, sys.argv[1:]))
    except (UsageError, FloatingPointError) as error:
        sys.exit(_fail(error))
    except KeyboardInterrupt:  # before the training, or a second time
        told = "interrupted; --resume RUN_DIR goes on from the last checkpoint, or starts over without one"
        print(told, file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "alloc" not in str(error):
            raise
        sys.exit(_fail(f"these settings need more memory than there is: {str(error).splitlines()[0]}"))
    except OSError as error:  # a full disk, a folder taken away
        sys.exit(_fail(f"cannot write the run: {error}"))
    sys.exit(INTERRUPTED if status == "interrupted" else 0)


def _fail(sentence: object) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2


def parse(presets: dict[str, RunOptions], default: str, argv: list[str]) -> RunOptions:
    """[PRESET] [options] -> settings; with --resume those of the resumed run."""
    name, flags = (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else (default, argv)
    if name not in presets:
        close = difflib.get_close_matches(name, presets, n=1) or [default]
        raise UsageError(f"there is no preset {name!r}; did you mean {close[0]}? All: {', '.join(presets)}")
    text = f"PRESET is one of {', '.join(presets)}. The defaults below are those of {name}."
    if (folder := _resumed(flags)) is None:
        return _override(presets[name], flags, text)
    before = stored(presets, folder)
    require(argv[0] != name or name == before.preset, f"{folder} is a run of {before.preset}, not {name}")
    config = _override(before, flags, text)
    if changed := differences(before, config) - RESUMABLE:
        raise UsageError(f"a resumed run keeps its {', '.join(sorted(changed))}")
    return config


def stored(presets: dict[str, RunOptions], folder: Path) -> RunOptions:
    """The settings of the run in `folder`."""
    try:
        values = json.loads((folder / "config.json").read_text())
        return from_dict(presets[values["preset"]], values)
    except UsageError as error:
        raise UsageError(f"{folder / 'config.json'}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{folder} is not the directory of a run of this homework") from error


def _resumed(flags: list[str]) -> Path | None:
    """Looked for first: the resumed run's settings are the defaults that the other flags change."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--resume", type=Path)
    try:
        return parser.parse_known_args(flags)[0].resume
    except argparse.ArgumentError as error:
        raise UsageError("--resume needs a run directory") from error


def _override(config: RunOptions, flags: list[str], text: str) -> RunOptions:
    """tyro parses; where it objects it prints a box, in which one sentence is what the user needs."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            kind = tyro.conf.AvoidSubcommands[type(config)]
            prog = f"python -m {_module()} [PRESET]"
            return tyro.cli(kind, prog=prog, default=config, args=flags, description=text)
    except SystemExit as end:
        if end.code != 2:
            raise
        raise UsageError(_sentence(told.getvalue())) from None


def _sentence(box: str) -> str:
    """Paragraphs of the box are parted by rulers: the title, the sentence, then what it suggests."""
    ruler = r"(?m)^ *[─-]+(?: [^─\n]+ ─+)? *$"
    _, sentence, *more = re.split(ruler, re.sub("[│╭╮╰╯]", " ", box))
    close = re.search(r"Perhaps you meant:\s+(--\S+)", " ".join(more))
    return " ".join(sentence.split()) + (f"; did you mean {close[1]}?" if close else "")


def _module() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec else "hwN_x.run"


def from_dict(template: object, values: dict) -> object:
    """The dataclass `template` with other values; their types are the template's."""
    fields = {}
    for field in dataclasses.fields(template):
        old, new = getattr(template, field.name), values[field.name]
        if dataclasses.is_dataclass(old):
            new = from_dict(old, new)
        elif isinstance(old, tuple | Path):
            new = type(old)(new)
        elif isinstance(old, str | bool | int | float):
            kinds = (int, float) if type(old) is float else (type(old),)
            require(type(new) in kinds, f"{field.name} must be {type(old).__name__}, got {new!r}")
        fields[field.name] = new
    return type(template)(**fields)


def to_dict(config: RunOptions) -> dict:
    """As config.json holds it: numbers, strings, lists."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def differences(a: object, b: object, prefix: str = "") -> set[str]:
    """Dotted names of the fields in which two settings of one type differ."""
    found = set()
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if dataclasses.is_dataclass(x) and type(x) is type(y):
            found |= differences(x, y, f"{prefix}{field.name}.")
        elif x != y:
            found.add(prefix + field.name)
    return found


def run_directory(config: RunOptions, homework: str) -> Path:
    """The resumed directory, or a new one out/homework/preset/env/stamp_seed; with the settings in it."""
    directory = config.resume or runs_of(config, homework)
    try:
        if config.resume:
            lock(directory).close()  # or another process would find its settings changed
        else:
            directory = _new_directory(directory, f"{time.strftime('%Y%m%d-%H%M%S')}_seed_{config.seed}")
        stored = dataclasses.replace(config, resume=None)
        write_atomically(directory / "config.json", (json.dumps(to_dict(stored), indent=2) + "\n").encode())
    except OSError as error:
        raise UsageError(f"out: cannot write {directory}: {error.strerror}") from error
    return directory


def _new_directory(parent: Path, name: str) -> Path:
    """parent/name, or name_2, name_3 ... where another run took it."""
    parent.mkdir(parents=True, exist_ok=True)
    for k in itertools.count(1):
        directory = parent / (name if k == 1 else f"{name}_{k}")
        with contextlib.suppress(FileExistsError):
            directory.mkdir()
            return directory


def runs_of(config: RunOptions, homework: str) -> Path:
    """Where the runs of these settings lie, one folder each."""
    return config.out / homework / config.preset / config.env_id.replace("/", "_")
