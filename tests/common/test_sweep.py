import sys
import types
from pathlib import Path

import pytest

from common import sweep
from common.results import read_csv
from common.sweep import Experiment
from common.types import UsageError
from hw2_policy_gradient.run import HOMEWORK, PRESETS

TINY = (
    "ppo-cartpole",
    "--train.total-steps",
    "1024",
    "--train.eval-every",
    "1024",
    "--train.eval-episodes",
    "2",
)
ONE = Experiment({"ppo": TINY, "lower rate": (*TINY, "--algo.lr", "1e-4")}, seeds=(0,))


def do(out: Path, experiment: Experiment = ONE, seeds=(0,), **options):
    return sweep.sweep(HOMEWORK, PRESETS, experiment, seeds, out, **options)


def test_runs_once_and_only_what_is_missing(tmp_path, capfd):
    frame = do(tmp_path)
    assert "2 runs to do, 0 finished" in capfd.readouterr().out
    assert frame.algo.tolist() == ["ppo", "lower rate"]
    assert frame.step.tolist() == [1024, 1024]
    again = do(tmp_path)
    assert "0 runs to do, 2 finished" in capfd.readouterr().out
    assert again.tolist() == frame.tolist()


def test_a_run_that_was_cut_is_gone_on_with(tmp_path, capfd):
    do(tmp_path, Experiment({"ppo": TINY}))
    (summary,) = tmp_path.rglob("summary.json")
    summary.unlink()
    for path in tmp_path.rglob("*.pt"):
        path.unlink()  # as if killed before the first checkpoint
    frame = do(tmp_path, Experiment({"ppo": TINY}))
    assert frame.step.tolist() == [1024]
    assert len(list(tmp_path.rglob("config.json"))) == 1


def test_a_failed_run_is_named_with_the_way_on(tmp_path):
    bad = Experiment({"x": (*TINY, "--env-id", "NoSuchThing-v0")})
    with pytest.raises(UsageError, match=r"did not finish.*NoSuchThing-v0"):
        do(tmp_path, bad)


@pytest.mark.parametrize("backend", ["ray", "submitit"])
def test_a_missing_backend_is_one_sentence(backend, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(UsageError, match=f"backend {backend} needs: pip install {backend}"):
        do(tmp_path, backend=backend)


def test_every_backend_gets_the_same_jobs(tmp_path, monkeypatch):
    """Stand-ins for the two cluster libraries that note what they are given."""
    given = {}

    def ray_remote(**options):
        return lambda f: types.SimpleNamespace(
            remote=lambda *args: given.setdefault("ray", []).append(args) or 1
        )

    class AutoExecutor:
        def __init__(self, folder):
            self.update_parameters = lambda **options: None

        def map_array(self, f, modules, jobs):
            given["submitit"] = list(zip(modules, jobs, strict=True))
            return [types.SimpleNamespace(result=lambda: 1) for _ in jobs]

    ray = types.SimpleNamespace(init=lambda **options: None, remote=ray_remote, get=lambda refs: refs)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "submitit", types.SimpleNamespace(AutoExecutor=AutoExecutor))
    monkeypatch.setattr(sweep, "run_job", lambda *args: given.setdefault("local", []).append(args) or 1)
    for backend in sweep.BACKENDS:
        with pytest.raises(UsageError, match="did not finish"):  # status 1 came back from each
            do(tmp_path, backend=backend)
    assert given["ray"] == given["submitit"] == given["local"]
    module, job = given["local"][1]
    assert module == "hw2_policy_gradient.run"
    assert job.argv[-4:] == ("--seed", "0", "--out", str(tmp_path))


def test_command_line_writes_the_csv(tmp_path, monkeypatch, capfd):
    argv = ["x", "one", "--seeds", "3", "--out", str(tmp_path / "runs"), "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", argv)
    sweep.main(HOMEWORK, PRESETS, {"one": Experiment({"ppo": TINY})}, tmp_path / "results")
    frame = read_csv(tmp_path / "results" / "one.csv")
    assert (frame.seed.tolist(), frame.step.tolist()) == ([3], [1024])


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["two"], "there is no experiment 'two'"),
        (["--backend", "k8s"], "k8s"),
        (["--jobs", "0"], "jobs must be"),
    ],
)
def test_command_line_refuses_with_status_2(argv, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", *argv])
    with pytest.raises(SystemExit) as end:
        sweep.main(HOMEWORK, PRESETS, {"one": ONE}, tmp_path)
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err
