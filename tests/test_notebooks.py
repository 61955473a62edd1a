"""Every notebook runs from committed results, cell by cell, without Jupyter."""

import json
import subprocess
import sys

import pytest

from tests.helpers import ROOT

# matplotlib asks an imported IPython for its version and its shell
HEADER = """
import sys, types
display = types.SimpleNamespace(Markdown=str, Image=open)
ipython = types.SimpleNamespace(display=display, version_info=(9, 0), get_ipython=lambda: None)
sys.modules |= {"IPython": ipython, "IPython.display": display}
"""
NOTEBOOKS = sorted(ROOT.glob("hw*_*/*.ipynb"))


def cells(path) -> list[str]:
    notebook = json.loads(path.read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.parent.name)
def test_every_cell_runs(path):
    """In a process of its own, which knows no package yet, where Jupyter would start it. IPython.display is
    stood in for: Jupyter itself is no requirement."""
    script = HEADER + "\n".join(cells(path))
    result = subprocess.run([sys.executable, "-c", script], cwd=path.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.parent.name)
def test_a_notebook_started_from_the_root_finds_the_packages(path):
    """The cell in front looks for them, the same one in all."""
    first = cells(path)[0]
    assert first == cells(NOTEBOOKS[0])[0]
    if path == NOTEBOOKS[0]:
        command = [sys.executable, "-c", f"{first}\nimport common.results, {path.parent.name}.experiments"]
        assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.parent.name)
def test_notebooks_are_stored_without_outputs_and_define_no_algorithm(path):
    notebook = json.loads(path.read_text())
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"])
    assert not any("import torch" in source or "train(" in source for source in cells(path))


@pytest.mark.parametrize("folder", sorted(ROOT.glob("hw*_*")), ids=lambda path: path.name)
def test_every_result_is_drawn_in_the_notebook(folder):
    text = "".join(cells(folder / "curves.ipynb"))
    for path in folder.glob("results/*.csv"):
        assert f'"{path.stem}"' in text, f"{path.name} is in no figure"
