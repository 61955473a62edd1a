"""From torch to tapes: a function of one state runs once on an example, and every operation is noted, number
by number.

A tensor that depends on the inputs has a twin, int64 and of the same shape, which says in what row of the
tape each of its entries stands. What only moves entries about is done to the twin as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hw5_planning_control.tape import FORMS, ONE, ZERO, NotWritable, Program, Tape

# Entries change their places only.
MOVES = {
    "alias", "clone", "detach", "diagonal", "expand", "flip", "permute", "repeat", "reshape", "select",
    "slice", "split", "split_with_sizes", "squeeze", "squeeze_", "t", "transpose", "unbind", "unsqueeze",
    "view", "_unsafe_view",
}  # fmt: skip
JOINS = {"cat", "stack"}
PRODUCTS = {"bmm", "dot", "mm", "mv"}
# Of what they are given they take the shape or the type.
FILLS = {
    "empty_like", "full_like", "new_empty", "new_full", "new_ones", "new_zeros", "ones_like", "zeros_like",
}  # fmt: skip


def _power(tape: Tape, a: int, exponent: int) -> int:
    operation, value = tape.rows[exponent][:2]
    if operation != "constant" or value not in (0.5, 1, 2, 3, 4):
        raise NotWritable
    if value == 0.5:
        return tape.write("sqrt", a)
    return a if value == 1 else tape.write("mul", a, _power(tape, a, tape.constant(value - 1)))


def _clamp(tape: Tape, a: int, low: int, high: int | None = None) -> int:
    a = tape.write("maximum", a, low)
    return a if high is None else tape.write("minimum", a, high)


def _abs(tape: Tape, a: int) -> int:
    positive = tape.write("where", tape.write("lt", ZERO, a), a, ZERO)  # its slope at zero is zero
    return tape.write("where", tape.write("lt", a, ZERO), tape.write("neg", a), positive)


# Entry by entry, of the rows in which the operands stand; beside those of FORMS, which the tape knows itself.
EACH: dict[str, Callable[..., int]] = {
    "rsub": lambda tape, a, b: tape.write("sub", b, a),
    "gt": lambda tape, a, b: tape.write("lt", b, a),
    "ge": lambda tape, a, b: tape.write("le", b, a),
    "reciprocal": lambda tape, a: tape.write("div", ONE, a),
    "relu": lambda tape, a: tape.write("where", tape.write("lt", ZERO, a), a, ZERO),
    "pow": _power,
    "abs": _abs,
    "clamp": _clamp,
    **{name: lambda tape, *rows, name=name: tape.write(name, *rows) for name in FORMS},
}


class Recorded(NamedTuple):
    """A function of torch that has a program as well."""

    function: Callable[..., Tensor]
    program: Program

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def played(program: Program, *inputs: Tensor) -> Tensor:
    """The program on tensors; no gradient."""
    return torch.from_numpy(program(*(x.detach().numpy() for x in inputs)))


def recorded(function: Callable[..., Tensor], *examples: Tensor) -> Callable[..., Tensor]:
    """With its program, where it has one."""
    if isinstance(function, Recorded):
        function = function.function
    program = record(function, *examples)
    return Recorded(function, program) if program else function


def record(function: Callable[..., Tensor], *examples: Tensor) -> Program | None:
    """The program of `function`, which must do the same operations whatever the numbers, as torch.func.vmap
    demands. None where torch has to do it itself: operations that are not known here, very many of them, or
    some that happen outside of torch."""
    if any(x.dtype != torch.float64 or x.is_cuda for x in examples):
        return None
    inputs = [x.detach().clone() for x in examples]
    recorder = Recorder(inputs)
    try:
        with torch.no_grad(), recorder:
            y = function(*inputs)
        program = Program(recorder.tape, recorder.twin(y).numpy())
    except NotWritable:
        return None
    elsewhere = [1.1 * x + 0.1 for x in inputs]  # there, what did not pass through torch is not what it was
    with torch.no_grad():
        expected = function(*elsewhere).numpy()
    found = program(*(x.numpy() for x in elsewhere))
    return program if np.allclose(found, expected, rtol=1e-9, atol=1e-9, equal_nan=True) else None


class Recorder(TorchDispatchMode):
    def __init__(self, inputs: list[Tensor]):
        super().__init__()
        self.tape = Tape(sum(x.numel() for x in inputs))
        self.twins: dict[int, tuple[Tensor, Tensor]] = {}  # by id, which holds as long as the tensor is kept
        rows = torch.tensor(self.tape.inputs).split([x.numel() for x in inputs])
        for x, twin in zip(inputs, rows, strict=True):
            self.twins[id(x)] = x, twin.reshape(x.shape)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would import its compiler to keep it away from here, which takes a second."""
        return False

    def twin(self, x: Tensor | float) -> Tensor:
        """The rows in which x stands; constants get theirs."""
        if id(x) in self.twins:
            return self.twins[id(x)][1]
        x = torch.as_tensor(x, dtype=torch.float64)
        return _rows([self.tape.constant(value) for value in x.flatten().tolist()], x.shape)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result, name = function(*args, **kwargs), function.overloadpacket.__name__
        if name not in FILLS and any(id(x) in self.twins for x in (args[0] if name in JOINS else args)):
            twins = self.write(function, name, args, kwargs)
            several = isinstance(result, (list, tuple))
            for x, twin in zip(result, twins, strict=True) if several else [(result, twins)]:
                self.twins[id(x)] = x, twin
        return result

    def write(self, function: Any, name: str, args: tuple, kwargs: dict) -> Tensor | list[Tensor]:
        """The rows of what `function`, of this name, gives."""
        if kwargs and name != "clone":
            raise NotWritable(name)
        if name in JOINS:
            return function([self.twin(x) for x in args[0]], *args[1:])
        if name in MOVES:
            return function(self.twin(args[0]), *args[1:])
        if name == "sum":
            return self.sum(self.twin(args[0]), *args[1:])
        if name in PRODUCTS:
            A, B = map(self.twin, args)
            if B.ndim == 1:
                return self.sum(self.each("mul", A, B), [-1])
            return self.sum(self.each("mul", A[..., None], B[..., None, :, :]), [-2])
        if name == "clamp":
            limits = zip(args[1:], (-math.inf, math.inf), strict=False)
            args = (args[0], *(free if limit is None else limit for limit, free in limits))
        if name not in EACH:
            raise NotWritable(name)
        return self.each(name, *map(self.twin, args))

    def each(self, name: str, *operands: Tensor) -> Tensor:
        operands = torch.broadcast_tensors(*operands)
        columns = zip(*(x.flatten().tolist() for x in operands), strict=True)
        return _rows([EACH[name](self.tape, *column) for column in columns], operands[0].shape)

    def sum(self, x: Tensor, dims: list[int] | None = None, keepdim: bool = False) -> Tensor:
        dims = [d % x.ndim for d in dims or range(x.ndim)]
        terms = x.movedim(dims, [*range(-len(dims), 0)]).flatten(x.ndim - len(dims))
        total = torch.full(terms.shape[:-1], ZERO)
        for term in terms.unbind(-1):
            total = self.each("add", total, term)
        return (
            total.reshape([1 if d in dims else size for d, size in enumerate(x.shape)]) if keepdim else total
        )


def _rows(rows: list[int], shape: torch.Size) -> Tensor:
    return torch.tensor(rows, dtype=torch.int64).reshape(shape)
