"""A function of a few numbers as the list of its elementary operations, and its derivatives (Wengert 1964).

    v7 = sin(v1)        dv7 = cos(v1) dv1
    v8 = v7 * v3        dv8 = v3 dv7 + v7 dv3

The chain rule, taken forwards, adds rows to the same tape, so that derivatives can be differentiated again. A
program plays the rows that its outputs need, in Python: on floats for one state, on arrays for many. Torch
spends microseconds on a sum however small, and so takes a hundred times as long for one state of a system.
hw5_planning_control.recorder writes the tapes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch

LONGEST = 3_000  # rows of a tape; what needs more is large enough for torch
ZERO, ONE = 0, 1  # rows of every tape

# How Python writes an operation, and what works it out.
FORMS = {
    "add": ("{} + {}", operator.add),
    "sub": ("{} - {}", operator.sub),
    "mul": ("{} * {}", operator.mul),
    "div": ("{} / {}", operator.truediv),
    "remainder": ("remainder({}, {})", operator.mod),
    "maximum": ("maximum({}, {})", lambda a, b: b if b > a or b != b else a),
    "minimum": ("minimum({}, {})", lambda a, b: b if b < a or b != b else a),
    "neg": ("-{}", operator.neg),
    "lt": ("{} < {}", operator.lt),
    "le": ("{} <= {}", operator.le),
    "where": ("where({}, {}, {})", lambda condition, a, b: a if condition else b),
    **{
        name: (f"{name}({{}})", getattr(math, name))
        for name in ("sin", "cos", "tan", "tanh", "exp", "log", "sqrt")
    },
}
ON_FLOATS = {name: work for name, (_, work) in FORMS.items()}
ON_ARRAYS = ON_FLOATS | {name: getattr(np, name) for name in FORMS if hasattr(np, name)}


def _by_torch(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """numpy takes sines one by one, torch several at a time."""
    of_tensor, of_number = getattr(torch, name), getattr(np, name)
    return lambda x: of_tensor(torch.from_numpy(x)).numpy() if isinstance(x, np.ndarray) else of_number(x)


ON_ARRAYS |= {name: _by_torch(name) for name in ("sin", "cos")}
# numpy divides digit by digit; this is a third of the time, and right to the rounding of a.
ON_ARRAYS["remainder"] = lambda a, b: a - b * np.floor(a / b)


def _one_of(w: Callable[..., int], second: int) -> tuple[int, int]:
    """The slopes of a choice between two."""
    return w("where", second, ZERO, ONE), w("where", second, ONE, ZERO)


# dy/da, dy/db, ... of y = operation(a, b, ...); w writes a row and returns its number.
PARTIALS: dict[str, Callable[..., tuple[int, ...]]] = {
    "add": lambda w, y, a, b: (ONE, ONE),
    "sub": lambda w, y, a, b: (ONE, w("neg", ONE)),
    "mul": lambda w, y, a, b: (b, a),
    "div": lambda w, y, a, b: (w("div", ONE, b), w("neg", w("div", y, b))),
    "remainder": lambda w, y, a, b: (ONE, w("div", w("sub", y, a), b)),  # y = a - b floor(a / b)
    "maximum": lambda w, y, a, b: _one_of(w, w("lt", a, b)),
    "minimum": lambda w, y, a, b: _one_of(w, w("lt", b, a)),
    "neg": lambda w, y, a: (w("neg", ONE),),
    "lt": lambda w, y, a, b: (ZERO, ZERO),
    "le": lambda w, y, a, b: (ZERO, ZERO),
    "where": lambda w, y, c, a, b: (ZERO, *_one_of(w, c)[::-1]),
    "sin": lambda w, y, a: (w("cos", a),),
    "cos": lambda w, y, a: (w("neg", w("sin", a)),),
    "tan": lambda w, y, a: (w("add", ONE, w("mul", y, y)),),
    "tanh": lambda w, y, a: (w("sub", ONE, w("mul", y, y)),),
    "exp": lambda w, y, a: (y,),
    "log": lambda w, y, a: (w("div", ONE, a),),
    "sqrt": lambda w, y, a: (w("div", ONE, w("add", y, y)),),
}


class NotWritable(Exception):
    """An operation that is not known here, or one too many."""


class Tape:
    """Rows (operation, numbers of earlier rows). Equal rows are written once; what is known beforehand, or
    does nothing, is not written. Zero times anything is zero."""

    def __init__(self, inputs: int):
        self.rows: list[tuple] = []
        self.number: dict[tuple, int] = {}
        self.constant(0.0), self.constant(1.0)
        self.inputs = [self._row(("input", i)) for i in range(inputs)]

    def constant(self, value: float) -> int:
        return self._row(("constant", float(value)))

    def write(self, operation: str, *operands: int) -> int:
        match operation, *operands:
            case (
                ("add", x, 0) | ("add", 0, x) | ("sub", x, 0) | ("mul", x, 1) | ("mul", 1, x) | ("div", x, 1)
            ):
                return x
            case ("where", 1, x, _) | ("where", 0, _, x):
                return x
            case ("mul", _, 0) | ("mul", 0, _) | ("div", 0, _):
                return ZERO
            case ("sub", 0, x):
                return self.write("neg", x)
            case ("where", _, x, y) if x == y:
                return x
        rows = [self.rows[i] for i in operands]
        if all(row[0] == "constant" for row in rows):
            try:
                return self.constant(FORMS[operation][1](*(row[1] for row in rows)))
            except (ArithmeticError, ValueError):
                return self.constant(math.nan)
        return self._row((operation, *operands))

    def _row(self, row: tuple) -> int:
        number = self.number.setdefault(row, len(self.rows))
        if number == len(self.rows):
            if number == LONGEST:
                raise NotWritable
            self.rows.append(row)
        return number


class Program:
    """Plays a tape. Arrays go in, each with its example's shape behind common leading dimensions, and what
    the rows `outputs` hold comes out behind the same."""

    def __init__(self, tape: Tape, outputs: np.ndarray):
        self.tape, self.outputs = tape, outputs
        self.jacobians: dict[int, Program | None] = {}

    def jacobian(self, size: int) -> Program | None:
        """By the first `size` numbers: outputs [...] become [..., size]. None where the tape ends."""
        if size not in self.jacobians:
            try:
                self.jacobians[size] = self._differentiate(size)
            except NotWritable:
                self.jacobians[size] = None
        return self.jacobians[size]

    def _differentiate(self, size: int) -> Program:
        slopes: dict[
            int, dict[int, int]
        ] = {}  # of each row: by which inputs it changes, and the rows that say how
        for y, (operation, *operands) in self.needed:
            slopes[y] = slope = {}
            if operation == "input" and operands[0] < size:
                slope[operands[0]] = ONE
            elif operation in PARTIALS and any(slopes[i] for i in operands):
                partials = PARTIALS[operation](self.tape.write, y, *operands)
                for i, partial in zip(operands, partials, strict=True):
                    for j, inner in slopes[i].items():
                        part = self.tape.write("mul", partial, inner)
                        slope[j] = self.tape.write("add", slope.get(j, ZERO), part)
        rows = [[slopes[y].get(j, ZERO) for j in range(size)] for y in self.outputs.flat]
        return Program(self.tape, np.array(rows, dtype=int).reshape(*self.outputs.shape, size))

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        lead, shape = inputs[0].shape[:-1], self.outputs.shape
        if math.prod(lead) == 1:
            try:
                y = self.on_floats([value for x in inputs for value in x.ravel().tolist()])
                return np.array(y).reshape(lead + shape)
            except (ArithmeticError, ValueError):
                pass  # arrays say inf or nan where floats raise
        z = np.concatenate([x.reshape(*lead, math.prod(x.shape[len(lead) :])) for x in inputs], -1)
        y = np.empty((self.outputs.size, *lead))
        with np.errstate(all="ignore"):
            for i, value in enumerate(self.on_arrays(columns(z))):
                y[i] = value
        return np.ascontiguousarray(np.moveaxis(y, 0, -1)).reshape(lead + shape)

    @cached_property
    def on_floats(self) -> Callable[[list[float]], tuple[float, ...]]:
        """As a function of Python: [inputs] -> [outputs]"""
        return self._compile(ON_FLOATS, float)

    @cached_property
    def on_arrays(self) -> Callable[[np.ndarray], tuple[np.ndarray | float, ...]]:
        """The same for arrays of one shape; what is the same everywhere comes out as one number."""
        return self._compile(ON_ARRAYS, np.array)  # which spares numpy the conversion of a float

    def _compile(self, names: dict[str, Callable], number: Callable[[float], Any]) -> Callable:
        constants = ((i, row[1]) for i, row in self.needed if row[0] == "constant")
        scope = names | {f"v{i}": number(value) for i, value in constants}
        exec(self.source, scope)
        return scope["play"]

    @property
    def source(self) -> str:
        lines = ["def play(z):"]
        for i, (operation, *operands) in self.needed:
            if operation == "input":
                lines.append(f"v{i} = z[{operands[0]}]")
            elif operation != "constant":
                lines.append(f"v{i} = " + FORMS[operation][0].format(*(f"v{j}" for j in operands)))
        results = "".join(f"v{i}, " for i in self.outputs.flat)
        return "\n ".join([*lines, f"return ({results})"])

    @cached_property
    def needed(self) -> list[tuple[int, tuple]]:
        """The numbers and rows that the outputs depend on."""
        needed, found = set(self.outputs.flat), []
        for i in range(max(needed, default=-1), -1, -1):
            if i in needed:
                found.append((i, self.tape.rows[i]))
                operation, *operands = self.tape.rows[i]
                if operation in FORMS:
                    needed.update(operands)
        return found[::-1]


def columns(x: np.ndarray) -> np.ndarray:
    """[..., n] -> [n, ...], each number's values beside each other in memory."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 0))
