"""The picture and the table are made, and the README prints the table."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from hw3_q_learning import theory
from tests.helpers import ROOT


def test_the_tables_numbers_are_in_the_handout():
    text = (ROOT / "hw3_q_learning" / "README.md").read_text()
    assert [row for row in theory.table().splitlines() if row not in text] == []


def test_factors_are_the_theorems():
    errors = theory.contraction(0.9, 30)
    assert (errors[1:] <= 0.9 * errors[:-1] + 1e-12).all()
    np.testing.assert_allclose(theory.growth(0.9, 10), 1.08 ** np.arange(11))
    assert theory.star_values(0.8)[-1] < 0.1
    errors = theory.off_policy_errors(20)
    assert errors["Retrace"][-1] < errors["tree backup"][-1]
    assert errors["Retrace"][-1] < errors["1 steps"][-1] < errors["3 steps"][-1]


def test_the_command_draws(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(theory, "left_share", lambda learn, runs: np.full(3, 0.5))  # learned elsewhere
    monkeypatch.setattr(theory, "cliff_returns", lambda learn, runs: np.full(3, -50.0))
    theory.main(["--out", str(tmp_path / "x.png"), "--runs", "1"])
    assert (tmp_path / "x.png").stat().st_size > 10_000
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "x.png")


@pytest.mark.parametrize("argv", [["--runs", "0"], ["--out", "nowhere/at/all.png", "--runs", "1"]])
def test_bad_input_is_one_sentence(argv, capsys, monkeypatch):
    if "0" not in argv:
        monkeypatch.setattr(theory, "draw", lambda runs: Figure())
    with pytest.raises(SystemExit) as error:
        theory.main(argv)
    assert error.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_learning_curves_have_one_number_per_episode():
    assert theory.left_share(theory.q_learning, 2, 5).shape == (5,)
    assert theory.cliff_returns(theory.sarsa, 1, 3).shape == (3,)
