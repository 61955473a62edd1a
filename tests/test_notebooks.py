"""Every notebook runs from committed results, cell by cell, without Jupyter."""

import json
import sys
import types

import pytest

from tests.helpers import ROOT

NOTEBOOKS = sorted(ROOT.glob("hw*_*/*.ipynb"))


def cells(path) -> list[str]:
    notebook = json.loads(path.read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("inside", [True, False], ids=["from its folder", "from the root"])
def test_every_cell_runs(path, inside, monkeypatch):
    """IPython.display is stood in for: Jupyter itself is no requirement."""
    monkeypatch.chdir(path.parent if inside else ROOT)
    display = types.SimpleNamespace(Markdown=str)
    # matplotlib asks an imported IPython for its version and its shell
    stand_in = types.SimpleNamespace(display=display, version_info=(9, 0), get_ipython=lambda: None)
    monkeypatch.setitem(sys.modules, "IPython", stand_in)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    namespace = {}
    for source in cells(path):
        exec(compile(source, path.name, "exec"), namespace)
    assert "curves" in namespace


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
