"""Which pictures of an episode are shown."""

import numpy as np
import pytest

from common.filmstrip import Thinned, draw, spread


def test_evenly_spread_with_both_ends():
    assert spread(17, 9) == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    assert spread(1) == [0]
    assert spread(3) == [0, 1, 2]


@pytest.mark.parametrize("length", [1, 2, 20, 21, 22, 41, 1000])
def test_a_long_episode_is_thinned_and_keeps_its_ends(length):
    strip = Thinned(limit=10)
    for step in range(length):
        strip.add(np.full((2, 2), step))
        assert len(strip.frames()) <= 21
    frames = strip.frames()
    assert all((frame == step).all() for step, frame in frames.items())
    *inner, last = frames
    assert (inner or [last])[0] == 0
    assert last == length - 1
    assert len({*np.diff(inner)}) <= 1  # evenly
    assert len(frames) >= min(length, 11)


def test_rows_and_columns():
    pictures = np.zeros((3, 4, 8))
    figure = draw({"seen": pictures, "foreseen": pictures}, [0, 5, 10])
    assert len(figure.axes) == 6
    assert [axes.get_title() for axes in figure.axes[:3]] == ["step 0", "step 5", "step 10"]
    assert figure.axes[3].get_ylabel() == "foreseen"
