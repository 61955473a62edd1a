"""Demonstrations as values and as files. A file that is not right must be refused in one sentence."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch

from common.types import EnvSpec, UsageError
from hw1_imitation import sealed
from hw1_imitation.demonstrations import Demonstrations, collect, load, save
from hw1_imitation.sealed import Origin
from tests.helpers import Counter, vector

ORIGIN = Origin("Counter-v0", "counts", 3, 2.5)


def demos(lengths=(3, 1, 2), discrete=False, seed=0) -> Demonstrations:
    g = torch.Generator().manual_seed(seed)
    m = sum(lengths)
    action = torch.randint(3, (m,), generator=g) if discrete else 2 * torch.rand(m, 2, generator=g) - 1
    return Demonstrations(torch.randn(m, 4, generator=g), action, torch.tensor(lengths))


def same(a: Demonstrations, b: Demonstrations) -> bool:
    return all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def test_collect_labels_what_the_policy_saw_trajectory_by_trajectory():
    """Counter shows 0, 1, 2 and ends: five steps of two environments are 0 1 2 | 0 1 twice."""
    ones = lambda obs, label: np.ones(len(obs), np.int64)  # noqa: E731
    teacher = lambda obs: obs[:, 0].astype(np.int64)  # noqa: E731
    data = collect(teacher, vector(Counter), 5, seed=0, play=ones)
    assert data.obs[:, 0].tolist() == [0, 1, 2, 0, 1] * 2
    assert data.action.tolist() == [0, 1, 2, 0, 1] * 2
    assert data.length.tolist() == [3, 2, 3, 2]
    assert data.obs.dtype == torch.float32


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8])
def test_split_keeps_trajectories_whole_and_loses_none(share):
    data = demos((3, 1, 2, 5, 4))
    data.obs[:, 0] = torch.arange(5).repeat_interleave(data.length)  # the trajectory's number
    train, validation = data.split(share, torch.Generator().manual_seed(1))
    sizes = [0 if part is None else len(part.length) for part in (train, validation)]
    assert sizes == [5 - int(share * 5), int(share * 5)]
    numbers = [set() if part is None else set(part.obs[:, 0].tolist()) for part in (train, validation)]
    assert numbers[0] & numbers[1] == set()
    assert numbers[0] | numbers[1] == set(range(5))
    for part in (train, validation):
        if part is not None:
            number = [int(part.obs[sum(part.length[:e]), 0]) for e in range(len(part.length))]
            assert part.length.tolist() == data.length[number].tolist()


def test_one_trajectory_cannot_be_split():
    with pytest.raises(UsageError, match=r"validation must leave out a trajectory at least, got 0\.5 of 1"):
        demos((4,)).split(0.5, torch.Generator())


def test_joined_holds_both_in_order():
    a, b = demos((2, 1)), demos((3,), seed=1)
    both = a.joined(b)
    assert torch.equal(both.obs, torch.cat([a.obs, b.obs]))
    assert both.length.tolist() == [2, 1, 3]
    with pytest.raises(UsageError, match="other must have columns"):
        a.joined(demos((3,), discrete=True))


def test_nothing_cannot_be_collected():
    with pytest.raises(UsageError, match="steps must be at least 1, got 0"):
        collect(lambda obs: obs, vector(Counter), 0, seed=0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"obs": torch.zeros(6, 4, dtype=torch.float64)}, "obs must be float32, got float64"),
        ({"obs": torch.zeros(6)}, r"obs must be finite numbers \[M, D\], got \[6\]"),
        ({"obs": torch.full((6, 4), torch.nan)}, "obs must be finite"),
        ({"obs": torch.zeros(0, 4)}, "obs must be finite numbers"),
        ({"action": torch.zeros(5, 2)}, r"action must be \[M, K\] with M = 6, got \[5, 2\]"),
        ({"action": torch.full((6, 2), 1.5)}, r"action must lie in \[-1, 1\]"),
        ({"action": torch.full((6, 2), torch.nan)}, r"action must lie in \[-1, 1\]"),
        ({"action": torch.tensor([0, 1, 2, 3, 4, -1])}, "action must count from 0"),
        ({"action": torch.zeros(6, 2, dtype=torch.int64)}, r"action must be \[M\]"),
        ({"length": torch.tensor([3, 3, 0])}, "length must be"),
        ({"length": torch.tensor([3, 2])}, "length must be .* sum 6"),
        ({"length": torch.tensor([2**63 - 1, 2**63 - 1, 8])}, "length must be .* sum 6"),  # 6, as int64 adds
        ({"length": torch.tensor([], dtype=torch.int64)}, "length must be"),
    ],
)
def test_what_is_not_demonstrations_is_named(change, sentence):
    with pytest.raises(UsageError, match=sentence):
        Demonstrations(**(vars(demos()) | change))


def test_data_must_fit_the_environment():
    demos().require_fits(EnvSpec(1, 4, 2, False))
    demos(discrete=True).require_fits(EnvSpec(1, 4, 3, True))
    for discrete, spec, sentence in [
        (False, EnvSpec(1, 5, 2, False), "obs must have 5 entries here, got 4"),
        (False, EnvSpec(1, 4, 3, False), "action must have 3 real entries"),
        (False, EnvSpec(1, 4, 2, True), "integers below 2"),
        (True, EnvSpec(1, 4, 2, True), "integers below 2"),
        (True, EnvSpec(1, 4, 2, False), "2 real entries"),
    ]:
        with pytest.raises(UsageError, match=sentence):
            demos(discrete=discrete).require_fits(spec)


@pytest.mark.parametrize("discrete", [False, True])
def test_a_file_gives_back_what_was_saved(discrete, tmp_path):
    data = demos(discrete=discrete)
    save(tmp_path / "a.npz", data, ORIGIN)
    loaded, origin = load(tmp_path / "a.npz")
    assert same(data, loaded)
    assert origin == ORIGIN


def test_equal_demonstrations_are_equal_files(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / f"{name}.npz", demos(), ORIGIN)
    for suffix in ("npz", "json"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def forge(path, arrays: bytes | None = None, **change) -> None:
    """Another content under a digest that is right: what only the checks behind the digest can find."""
    sidecar = path.with_suffix(".json")
    about = json.loads(sidecar.read_text()) | change
    if arrays is not None:
        path.write_bytes(arrays)
    about["sha256"] = sealed.digest(about, path.read_bytes())
    sidecar.write_text(json.dumps(about))


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


ARRAYS = {name: value.numpy() for name, value in vars(demos()).items()}


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (npz(**ARRAYS | {"obs": ARRAYS["obs"].astype(np.float64)}), "obs must be float32, got float64"),
        (npz(**ARRAYS | {"obs": ARRAYS["obs"] * np.nan}), "obs must be finite"),
        (npz(**ARRAYS | {"action": ARRAYS["action"] * 9}), "action must lie in"),
        (npz(**ARRAYS | {"extra": np.zeros(1)}), "must hold obs, action, length"),
        (npz(obs=ARRAYS["obs"]), "must hold obs, action, length"),
        (npz(**ARRAYS | {"obs": np.array([{"a": 1}])}), "not an .npz of plain arrays"),
        (b"", "not an .npz of plain arrays"),
        (pickle.dumps(ARRAYS), "not an .npz of plain arrays"),
    ],
)
def test_arrays_that_are_not_right_are_refused_behind_a_right_digest(arrays, sentence, tmp_path):
    path = tmp_path / "a.npz"
    save(path, demos(), ORIGIN)
    forge(path, arrays)
    with pytest.raises(UsageError, match=sentence):
        load(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 2}, "format must be 1, got 2"),
        ({"seed": 1.5}, "seed must be a int, got 1.5"),
        ({"seed": True}, "seed must be a int, got True"),
        ({"return_mean": float("nan")}, "return_mean must be a float, got nan"),
        ({"env_id": None}, "env_id must be a str"),
        ({"versions": {"mujoco": "4.0"}}, "versions must name those of gymnasium, mujoco"),
        ({"versions": {"gymnasium": "1.0", "mujoco": "2.1"}}, "was recorded with mujoco 2.1, and this is"),
        ({"versions": {"gymnasium": "1.0", "mujoco": "9\n"}}, "versions must name those of"),
        ({"more": 1}, "must hold"),
    ],
)
def test_a_sidecar_that_is_not_right_is_refused(change, sentence, tmp_path):
    path = tmp_path / "a.npz"
    save(path, demos(), ORIGIN)
    forge(path, **change)
    with pytest.raises(UsageError, match=sentence):
        load(path)


def test_a_pickle_in_the_arrays_is_never_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path / "executed").touch, ()

    path = tmp_path / "a.npz"
    save(path, demos(), ORIGIN)
    forge(path, npz(**ARRAYS | {"obs": np.array([Bomb()], dtype=object)}))
    with pytest.raises(UsageError, match="plain arrays"):
        load(path)
    assert not (tmp_path / "executed").exists()


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read .*a\.npz: No such file"):
        load(tmp_path / "a.npz")
    with pytest.raises(UsageError, match=r"path must end in \.npz"):
        load(tmp_path / "a.pkl")
    save(tmp_path / "a.npz", demos(), ORIGIN)
    (tmp_path / "a.json").unlink()
    with pytest.raises(UsageError, match=r"cannot read .*a\.json"):
        load(tmp_path / "a.npz")


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, cut off, doubled or put in."""
    place, kind = int(rng.integers(len(data))), rng.integers(4)
    noise = rng.integers(256, size=int(rng.integers(1, 9)), dtype=np.uint8).tobytes()
    return (
        data[:place] + noise + data[place + len(noise) :],
        data[:place],
        data[:place] + data[place // 2 :],
        data[:place] + noise + data[place:],
    )[kind]


def test_a_thousand_corrupted_files_are_refused_in_one_sentence_each(tmp_path):
    """In turn: the arrays' file; the sidecar; the arrays' file under a right digest; one array within a whole
    zip under a right digest. Behind a right digest a damage may leave valid numbers, and nothing else."""
    path, sidecar = tmp_path / "a.npz", tmp_path / "a.json"
    whole = demos((3, 1))
    save(path, whole, ORIGIN)
    arrays, text = path.read_bytes(), sidecar.read_bytes()
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    rng, refused = np.random.default_rng(0), 0
    for k in range(1000):
        path.write_bytes(arrays if k % 4 else mutated(arrays, rng))
        sidecar.write_bytes(mutated(text, rng) if k % 4 == 1 else text)
        if k % 4 == 2:
            forge(path, mutated(arrays, rng))
        if k % 4 == 3:
            buffer, spoilt = io.BytesIO(), [*members][k // 4 % 3]
            with zipfile.ZipFile(buffer, "w") as file:
                for name, member in members.items():
                    file.writestr(name, mutated(member, rng) if name == spoilt else member)
            forge(path, buffer.getvalue())
        sentence, found = outcome(path)
        refused += found is None
        assert len(sentence.splitlines()) <= 1
        if found is not None:
            assert found[1] == ORIGIN
            assert k % 4 >= 2 or same(found[0], whole)  # such as another blank in the JSON
    assert refused > 850


def outcome(path) -> tuple[str, tuple[Demonstrations, Origin] | None]:
    """The sentence that refuses the file, or what it holds; any other error fails the test."""
    try:
        return "", load(path)
    except UsageError as error:
        return str(error), None
