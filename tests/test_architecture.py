"""The import rules, read off the source. Each rule is also shown a tree that breaks it."""

import ast
from pathlib import Path

import pytest

from tests.helpers import ROOT

# Only a run script may hand another homework's agent in.
ALLOWED = {
    ("hw4_model_based.run", "hw2_policy_gradient"),  # model-free fine-tuning goes on with its PPO
    ("hw4_model_based.run", "hw5_planning_control"),  # SOLAR plans by its LQR
    ("hw4_model_based.run", "hw3_q_learning"),  # MBPO improves its SAC and NAF, MVE and STEVE its DDPG
}


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file, of everything but the tests."""
    files = [
        path for top in ("common", "hw*_*") for folder in root.glob(top) for path in folder.rglob("*.py")
    ]
    return {".".join(path.relative_to(root).with_suffix("").parts): path for path in files}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, functions inside included; `from a import b` counts as a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {"." * node.level + (node.module or "")}
            names |= {f"{node.module}.{alias.name}" for alias in node.names if node.module}
    return names


def violations(root: Path) -> list[str]:
    """What breaks a rule, one sentence each."""
    known = modules(root)
    graph = {name: imports(path) for name, path in known.items()}
    found = []
    for name, imported in graph.items():
        top, *rest = name.split(".")
        others = {i.split(".")[0] for i in imported if i.startswith("hw")} - {top}
        found += [f"{name} imports another homework, {o}" for o in others if (name, o) not in ALLOWED]
        found += [f"{name} imports the tests" for i in imported if i.split(".")[0] == "tests"]
        found += [f"{name} imports relatively, {i}" for i in imported if i.startswith(".")]
        own = {i.removeprefix(f"{top}.").split(".")[0] for i in imported if i.startswith(f"{top}.")}
        role = rest[0] if rest else ""
        if top != "common" and role not in ("run", "experiments"):
            trainer = role.endswith("trainer")
            wired = {o for o in own if o in ("run", "experiments") or (o.endswith("trainer") and not trainer)}
            found += [f"{name} imports its {o}" for o in wired]
            if trainer:
                found += [f"{name} imports an algorithm, {o}" for o in own]
    return found + [f"cycle through {name}" for name in known if reaches(graph, name, name)]


def reaches(graph: dict[str, set[str]], start: str, goal: str) -> bool:
    """Is there a path of at least one import?"""
    seen, todo = set(), [start]
    while todo:
        for name in graph.get(todo.pop(), set()) - seen:
            if name == goal:
                return True
            seen.add(name)
            todo.append(name)
    return False


def test_the_repository_keeps_its_rules():
    assert len(modules(ROOT)) > 20
    assert violations(ROOT) == []


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"common/a.py": "from hw1_x.b import c"}, "common.a imports another homework, hw1_x"),
        ({"common/a.py": "def f():\n    import hw1_x.b"}, "another homework, hw1_x"),
        ({"hw1_x/a.py": "import hw2_y.b"}, "hw1_x.a imports another homework, hw2_y"),
        ({"hw4_model_based/mbpo.py": "from hw3_q_learning.sac import SAC"}, "another homework"),
        ({"hw1_x/a.py": "from hw1_x.trainer import train"}, "hw1_x.a imports its trainer"),
        ({"hw1_x/a.py": "from hw1_x.x_trainer import t"}, "hw1_x.a imports its x_trainer"),
        ({"hw1_x/x_trainer.py": "import hw1_x.a", "hw1_x/a.py": ""}, "imports an algorithm, a"),
        ({"hw1_x/a.py": "from hw1_x import run"}, "hw1_x.a imports its run"),
        ({"hw1_x/trainer.py": "from hw1_x.a import A", "hw1_x/a.py": ""}, "imports an algorithm, a"),
        ({"hw1_x/a.py": "from tests.helpers import run"}, "imports the tests"),
        ({"hw1_x/a.py": "from .b import c"}, "imports relatively"),
        ({"common/a.py": "import common.b", "common/b.py": "from common import a"}, "cycle through common.a"),
    ],
)  # fmt: skip
def test_a_planted_violation_is_found(files, sentence, tmp_path):
    assert any(sentence in found for found in violations(plant(tmp_path, files)))


def test_what_is_allowed_is_not_found(tmp_path):
    files = {
        "common/a.py": "import torch",
        "hw3_q_learning/sac.py": "from common.a import x\nfrom hw3_q_learning.dqn import y",
        "hw3_q_learning/dqn.py": "",
        "hw3_q_learning/run.py": "from hw3_q_learning import sac, trainer",
        "hw3_q_learning/trainer.py": "from common import a",
        "hw4_model_based/run.py": "from hw3_q_learning.sac import SAC",
    }
    assert violations(plant(tmp_path, files)) == []


def test_top_level_is_what_it_should_be():
    visible = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - {
        "runs",
        "__pycache__",
    }
    fixed = {"common", "tests", "requirements.txt", "README.md", "pyproject.toml", "LICENSE"}
    assert fixed <= visible
    assert all(name.startswith("hw") for name in visible - fixed)


def test_every_homework_is_complete():
    for folder in ROOT.glob("hw*_*"):
        for name in ("__init__.py", "trainer.py", "run.py", "experiments.py", "curves.ipynb", "README.md"):
            assert (folder / name).exists(), f"{folder.name} lacks {name}"
        assert list((folder / "results").glob("*.csv"))
