"""Values and derivatives by hand and by differences; what is not written; floats, arrays and their limits."""

import math

import numpy as np
import pytest
import torch

from hw5_planning_control import tape
from hw5_planning_control.tape import FORMS, ONE, PARTIALS, ZERO, NotWritable, Program, Tape


def program(operation: str, operands: int) -> Program:
    t = Tape(operands)
    return Program(t, np.array(t.write(operation, *t.inputs)))


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.5, 1.5, shape)


def test_a_product_by_hand():
    """y = b sin a: slopes [b cos a, sin a], curvatures [[-b sin a, cos a], [cos a, 0]]."""
    t = Tape(2)
    a, b = t.inputs
    y = Program(t, np.array(t.write("mul", b, t.write("sin", a))))
    z, s, c = np.array([0.3, 2.0]), math.sin(0.3), math.cos(0.3)
    assert float(y(z)) == 2 * s
    assert y.jacobian(2)(z).tolist() == [2 * c, s]
    assert y.jacobian(2).jacobian(2)(z).tolist() == [[-2 * s, c], [c, 0]]


@pytest.mark.parametrize("operation", FORMS)
def test_every_operation_has_its_slope(operation):
    """Against central differences."""
    operands = FORMS[operation][0].count("{}")
    y, z = program(operation, operands), random(operands)
    apart = 1e-6 * np.eye(operands)
    ends = [np.float64(y(z + side * apart)) for side in (1, -1)]
    expected = [0, 1, 0] if operation == "where" else (ends[0] - ends[1]) / 2e-6
    np.testing.assert_allclose(y.jacobian(operands)(z), expected, rtol=1e-8, atol=1e-9)
    assert set(PARTIALS) == set(FORMS)


@pytest.mark.parametrize("operation", ["sin", "cos", "remainder"])
def test_arrays_agree_with_torch_far_from_zero(operation):
    """To the rounding of the operand: a remainder just below b may come out as zero."""
    operands = [np.random.default_rng(i).uniform(-200, 200, 10_000) for i in range(2)]
    operands = operands[: FORMS[operation][0].count("{}")]
    y = program(operation, len(operands))(np.stack(operands, -1))
    expected = getattr(torch, operation)(*map(torch.from_numpy, operands)).numpy()
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-13)


def test_a_choice_has_the_slope_of_what_it_chose():
    t = Tape(2)
    a, b = t.inputs
    y = Program(t, np.array(t.write("where", t.write("lt", a, b), t.write("mul", a, a), b))).jacobian(2)
    assert y(np.array([3.0, 4.0])).tolist() == [6, 0]
    assert y(np.array([[3.0, 4.0], [5.0, 4.0]])).tolist() == [[6, 0], [0, 1]]


def test_what_is_known_or_does_nothing_is_not_written():
    t = Tape(1)
    (x,) = t.inputs
    assert t.write("add", x, ZERO) == t.write("mul", ONE, x) == t.write("sub", x, ZERO) == x
    assert t.write("mul", x, ZERO) == t.write("div", ZERO, x) == ZERO
    assert t.write("sin", x) == t.write("sin", x)
    assert t.rows[t.write("exp", ZERO)] == ("constant", 1.0)
    assert t.write("where", ZERO, x, ONE) == t.write("where", x, ONE, ONE) == ONE
    assert len(t.rows) == 4  # zero, one, x and its sine
    assert t.rows[t.write("sub", ZERO, x)] == ("neg", x)
    assert math.isnan(t.rows[t.write("log", t.constant(-1.0))][1])


@pytest.mark.parametrize("lead", [(), (1,), (7,), (2, 3), (0,)])
def test_leading_dimensions_stay_in_front(lead):
    """Two inputs, [2] and [2, 2]: y = [a0 + b01, a1 * b10]."""
    t = Tape(6)
    y = Program(t, np.array([t.write("add", t.inputs[0], t.inputs[3]), t.write("mul", *t.inputs[1:5:3])]))
    a, b = random(*lead, 2), random(*lead, 2, 2)
    expected = np.stack([a[..., 0] + b[..., 0, 1], a[..., 1] * b[..., 1, 0]], -1)
    np.testing.assert_array_equal(y(a, b), expected)
    assert y.jacobian(2)(a, b).shape == (*lead, 2, 2)


@pytest.mark.parametrize(
    ("operation", "z", "expected"),
    [
        ("div", [1.0, 0.0], math.inf),
        ("exp", [1000.0], math.inf),
        ("log", [-1.0], math.nan),
        ("sin", [math.inf], math.nan),
        ("sqrt", [math.nan], math.nan),
        ("maximum", [1.0, math.nan], math.nan),
        ("minimum", [math.nan, 1.0], math.nan),
    ],
)
def test_numbers_out_of_bounds_are_what_arrays_make_of_them(operation, z, expected):
    y = program(operation, len(z))
    np.testing.assert_array_equal(y(np.array(z)), expected)
    np.testing.assert_array_equal(y(np.array([z, z])), [expected, expected])


def test_one_row_too_many_ends_the_tape(monkeypatch):
    monkeypatch.setattr(tape, "LONGEST", 5)
    t = Tape(2)
    y = Program(t, np.array(t.write("div", *t.inputs)))
    assert y.jacobian(2) is None
    with pytest.raises(NotWritable):
        t.write("sin", ONE + 1)
