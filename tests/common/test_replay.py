import pytest
import torch

from common import checkpoint
from common.replay import Batch, Replay, transitions
from common.types import EnvSpec, UsageError
from tests.helpers import CPU, random_rollout

SPEC = EnvSpec(num_envs=3, obs_dim=2, action_dim=2, discrete=True)
CONTINUOUS = EnvSpec(num_envs=3, obs_dim=2, action_dim=4, discrete=False)
each_spec = pytest.mark.parametrize("spec", [SPEC, CONTINUOUS], ids=["discrete", "continuous"])


def numbered(start: int, size: int) -> Batch:
    """Transitions that carry their number in every field."""
    n = torch.arange(start, start + size)
    obs = n[:, None].expand(-1, 2).float()
    return Batch(obs, n, n.float(), obs + 0.5, n % 2 == 0)


def filled(capacity: int, size: int, spec: EnvSpec = SPEC) -> Replay:
    replay = Replay(capacity, spec, CPU)
    replay.add(numbered(0, size))
    return replay


def held(replay: Replay) -> list[int]:
    return sorted(replay.memory.reward[: len(replay)].int().tolist())


@each_spec
def test_a_rollout_comes_back_row_by_row(spec):
    """Time limits leave no trace: of the ends only `terminated` is kept."""
    rollout, replay = random_rollout(spec, 5), Replay(100, spec, CPU)
    replay.add(transitions(rollout))
    for name, memory in replay.memory._asdict().items():
        torch.testing.assert_close(memory[: len(replay)], getattr(rollout, name).flatten(0, 1))
    assert rollout.truncated.any()
    assert not hasattr(replay.memory, "truncated")


@pytest.mark.parametrize("sizes", [(3,), (4, 3), (4, 4), (7, 6), (10,), (11,), (25,), (3, 25, 4), (0, 5)])
def test_the_last_ones_are_kept(sizes):
    replay, start = Replay(10, SPEC, CPU), 0
    for size in sizes:
        replay.add(numbered(start, size))
        start += size
    assert held(replay) == [*range(max(0, start - 10), start)]
    assert len(replay) == min(start, 10)
    assert replay.added == start


def test_fields_of_a_transition_stay_together(generator):
    batch = filled(10, 17).sample(50, generator)
    n = batch.action
    expected = Batch(
        n[:, None].expand(-1, 2).float(), n, n.float(), n[:, None].expand(-1, 2) + 0.5, n % 2 == 0
    )
    for got, wanted in zip(batch, expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_every_transition_is_as_likely(generator):
    """20,000 draws of 5: each 4,000 +- 4 standard deviations of 57; never what was not filled."""
    counts = filled(100, 5).sample(20_000, generator).action.bincount(minlength=5)
    assert len(counts) == 5
    assert (counts - 4000).abs().max() < 4 * 57


def test_a_seed_repeats_the_draw():
    replay = filled(10, 10)
    first, second = (replay.sample(8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.action, second.action)


@pytest.mark.parametrize("size", [4, 10, 23])
def test_a_saved_buffer_goes_on_as_it_was(size, tmp_path, generator):
    """Through a file: what it holds, where it writes next; and the file is no larger than what is filled."""
    replay, other = filled(10, size), filled(10, 3)
    checkpoint.save(tmp_path, 0, replay=replay.state_dict())
    other.load_state_dict(checkpoint.load_latest(tmp_path)["replay"])
    for each in (replay, other):
        each.add(numbered(100, 3))
    assert held(replay) == held(other)
    for a, b in zip(replay.sample(20, generator), other.sample(20, generator.manual_seed(0)), strict=True):
        assert torch.equal(a, b)


def test_only_what_is_filled_is_saved(tmp_path):
    checkpoint.save(tmp_path, 0, replay=filled(1_000_000, 3).state_dict())
    (file,) = tmp_path.glob("*.pt")
    assert file.stat().st_size < 10_000


def test_what_is_drawn_is_a_copy(generator):
    replay = filled(10, 10)
    replay.sample(5, generator).reward.fill_(-1)
    assert held(replay) == [*range(10)]


def test_bad_input_is_named(generator):
    with pytest.raises(UsageError, match="capacity must lie"):
        Replay(0, SPEC, CPU)
    with pytest.raises(UsageError, match="replay must hold"):
        Replay(5, SPEC, CPU).sample(1, generator)
    with pytest.raises(UsageError, match="replay of capacity 5"):
        Replay(5, SPEC, CPU).load_state_dict(filled(10, 7).state_dict())
