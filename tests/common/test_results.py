import itertools
import json
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import trim_mean

from common import results
from common.types import UsageError


def fake_run(folder, seed, values, preset="ppo-cartpole"):
    run = folder / f"run_seed_{seed}"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"preset": preset, "env_id": "CartPole-v1", "seed": seed}))
    lines = [{"split": "train", "step": 1, "wall_s": 0.1}]
    for k, value in enumerate(values):
        scores = {"return_mean": value, "return_min": value - 1, "return_max": value + 1, "episodes": 5}
        lines.append({"split": "eval", "step": 10 * (k + 1), "wall_s": k + 0.5} | scores)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"cut')
    return run


def test_load_runs_is_tidy(tmp_path):
    fake_run(tmp_path, 0, [1.0, 2.0])
    fake_run(tmp_path, 1, [3.0])
    frame = results.load_runs(tmp_path)
    assert frame.dtype.names == ("algo", "env_id", "seed", "step", "return_mean", "wall_s")
    assert frame.tolist() == [
        ("ppo", "CartPole-v1", 0, 10, 1.0, 0.5),
        ("ppo", "CartPole-v1", 0, 20, 2.0, 1.5),
        ("ppo", "CartPole-v1", 1, 10, 3.0, 0.5),
    ]
    assert results.load_runs(tmp_path, "other").algo.tolist() == ["other"] * 3


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match="path must hold"):
        results.load_runs(tmp_path)


def test_preset_with_a_dash_in_the_algorithm(tmp_path):
    fake_run(tmp_path, 0, [1.0], preset="actor-critic-cartpole")
    assert results.load_runs(tmp_path).algo[0] == "actor-critic"


def test_csv_goes_round(tmp_path):
    fake_run(tmp_path, 3, [1.0, 2.0])
    frame = results.load_runs(tmp_path)
    results.write_csv(tmp_path / "x.csv", frame)
    text = (tmp_path / "x.csv").read_text()
    assert text.startswith("algo,env_id,seed,step,return_mean,wall_s\nppo,CartPole-v1,3,10,1.0,0.5\n")
    assert results.read_csv(tmp_path / "x.csv").tolist() == frame.tolist()


def test_further_columns_follow_the_usual_ones(tmp_path):
    fake_run(tmp_path, 3, [1.0, 2.0])
    frame = results.load_runs(tmp_path, extra=("return_max", "episodes"))
    assert frame.dtype.names[-3:] == ("wall_s", "return_max", "episodes")
    assert [row[-2:] for row in frame.tolist()] == [(2.0, 5.0), (3.0, 5.0)]
    results.write_csv(tmp_path / "x.csv", frame)
    text = (tmp_path / "x.csv").read_text().splitlines()
    assert text[:2] == [
        "algo,env_id,seed,step,return_mean,wall_s,return_max,episodes",
        "ppo,CartPole-v1,3,10,1.0,0.5,2.0,5.0",
    ]
    usual = results.load_runs(tmp_path)
    assert results.read_csv(tmp_path / "x.csv").tolist() == usual.tolist()


def test_iqm_by_hand_and_against_scipy():
    assert results.iqm(np.array([100.0, 1, 2, 3, 4, 5, 6, -100])) == pytest.approx(3.5)
    x = np.random.default_rng(0).normal(size=(10, 3))
    np.testing.assert_allclose(results.iqm(x), [trim_mean(column, 0.25) for column in x.T])


def test_bootstrap_agrees_with_all_resamples():
    """Two tasks of three runs: all 27 x 27 equally likely replicates, enumerated, against the draws."""
    tasks = [np.array([0.0, 1.0, 5.0]), np.array([10.0, 12.0, 19.0])]
    all_draws = [
        results.iqm(np.array([*a, *b]))
        for a in itertools.product(tasks[0], repeat=3)
        for b in itertools.product(tasks[1], repeat=3)
    ]
    low, high = results.bootstrap_interval(tasks, np.random.default_rng(0), replicates=40_000)
    np.testing.assert_allclose([low, high], np.quantile(all_draws, [0.025, 0.975]), atol=0.15)


def test_bootstrap_is_stratified():
    """Tasks of constant score: every replicate holds both in equal parts, so nothing varies."""
    low, high = results.bootstrap_interval([np.zeros(4), np.ones(4)], np.random.default_rng(0))
    assert low == high == 0.5


def test_bootstrap_covers_the_mean():
    """A 95 % percentile interval of 30 normal runs covers the truth in 90 to 98 of 100 cases."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = results.bootstrap_interval([rng.normal(size=30)], rng, replicates=400)
        hits += bool(low <= 0 <= high)
    assert 0.88 <= hits / 200 <= 0.99


def test_runs_are_aligned_at_common_steps(tmp_path):
    fake_run(tmp_path, 0, [1.0, 2.0, 3.0])
    fake_run(tmp_path, 1, [5.0, 6.0])
    steps, scores = results.align(results.load_runs(tmp_path))
    assert steps.tolist() == [10, 20]
    assert scores.tolist() == [[1, 2], [5, 6]]


def test_best_and_last_window(tmp_path):
    fake_run(tmp_path, 0, [1, 9, 2, 2, 2, 2, 7])
    best, last = results.best_and_last(results.load_runs(tmp_path))
    assert (best.tolist(), last.tolist()) == ([9], [3])


def test_plots_show_the_data(tmp_path):
    run = fake_run(tmp_path, 0, [1.0, 2.0])
    path = results.plot_run(run, {"solved": 3.0})
    assert path.read_bytes()[1:4] == b"PNG"
    axes = Figure().subplots()
    results.plot_curves(axes, results.load_runs(tmp_path))
    assert axes.lines[0].get_ydata().tolist() == [1, 2]
    assert axes.get_legend_handles_labels()[1] == ["ppo (1 seed)"]


def test_a_single_evaluation_is_seen(tmp_path):
    """A point each for the mean and the seeds, where lines are drawn without points."""
    fake_run(tmp_path / "once", 0, [1.0])
    fake_run(tmp_path / "twice", 0, [1.0, 2.0])
    for folder, marker in (("once", "o"), ("twice", "")):
        axes = Figure().subplots()
        results.plot_curves(axes, results.load_runs(tmp_path / folder))
        assert {line.get_marker() for line in axes.lines} == {marker}


def test_command_line_draws_and_tabulates(tmp_path, monkeypatch, capsys):
    fake_run(tmp_path, 0, [1.0, 2.0])
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path), "--out", str(tmp_path / "x.png")])
    results.main()
    assert (tmp_path / "x.png").exists()
    assert "| ppo | CartPole-v1 | 1 | 20 |" in capsys.readouterr().out
    results.write_csv(tmp_path / "x.csv", results.load_runs(tmp_path))
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "x.csv"), "--out", str(tmp_path / "y.png")])
    results.main()
    assert (tmp_path / "y.png").exists()


def test_command_line_refuses_what_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as end:
        results.main()
    assert end.value.code == 2
    assert "path must hold" in capsys.readouterr().err


def test_a_second_run_of_a_seed_is_a_row_of_its_own(tmp_path):
    fake_run(tmp_path / "a", 0, [1.0, 2.0])
    fake_run(tmp_path / "b", 0, [5.0, 6.0])
    frame = results.load_runs(tmp_path)
    assert frame.algo.tolist() == ["ppo", "ppo", "ppo #2", "ppo #2"]


def test_frames_that_cannot_be_tabulated_are_refused(tmp_path):
    frame = results.load_runs(fake_run(tmp_path, 0, [1.0, 2.0]))
    with pytest.raises(UsageError, match="holds a seed twice"):
        results.table(np.concatenate([frame, frame]).view(np.recarray))
    other = frame.copy()
    other.seed, other.step = 1, other.step + 1
    with pytest.raises(UsageError, match="share no evaluated step"):
        results.table(np.concatenate([frame, other]).view(np.recarray))


@pytest.mark.parametrize(
    ("name", "text"),
    [("x.csv", "a,b\n1,2\n"), ("x.csv", "algo,env_id,seed,step,return_mean,wall_s\nppo,C,zero,1,1,1\n")],
)
def test_command_line_refuses_other_files(name, text, tmp_path, monkeypatch, capsys):
    (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / name), "--out", str(tmp_path / "x.png")])
    with pytest.raises(SystemExit) as end:
        results.main()
    assert end.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
