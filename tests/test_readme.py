"""Commands in the READMEs: all parse, the quick ones run."""

import contextlib
import importlib
import re
import shlex

import numpy as np
import pytest

from common import cli
from common.results import best_and_last, load_runs, read_csv, table
from tests.helpers import ROOT, run

READMES = [ROOT / "README.md", *sorted(ROOT.glob("hw*_*/README.md"))]
# [README, command] of every line in a fenced block that starts a module
COMMANDS = [
    pytest.param(line.removeprefix("$ "), id=f"{path.parent.name}: {line[:60]}")
    for path in READMES
    for block in re.findall(r"```(?:bash|sh)\n(.*?)```", path.read_text(), re.DOTALL)
    for command in block.splitlines()
    for line in re.split(r" && | # ", command)
    if "python -m " in line
]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses(line, capsys):
    """`run` through the homework's presets, `experiments` by its names, other modules must exist."""
    words = shlex.split(line)
    module, *argv = words[words.index("-m") + 1 :]
    assert importlib.util.find_spec(module), f"there is no module {module}"
    if module.endswith(".run") and "RUN_DIR" not in argv:
        presets = importlib.import_module(module).PRESETS
        with contextlib.suppress(SystemExit):  # --help; what is wrong raises UsageError
            cli.parse(presets, next(iter(presets)), argv)
    if module.endswith(".experiments"):
        experiments = importlib.import_module(module).EXPERIMENTS
        names = [word for word in argv if not word.startswith("-")]
        assert not argv or names[0] in experiments


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_links_point_at_files(path):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text()):
        assert (path.parent / target).exists(), f"{path} links to {target}"


@pytest.mark.parametrize("path", READMES[1:], ids=lambda path: path.parent.name)
def test_every_preset_and_module_has_its_place_in_the_handout(path):
    text = path.read_text()
    presets = importlib.import_module(f"{path.parent.name}.run").PRESETS
    assert [name for name in presets if name not in text] == []
    modules = {file.name for file in path.parent.glob("*.py")} - {"__init__.py"}
    assert [name for name in modules if name not in text] == []


@pytest.mark.parametrize("folder", sorted(ROOT.glob("hw*_*")), ids=lambda path: path.name)
def test_the_table_is_what_the_printed_command_prints(folder):
    """The numbers of the hand-out are those of the committed CSVs, to the digit."""
    text = (folder / "README.md").read_text()
    assert f"python -m common.results {folder.name}/results/*.csv" in text
    frames = [read_csv(path) for path in sorted(folder.glob("results/*.csv"))]
    rows = table(np.concatenate(frames).view(np.recarray)).splitlines()
    assert len(rows) > 2
    assert [row for row in rows if row not in text] == []


def test_the_main_command_solves_cartpole(tmp_path):
    """What the README promises of its first command: 475 or more over 20 episodes, seed 0.

    Ten seeds of ten end at 500 and stay there for the last five evaluations. The random policy has 22."""
    line = next(p.values[0] for p in COMMANDS if "hw2_policy_gradient.run" in p.values[0])
    result = run(*shlex.split(line)[3:], "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    found = re.fullmatch(r"final return ([\d.]+) .* over 20 episodes, .*", result.stdout.splitlines()[-1])
    assert float(found[1]) >= 475
    _, last = best_and_last(load_runs(tmp_path))
    assert last[0] >= 450
