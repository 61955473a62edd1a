"""Every default has the type that its annotation says, every preset builds and can be stored."""

import dataclasses
import importlib
import inspect
import re
import types
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from common import cli
from tests.helpers import ROOT

RUNS = [importlib.import_module(f"{folder.name}.run") for folder in sorted(ROOT.glob("hw*_*"))]
PRESETS = [pytest.param(run, preset, id=name) for run in RUNS for name, preset in run.PRESETS.items()]


def fits(value: object, hint: object) -> bool:
    """Is `value` of exactly this type? 5 is no float, True no int."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is types.UnionType:
        return any(fits(value, each) for each in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(fits(x, get_args(hint)[0]) for x in value)
    return value is None if hint is type(None) else isinstance(value, hint) and type(value) in (
        hint, type(value) if hint not in (int, float, bool, str) else hint
    )  # fmt: skip


def mistyped(config: object) -> list[str]:
    hints = get_type_hints(type(config))
    found = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found += mistyped(value)
        elif not fits(value, hints[field.name]):
            found.append(f"{type(config).__name__}.{field.name} = {value!r}")
    return found


@pytest.mark.parametrize(("run", "preset"), PRESETS)
def test_values_are_of_the_annotated_type(run, preset):
    assert mistyped(preset) == []


def test_a_wrong_type_would_be_found():
    @dataclasses.dataclass(frozen=True)
    class Wrong:
        steps: int = 5e3
        rate: float = 1
        flag: bool = 0
        sizes: tuple[int, ...] = (1, 2.0)
        kind: Literal["a", "b"] = "c"
        maybe: float | None = "x"
        good: float | None = None

    assert [text.split()[0].split(".")[1] for text in mistyped(Wrong())] == [
        "steps", "rate", "flag", "sizes", "kind", "maybe",
    ]  # fmt: skip


@pytest.mark.parametrize(("run", "preset"), PRESETS)
def test_every_setting_is_explained_in_the_help(run, preset):
    """tyro takes the comment behind a field for its help."""
    for config in (preset, preset.algo, preset.train):
        source = inspect.getsource(type(config))
        for name in type(config).__annotations__:
            (line,) = re.findall(rf"^    {name}: .*$", source, re.MULTILINE)
            assert "  # " in line or "Suppress" in line, f"{type(config).__name__}.{name} has no comment"


@pytest.mark.parametrize(("run", "preset"), PRESETS)
def test_preset_is_named_after_algorithm_and_environment(run, preset):
    _, env = preset.preset.rsplit("-", 1)
    assert preset.preset == preset.preset.lower()
    assert preset.env_id.lower().removeprefix("course/").startswith(env)
    assert run.PRESETS[preset.preset] is preset


@pytest.mark.parametrize(("run", "preset"), PRESETS)
def test_preset_goes_through_its_file_and_cannot_be_changed(run, preset, tmp_path):
    stored = cli.to_dict(preset)
    assert cli.from_dict(preset, stored) == preset
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset.algo.gamma = 0.5


@pytest.mark.parametrize("run", RUNS)
def test_experiments_name_presets_and_options_that_exist(run):
    experiments = importlib.import_module(f"{run.HOMEWORK}.experiments").EXPERIMENTS
    for experiment in experiments.values():
        assert len(experiment.seeds) >= 3
        for argv in experiment.arms.values():
            cli.parse(run.PRESETS, "", [*argv])
