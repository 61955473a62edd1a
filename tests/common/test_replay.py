import pytest
import torch

from common import checkpoint
from common.replay import Batch, NStep, Replay, transitions
from common.types import EnvSpec, Rollout, UsageError
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
    for name, memory in zip(Batch._fields[:5], replay.memory, strict=False):
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
    for got, wanted in zip(batch[:5], expected, strict=False):
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


def test_draws_are_those_of_randint(generator):
    """Also when the size changes in between; the earlier batch stays what it was."""
    replay, other = filled(10, 17), torch.Generator().manual_seed(0)
    drawn = [(size, replay.sample(size, generator)) for size in (8, 3, 8, 8)]
    for size, batch in drawn:
        assert torch.equal(batch.action, replay.memory.action[torch.randint(10, (size,), generator=other)])


@pytest.mark.parametrize("size", [4, 10, 23])
def test_a_saved_buffer_goes_on_as_it_was(size, tmp_path, generator):
    """Through a file: what it holds, where it writes next; and the file is no larger than what is filled."""
    replay, other = filled(10, size), filled(10, 3)
    checkpoint.save(tmp_path, 0, replay=replay.state_dict())
    other.load_state_dict(checkpoint.load_latest(tmp_path)["replay"])
    for each in (replay, other):
        each.add(numbered(100, 3))
    assert held(replay) == held(other)
    drawn = replay.sample(20, generator)[:5], other.sample(20, generator.manual_seed(0))[:5]
    for a, b in zip(*drawn, strict=True):
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
    with pytest.raises(UsageError, match="n_step must be at least 1"):
        NStep(0, 0.9)
    wrong = numbered(0, 3)._replace(obs=torch.zeros(3, 1))  # numpy would repeat it
    with pytest.raises(UsageError, match=r"obs must be \[3, 2\], got \[3, 1\]"):
        Replay(5, SPEC, CPU).add(wrong)


def test_memory_is_no_larger_than_the_data():
    """HalfCheetah: 17 + 6 + 17 numbers, reward and `terminated`, of four bytes each."""
    replay = Replay(1000, EnvSpec(1, 17, 6, False), CPU)
    assert replay._rows.nbytes == 1000 * 4 * (17 + 6 + 17 + 2)


def stream(rewards: list[float], ends: dict[int, str]) -> Rollout:
    """One environment whose observation is the time; `ends` tells where it terminated or was truncated."""
    t = torch.arange(len(rewards)).float()
    flag = {
        kind: torch.tensor([[ends.get(k) == kind] for k in range(len(rewards))]) for kind in ("end", "cut")
    }
    action = torch.zeros(len(rewards), 1, dtype=torch.int64)
    obs, reward = t[:, None, None].expand(-1, 1, 2), torch.tensor(rewards)[:, None]
    return Rollout(obs, action, reward, obs + 1, flag["end"], flag["cut"])


def test_three_steps_by_hand():
    """gamma = 1/2. The fourth step ends the episode by a time limit, the sixth by termination."""
    batch = NStep(3, 0.5)(stream([1.0, 2, 4, 8, 16, 32, 64], {3: "cut", 5: "end"}), last=True)
    assert batch.obs[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert batch.reward.tolist() == [1 + 1 + 1, 2 + 2 + 2, 4 + 4, 8, 16 + 16, 32, 64]
    assert batch.next_obs[:, 0].tolist() == [3, 4, 4, 4, 6, 6, 7]
    assert batch.steps.tolist() == [3, 3, 2, 1, 2, 1, 1]
    assert batch.terminated.tolist() == [False, False, False, False, True, True, False]


def test_value_counts_after_a_time_limit_but_not_after_an_end():
    """V = 1 / (1 - gamma) and reward 1: each target is V where the episode was cut, however soon."""
    for ends, exact in (({2: "cut"}, True), ({2: "end"}, False)):
        batch = NStep(5, 0.9)(stream([1.0] * 3, ends), last=True)
        target = batch.reward + 0.9**batch.steps * ~batch.terminated * 10
        assert torch.allclose(target, torch.tensor(10.0)) is exact


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("length", [1, 4, 30])
def test_a_stream_in_pieces_gives_what_it_gives_at_once(n, length):
    rollout = random_rollout(CONTINUOUS, 30)
    whole, joined = NStep(n, 0.9)(rollout, last=True), NStep(n, 0.9)
    pieces = [
        joined(Rollout(*(x[k : k + length] for x in rollout)), last=k + length >= 30)
        for k in range(0, 30, length)
    ]
    for k, wanted in enumerate(whole[:6]):
        assert torch.equal(torch.cat([piece[k] for piece in pieces]), wanted)
    assert joined.pending is None


@each_spec
def test_one_step_is_the_plain_transition(spec):
    rollout = random_rollout(spec, 9)
    for got, wanted in zip(NStep(1, 0.9)(rollout), transitions(rollout), strict=False):
        if isinstance(wanted, torch.Tensor):
            assert torch.equal(got, wanted)


@pytest.mark.parametrize("n", [2, 4])
def test_steps_agree_with_a_loop(n):
    """Three environments, ends anywhere: each transition followed one step at a time."""
    rollout = random_rollout(SPEC, 25, seed=1)
    batch = NStep(n, 0.9)(rollout, last=True)
    for row, (t, env) in enumerate((t, env) for t in range(25) for env in range(3)):
        total, k = 0.0, 0
        while True:
            total += 0.9**k * rollout.reward[t + k, env].item()
            k += 1
            if k == n or t + k == 25 or rollout.ended[t + k - 1, env]:
                break
        assert batch.reward[row].item() == pytest.approx(total, abs=1e-5)
        assert batch.steps[row] == k
        assert torch.equal(batch.next_obs[row], rollout.next_obs[t + k - 1, env])
        assert batch.terminated[row] == rollout.terminated[t + k - 1, env]


def test_steps_are_stored_and_drawn(generator):
    replay = Replay(50, SPEC, CPU, n_step=3, gamma=0.9)
    rollout = random_rollout(SPEC, 10)
    replay.add_rollout(rollout)
    assert len(replay) == 3 * (10 - 2)
    replay.add_rollout(random_rollout(SPEC, 1, seed=2), last=True)
    assert len(replay) == 3 * 11
    drawn = replay.sample(500, generator).steps
    assert {1.0, 2.0, 3.0} == set(drawn.tolist())
