import dataclasses
import errno
import os
import random
import signal
from typing import NamedTuple

import numpy as np
import pytest
import torch

from common import checkpoint
from common.types import UsageError


class Pair(NamedTuple):
    x: torch.Tensor
    u: torch.Tensor


class Owner:
    def __init__(self, seed: int):
        self.net = torch.nn.Linear(2, 2)
        self.optimizer = torch.optim.Adam(self.net.parameters())
        self.generator = torch.Generator().manual_seed(seed)
        self.updates, self.rate, self.tensor = seed, 0.5, torch.full((2,), float(seed))
        self.sizes = (1, 2)
        self.chance = np.random.default_rng(seed)
        self.pair, self.seen = Pair(self.tensor, 2 * self.tensor), [self.tensor] * seed


def test_state_goes_round(tmp_path):
    one, two = Owner(1), Owner(2)
    one.net(torch.ones(2)).sum().backward()
    one.optimizer.step()
    checkpoint.save(tmp_path, 7, wall_s=1.5, agent=checkpoint.state_of(one))
    loaded = checkpoint.load_latest(tmp_path)
    checkpoint.restore(two, loaded["agent"])
    assert (loaded["step"], loaded["wall_s"], two.updates) == (7, 1.5, 1)
    assert torch.equal(one.net.weight, two.net.weight)
    assert torch.equal(one.tensor, two.tensor)
    assert torch.equal(two.pair.u, 2 * one.tensor)
    assert [x.tolist() for x in two.seen] == [[1.0, 1.0]]
    assert one.chance.random() == two.chance.random()
    assert torch.equal(torch.rand(3, generator=one.generator), torch.rand(3, generator=two.generator))
    moments = [owner.optimizer.state_dict()["state"][0]["exp_avg"] for owner in (one, two)]
    assert torch.equal(*moments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("critic", torch.ones(2)),  # there is none
        ("net", {"weight": torch.ones(2, 2)}),  # no bias
        ("net", torch.nn.Linear(3, 2).state_dict()),
        ("optimizer", {"state": {}}),  # no groups
        ("generator", torch.zeros(3, dtype=torch.uint8)),
        ("chance", {"bit_generator": "MT19937"}),
        ("pair", {"x": torch.ones(2)}),
    ],
)
def test_a_checkpoint_of_another_version_is_refused_in_a_sentence(name, value):
    with pytest.raises(UsageError, match=f"the checkpoint's {name} does not fit this version of the program"):
        checkpoint.restore(Owner(1), {name: value})


def test_what_cannot_be_saved_is_named():
    owner = Owner(0)
    for buffer in ([1, 2], [*owner.net.parameters()]):
        owner.buffer = buffer
        with pytest.raises(TypeError, match=r"Owner\.buffer: a list cannot be saved"):
            checkpoint.state_of(owner)


@pytest.mark.parametrize("value", [([1],), dataclasses.make_dataclass("Moving", ["x"])(1)])
def test_what_may_change_is_no_setting(value):
    owner = Owner(0)
    owner.memory = value
    with pytest.raises(TypeError, match=r"Owner\.memory: a .* cannot be saved"):
        checkpoint.state_of(owner)


def test_two_newest_are_kept(tmp_path):
    for step in (5, 100, 20_000):
        checkpoint.save(tmp_path, step)
    assert [path.name[:12] for path in sorted(tmp_path.iterdir())] == ["000000000100", "000000020000"]


def test_none_where_none_was_written(tmp_path):
    assert checkpoint.load_latest(tmp_path / "checkpoint") is None


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_one_gives_way_to_the_one_before(damage, tmp_path, capsys):
    checkpoint.save(tmp_path, 1)
    checkpoint.save(tmp_path, 2)
    older, newest = sorted(tmp_path.glob("*.pt"))
    data = newest.read_bytes()
    newest.write_bytes({"cut": data[: len(data) // 2], "flip": data[:-1] + b"x", "empty": b""}[damage])
    assert checkpoint.load_latest(tmp_path)["step"] == 1
    assert "is damaged" in capsys.readouterr().err
    older.write_bytes(b"")
    with pytest.raises(UsageError, match="every checkpoint"):
        checkpoint.load_latest(tmp_path)


def test_any_flipped_byte_is_noticed(tmp_path):
    checkpoint.save(tmp_path, 1, agent=checkpoint.state_of(Owner(0)))
    (path,) = tmp_path.glob("*.pt")
    data, rng = path.read_bytes(), random.Random(0)
    for _ in range(50):
        k = rng.randrange(len(data))
        path.write_bytes(data[:k] + bytes([data[k] ^ 1 << rng.randrange(8)]) + data[k + 1 :])
        with pytest.raises(UsageError):
            checkpoint.load_latest(tmp_path)


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    checkpoint.save(tmp_path, 1, bomb=Bomb())
    with pytest.raises(Exception, match=r"[Ww]eights"):
        checkpoint.load_latest(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, 2)
    assert checkpoint.load_latest(tmp_path)["step"] == 1
    assert len(list(tmp_path.iterdir())) == 1  # no half-written file either


def test_first_signal_is_a_request_the_second_stops():
    before = signal.getsignal(signal.SIGINT)
    with checkpoint.stop_signals() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGINT)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
