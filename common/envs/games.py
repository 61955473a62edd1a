"""Small games as models for tree search: `start`, `actions(state)`, `step(state, action, generator)`, and
`player(state)` where two play. `deterministic`: no chance plays. States are tuples of integers."""

from __future__ import annotations

from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np

from common.types import UsageError, require

Stones = tuple[int, int]  # of player +1 and of player -1, bit row * width + column


class LineGame:
    """Two players place stones in turn; who first has `length` in a row, column or diagonal wins.

    An action is a cell, row * width + column. With gravity it is a column: the stone falls to row 0, or onto
    the others. The reward is that of player +1, who begins: 1, -1 or 0.
    """

    start: Stones = (0, 0)
    deterministic = True

    def __init__(self, height: int, width: int, length: int, gravity: bool = False):
        for name, n in (("height", height), ("width", width), ("length", length)):
            require(n >= 1, f"{name} must be at least 1, got {n}")
        self.height, self.width, self.length, self.gravity = height, width, length, gravity
        self._full = (1 << height * width) - 1
        self._choices: dict[int, list[int]] = {}  # occupied cells -> actions

    def player(self, state: Stones) -> int:
        return 1 - 2 * ((state[0] | state[1]).bit_count() & 1)

    def actions(self, state: Stones) -> list[int]:
        occupied = state[0] | state[1]
        choices = self._choices.get(occupied)
        if choices is None:
            top = self.width * (self.height - 1) if self.gravity else 0
            cells = range(self.width if self.gravity else self.height * self.width)
            choices = self._choices[occupied] = [c for c in cells if not occupied >> (top + c) & 1]
        return choices

    def step(
        self, state: Stones, action: int, generator: np.random.Generator | None = None
    ) -> tuple[Stones, float, bool]:
        if action not in self.actions(state):
            raise UsageError(f"action {action} is not possible in {state}")
        plus, minus = state
        occupied, cell = plus | minus, action
        while occupied >> cell & 1:  # only under gravity
            cell += self.width
        if occupied.bit_count() & 1:
            minus |= 1 << cell
            mine, reward = minus, -1.0
        else:
            plus |= 1 << cell
            mine, reward = plus, 1.0
        for line in self._lines[cell]:
            if mine & line == line:
                return (plus, minus), reward, True
        return (plus, minus), 0.0, (plus | minus) == self._full

    @cached_property
    def _lines(self) -> list[list[int]]:
        """Of each cell, the lines through it as bits."""
        lines: list[list[int]] = [[] for _ in range(self.height * self.width)]
        directions = ((0, 1), (1, 0), (1, 1), (1, -1)) if self.length > 1 else ((0, 1),)
        for row, column, (down, right) in product(range(self.height), range(self.width), directions):
            ends = row + down * (self.length - 1), column + right * (self.length - 1)
            if ends[0] < self.height and 0 <= ends[1] < self.width:
                cells = [(row + i * down) * self.width + column + i * right for i in range(self.length)]
                for cell in cells:
                    lines[cell].append(sum(1 << c for c in cells))
        return lines


def tic_tac_toe() -> LineGame:
    return LineGame(3, 3, 3)


def connect_three() -> LineGame:
    return LineGame(4, 4, 3, gravity=True)


class Ball(NamedTuple):
    """A state of Breakout. Row 0 is on top."""

    row: int
    column: int
    down: int  # 1 or -1
    right: int  # 1 or -1
    paddle: int  # its column, in the last row
    bricks: int  # bit row * width + column
    action: int  # the last one


class Breakout:
    """A ball, a paddle of one cell, three rows of bricks: reward 1 per brick, the end with the ball lost or
    all bricks gone. Rules after MinAtar's (Young and Tian 2019), on a smaller board.

    Actions: 0 stay, 1 left, 2 right. With probability `sticky` the last action is repeated instead (Machado
    et al. 2018). The ball moves diagonally by one cell. At a side wall it turns and keeps its column for this
    step, at a brick or the paddle it turns and keeps its place; a paddle that moves sends it off its own way.
    """

    def __init__(self, height: int = 8, width: int = 6, sticky: float = 0.1):
        require(height >= 6, f"height must be at least 6, got {height}")
        require(width >= 2, f"width must be at least 2, got {width}")
        require(0 <= sticky < 1, f"sticky must lie in [0, 1), got {sticky}")
        self.height, self.width, self.sticky = height, width, sticky
        self.deterministic = sticky == 0
        self.bricks = ((1 << 3 * width) - 1) << width  # rows 1 to 3

    def start(self, generator: np.random.Generator) -> Ball:
        """The ball on its way up below the bricks, at a random column; the paddle in the middle."""
        column, right = int(generator.integers(self.width)), 1 - 2 * int(generator.integers(2))
        return Ball(4, column, -1, right, self.width // 2, self.bricks, 0)

    def actions(self, state: Ball) -> range:
        return range(3)

    def step(self, state: Ball, action: int, generator: np.random.Generator) -> tuple[Ball, float, bool]:
        row, column, down, right, paddle, bricks, last = state
        if self.sticky and generator.random() < self.sticky:
            action = last
        move = (0, -1, 1)[action]
        paddle = min(max(paddle + move, 0), self.width - 1)
        next_column = column + right
        if not 0 <= next_column < self.width:
            next_column, right = column, -right
        if row + down < 0:
            down = -down
        next_row, reward, lost = row + down, 0.0, False
        ahead = 1 << next_row * self.width + next_column
        if bricks & ahead:
            bricks, down, reward = bricks ^ ahead, -down, 1.0
        elif next_row == self.height - 1 and next_column == paddle:
            down, right = -1, move or right
        else:
            row, column, lost = next_row, next_column, next_row == self.height - 1
        return Ball(row, column, down, right, paddle, bricks, action), reward, lost or bricks == 0
