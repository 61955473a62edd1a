"""Rules by hand, counts of positions that are known, refusals."""

from itertools import combinations

import numpy as np
import pytest

from common.envs.games import Ball, Breakout, LineGame, connect_three, tic_tac_toe
from common.types import UsageError


def play(game, *actions):
    state, rewards, terminal = game.start, [], False
    for action in actions:
        assert not terminal
        state, reward, terminal = game.step(state, action)
        rewards.append(reward)
    return state, rewards, terminal


def positions(game) -> tuple[int, int, int]:
    """Different positions, terminal ones, and moves between them."""
    seen, ends, moves, todo = {game.start}, 0, 0, [game.start]
    while todo:
        state = todo.pop()
        for action in game.actions(state):
            moves += 1
            after, _, terminal = game.step(state, action)
            if after not in seen:
                seen.add(after)
                ends += terminal
                if not terminal:
                    todo.append(after)
    return len(seen), ends, moves


def test_tic_tac_toe_has_5478_positions_and_16167_moves():
    """Of these 958 are terminal: 626 won by the first, 316 by the second, 16 drawn."""
    assert positions(tic_tac_toe()) == (5478, 958, 16167)


LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]


def stones(*cells: int) -> int:
    return sum(1 << cell for cell in cells)


@pytest.mark.parametrize("line", LINES)
def test_each_line_wins_for_either_player(line):
    game = tic_tac_toe()
    one, two, three, *_ = (cell for cell in range(9) if cell not in line)
    for last in line:
        rest = [cell for cell in line if cell != last]
        assert game.player((stones(*rest), stones(one, two))) == 1
        assert game.step((stones(*rest), stones(one, two)), last)[1:] == (1.0, True)
        assert game.player((stones(one, two, three), stones(*rest))) == -1
        assert game.step((stones(one, two, three), stones(*rest)), last)[1:] == (-1.0, True)


def test_nothing_else_wins():
    """Every three cells that are no line, and the last of them played."""
    game = tic_tac_toe()
    for cells in combinations(range(9), 3):
        if cells not in LINES:
            others = [cell for cell in range(9) if cell not in cells][:2]
            assert game.step((stones(*cells[:2]), stones(*others)), cells[2])[1:] == (0.0, False)


def test_a_full_board_without_a_line_is_a_draw():
    state, rewards, terminal = play(tic_tac_toe(), 4, 0, 2, 6, 3, 5, 1, 7, 8)
    assert rewards == [0] * 9
    assert terminal
    assert state[0] | state[1] == 0b111111111


def test_stones_fall_in_connect_three():
    """Column 1 twice, then two times column 2: rows 0 and 1; the fifth stone, in column 0, makes a row."""
    game = connect_three()
    state, rewards, terminal = play(game, 1, 1, 2, 2)
    assert state == (stones(1, 2), stones(5, 6))
    assert rewards == [0] * 4
    assert not terminal
    assert game.step(state, 0)[1:] == (1.0, True)
    full = play(game, 3, 3, 3, 3)[0]
    assert list(game.actions(full)) == [0, 1, 2]


def test_diagonals_of_connect_three_do_not_wrap_around():
    """Cells 3, 4 and 5: bits beside each other, but the end of row 0 and the beginning of row 1."""
    game = connect_three()
    below = stones(0, 1)
    assert game.step((stones(3, 4), below), 1)[1:] == (0.0, False)


@pytest.mark.parametrize("action", [0, 9, -1])
def test_an_impossible_move_is_refused(action):
    with pytest.raises(UsageError, match=f"action {action} is not possible"):
        tic_tac_toe().step((1, 0), action)


@pytest.mark.parametrize("action", [3, 4, -1])
def test_a_full_or_missing_column_is_refused(action):
    state = play(connect_three(), 3, 3, 3, 3)[0]
    with pytest.raises(UsageError, match=f"action {action} is not possible"):
        connect_three().step(state, action)


RNG = np.random.default_rng(0)
GAME = Breakout(height=8, width=6, sticky=0.0)
ALL = GAME.bricks  # rows 1 to 3


@pytest.mark.parametrize(
    ("before", "action", "after", "reward", "terminal"),
    [
        (Ball(4, 1, 1, 1, 0, ALL, 0), 0, Ball(5, 2, 1, 1, 0, ALL, 0), 0, False),  # flies
        (Ball(4, 0, 1, -1, 0, ALL, 0), 0, Ball(5, 0, 1, 1, 0, ALL, 0), 0, False),  # off the left wall
        (Ball(4, 5, 1, 1, 0, ALL, 2), 2, Ball(5, 5, 1, -1, 1, ALL, 2), 0, False),  # off the right wall
        (Ball(4, 1, -1, 1, 0, ALL, 0), 0, Ball(4, 1, 1, 1, 0, ALL ^ 1 << 20, 0), 1, False),  # a brick
        (Ball(0, 1, -1, 1, 0, ALL ^ 1 << 8, 0), 0, Ball(1, 2, 1, 1, 0, ALL ^ 1 << 8, 0), 0, False),  # ceiling
        (Ball(6, 1, 1, 1, 2, ALL, 0), 0, Ball(6, 1, -1, 1, 2, ALL, 0), 0, False),  # the paddle, at rest
        (Ball(6, 1, 1, 1, 3, ALL, 0), 1, Ball(6, 1, -1, -1, 2, ALL, 1), 0, False),  # the paddle, going left
        (Ball(6, 1, 1, 1, 4, ALL, 0), 0, Ball(7, 2, 1, 1, 4, ALL, 0), 0, True),  # lost
        (Ball(4, 1, -1, 1, 0, 1 << 20, 0), 0, Ball(4, 1, 1, 1, 0, 0, 0), 1, True),  # the last brick
        (Ball(4, 1, 1, 1, 0, ALL, 0), 1, Ball(5, 2, 1, 1, 0, ALL, 1), 0, False),  # the paddle stays inside
        (Ball(4, 1, 1, 1, 5, ALL, 0), 2, Ball(5, 2, 1, 1, 5, ALL, 2), 0, False),
    ],
)
def test_rules_of_breakout(before, action, after, reward, terminal):
    assert GAME.step(before, action, RNG) == (after, reward, terminal)


def test_sticky_actions_repeat_the_last_one_at_their_rate():
    """10,000 steps with probability 1/4: five standard errors are 0.022."""
    game, rng = Breakout(sticky=0.25), np.random.default_rng(0)
    state = Ball(4, 1, 1, 1, 3, ALL, 2)
    repeated = [game.step(state, 1, rng)[0].paddle == 4 for _ in range(10_000)]
    assert np.mean(repeated) == pytest.approx(0.25, abs=0.022)


def test_breakout_starts_above_the_paddle_anywhere():
    starts = {GAME.start(np.random.default_rng(k))[:6] for k in range(200)}
    assert starts == {(4, column, -1, right, 3, ALL) for column in range(6) for right in (1, -1)}


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: LineGame(0, 3, 3), "height must be at least 1"),
        (lambda: LineGame(3, 3, 0), "length must be at least 1"),
        (lambda: Breakout(height=5), "height must be at least 6"),
        (lambda: Breakout(width=1), "width must be at least 2"),
        (lambda: Breakout(sticky=1.0), r"sticky must lie in \[0, 1\)"),
    ],
)
def test_bad_input_is_one_sentence(make, sentence):
    with pytest.raises(UsageError, match=sentence):
        make()
