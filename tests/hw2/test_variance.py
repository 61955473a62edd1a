import numpy as np
import pytest
from matplotlib.figure import Figure

from common.types import UsageError
from hw2_policy_gradient import variance as module
from hw2_policy_gradient.ladder import ESTIMATORS, Rung
from hw2_policy_gradient.variance import draw, main, read_csv, tables, tightrope, walk, write_csv

RUNGS = [
    Rung(k, 20.0 + k, name, 100.0 / (i + 1), 90.0 / (i + 1), 120.0 / (i + 1))
    for k in (0, 8)
    for i, name in enumerate(ESTIMATORS)
]


def test_csv_comes_back(tmp_path):
    write_csv(tmp_path / "ladder.csv", RUNGS)
    back = read_csv(tmp_path / "ladder.csv")
    assert [r[:3] for r in back] == [r[:3] for r in RUNGS]
    np.testing.assert_allclose([r[3:] for r in back], [r[3:] for r in RUNGS], rtol=1e-5)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n"])
def test_another_csv_is_refused(text, tmp_path):
    (tmp_path / "other.csv").write_text(text)
    with pytest.raises(UsageError, match="path must be a CSV of updates,length,estimator"):
        read_csv(tmp_path / "other.csv")


def test_table_has_every_number():
    text = tables(RUNGS)
    assert "| 20 steps per episode | 28 steps per episode |" in text
    assert "| 0.5 [0.45, 0.6] | 0.5 [0.45, 0.6] |" in text  # reward-to-go against total return
    assert all(f"| {name}:" in text for name in ESTIMATORS)
    assert "| total return | 192 | 1,510 | 1.271e+05 |" in text
    assert "| first order | 27.63, mean 2 | 88 |" in text
    assert "| tightrope | 0.01 | -10.5 | -12.2 | 1.75 | 3.92 |" in text


def test_every_line_of_a_table_is_as_wide_as_its_head():
    for block in tables(RUNGS).split("\n\n"):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_picture_has_a_panel_each():
    titles = [axes.get_title() for axes in draw(RUNGS).axes]
    assert len(titles) == 5
    assert all(titles)


@pytest.mark.parametrize("problem", [tightrope, walk])
@pytest.mark.parametrize("eps", [1e-4, 0.05, 0.3])
def test_what_is_drawn_obeys_the_bound(problem, eps):
    change = problem(eps)
    assert change.eps == pytest.approx(eps)
    assert (change.drift <= change.drift_bound + 1e-12).all()
    assert abs(change.gain - change.surrogate_gain) <= change.gap_bound


def test_main_writes_picture_and_csv(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "measure", lambda episodes, seed: RUNGS)
    main(["--out", str(tmp_path / "v.png"), "--csv", str(tmp_path / "v.csv")])
    assert (tmp_path / "v.png").stat().st_size > 10_000
    assert len(read_csv(tmp_path / "v.csv")) == len(RUNGS)
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "v.png")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--episodes", "3"], "episodes must be at least 4"),
        (["--seed", "-1"], "seed must not be negative"),
        (["--out", "/nowhere/v.png"], "No such file"),
    ],
)
def test_bad_input_gives_a_sentence_and_status_two(argv, sentence, monkeypatch, capsys):
    if argv[0] == "--out":
        monkeypatch.setattr(module, "measure", lambda episodes, seed: RUNGS)
        monkeypatch.setattr(module, "draw", lambda rungs: Figure())
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err
