"""Sum tree and prioritised replay: what is drawn how often, and that the weights undo it."""

import numpy as np
import pytest
import torch

from common import checkpoint
from common.prioritized_replay import FLOOR, PrioritizedReplay, SumTree
from common.schedules import Linear
from common.types import UsageError
from tests.common.test_replay import SPEC, held, numbered
from tests.helpers import CPU

ONE = Linear(1.0, 1.0, 1)


def filled(capacity: int, size: int, alpha: float = 1.0, beta: Linear = ONE) -> PrioritizedReplay:
    replay = PrioritizedReplay(capacity, SPEC, CPU, alpha, beta)
    replay.add(numbered(0, size))
    return replay


def with_errors(errors: list[float], **options) -> PrioritizedReplay:
    replay = filled(len(errors), len(errors), **options)
    replay.reprioritize(torch.arange(len(errors)), torch.tensor(errors))
    return replay


@pytest.mark.parametrize("n", [1, 2, 3, 1000, 5000, 140_000])
def test_search_agrees_with_cumulative_sums(n):
    """Of whole numbers, which float64 adds without error; some are zero and never found. One level, two,
    three."""
    rng, tree = np.random.default_rng(n), SumTree(n)
    p = rng.integers(0, 5, n).astype(float)
    p[0] += 1
    tree.write(np.arange(n), p)
    assert tree.total == p.sum()
    u = rng.random(500) * tree.total
    u = np.concatenate((u, np.floor(u)))  # borders among them
    index = tree.find(u)
    assert (index == p.cumsum().searchsorted(u, "right")).all()
    assert (p[index] > 0).all()


def test_sums_stay_exact_however_often_they_are_written():
    """Corrections by differences would leave 1e16 - 1e16 wrong; duplicates in one write do no harm."""
    tree, rng = SumTree(37), np.random.default_rng(0)
    for _ in range(200):
        index = rng.integers(0, 37, 8)
        tree.write(index, 10.0 ** rng.uniform(-8, 16, 37)[index])
    tree.write(np.arange(37), 1.0)
    assert tree.total == 37
    assert (tree.find(np.arange(37) + 0.5) == np.arange(37)).all()


def test_draws_follow_the_priorities(generator):
    """errors 0, 1, 3 with alpha = 1/2: P proportional to sqrt(error + 0.01), within 4 standard deviations."""
    counts = with_errors([0.0, 1.0, 3.0], alpha=0.5).sample(30_000, generator).action.bincount(minlength=3)
    p = (torch.tensor([0.0, 1.0, 3.0]) + FLOOR).sqrt()
    expected = 30_000 * p / p.sum()
    assert (counts - expected).abs().max() < 4 * expected.sqrt().min()


def test_weights_undo_the_preference_exactly():
    """sum_i P(i) w_i f_i = mean f at beta = 1, for any f: importance weights are unbiased."""
    replay = with_errors([0.5, 4.0, 1.0, 0.1, 9.0], alpha=0.7)
    batch = replay.sample(1000, torch.Generator().manual_seed(0))
    weight = torch.zeros(5).index_put((batch.index,), batch.weight)
    p = torch.from_numpy(replay.tree.leaves[:5] / replay.tree.total).float()
    f = torch.tensor([3.0, -1.0, 4.0, 1.0, -5.0])
    assert torch.allclose((p * weight * f).sum(), f.mean(), atol=1e-6)
    assert not torch.allclose((p * f).sum(), f.mean(), atol=0.5)


def test_beta_zero_does_not_correct_and_runs_to_one(generator):
    replay = with_errors([1.0, 2.0, 3.0, 4.0], beta=Linear(0.0, 1.0, 8))
    replay.added = 0  # as if the run had just begun
    assert replay.beta(replay.added) == 0
    replay.added = 4
    half = replay.sample(50, generator)
    p = torch.from_numpy(replay.tree.leaves[:4] / replay.tree.total)[half.index]
    torch.testing.assert_close(half.weight.double(), (4 * p) ** -0.5, rtol=1e-6, atol=0)


def test_equal_errors_are_drawn_evenly_with_weight_one(generator):
    """Strata: of 20 equal ones, 20 draws take each exactly once."""
    batch = filled(20, 20).sample(20, generator)
    assert batch.action.tolist() == list(range(20))
    assert torch.equal(batch.weight, torch.ones(20))


def test_a_new_transition_gets_the_highest_priority_so_far(generator):
    replay = filled(10, 4)
    replay.reprioritize(torch.arange(4), torch.tensor([0.0, 7.0, 0.0, 0.0]))
    replay.add(numbered(4, 1))
    assert replay.tree.leaves[4] == replay.tree.leaves[1] == pytest.approx(7 + FLOOR)


def test_what_made_room_is_never_drawn(generator):
    replay = filled(10, 10)
    replay.reprioritize(torch.arange(10), torch.full((10,), 100.0))
    replay.add(numbered(10, 4))
    assert held(replay) == list(range(4, 14))
    assert set(replay.sample(500, generator).action.tolist()) == set(range(4, 14))


def test_only_what_is_filled_is_drawn(generator):
    assert set(filled(1000, 3).sample(2000, generator).action.tolist()) == {0, 1, 2}


def test_a_saved_one_goes_on_as_it_was(tmp_path, generator):
    replay, other = with_errors([1.0, 5.0, 2.0], alpha=0.6), filled(3, 1, alpha=0.6)
    checkpoint.save(tmp_path, 0, replay=replay.state_dict())
    other.load_state_dict(checkpoint.load_latest(tmp_path)["replay"])
    for each in (replay, other):
        each.add(numbered(7, 1))
    for a, b in zip(replay.sample(20, generator), other.sample(20, generator.manual_seed(0)), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
    assert replay.highest == other.highest


def test_bad_input_is_named(generator):
    with pytest.raises(UsageError, match="alpha must be positive, got 0"):
        PrioritizedReplay(5, SPEC, CPU, 0.0, ONE)
    with pytest.raises(UsageError, match="replay must hold"):
        PrioritizedReplay(5, SPEC, CPU, 1.0, ONE).sample(1, generator)
