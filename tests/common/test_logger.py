import json
import math

import pytest
from tensorboardX.proto.event_pb2 import Event

from common.logger import RunLogger, read_rows
from common.types import UsageError

SCORES = {
    "return_mean": 1.0, "return_std": 0.0, "return_min": 1.0, "return_max": 1.0, "length_mean": 5.0,
    "episodes": 3,
}  # fmt: skip


def test_rows_and_summary(tmp_path):
    logger = RunLogger(tmp_path, total=10)
    logger.write("train", 5, {"loss/policy": 0.5})
    logger.write("eval", 10, SCORES)
    logger.close("finished", command="python -m x")
    train, evaluation = read_rows(tmp_path / "metrics.jsonl")
    assert train.pop("wall_s") >= 0
    assert train == {"split": "train", "step": 5, "loss/policy": 0.5}
    assert evaluation["return_mean"] == 1.0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["status"], summary["return_mean"], summary["command"]) == ("finished", 1.0, "python -m x")
    assert summary["versions"]["torch"]
    assert "git_commit" in summary


def test_rows_are_on_disk_at_once(tmp_path):
    logger = RunLogger(tmp_path, total=10)
    logger.write("train", 5, {"loss/policy": 0.5})
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 1
    logger.close("failed")


def test_resume_drops_later_rows_and_a_cut_line(tmp_path):
    logger = RunLogger(tmp_path, total=100)
    for step in (10, 20, 30):
        logger.write("train", step, {"loss/policy": float(step)})
    logger.close("interrupted")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"split": "train", "st')
    logger = RunLogger(tmp_path, total=100, step=20, wall_s=50.0)
    logger.write("train", 30, {"loss/policy": 31.0})
    assert logger.wall_s >= 50
    logger.close("finished")
    assert [row["loss/policy"] for row in read_rows(tmp_path / "metrics.jsonl")] == [10, 20, 31]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_stops_the_run_with_step_and_metrics(value, tmp_path):
    logger = RunLogger(tmp_path, total=10)
    with pytest.raises(FloatingPointError, match=r"step 5: loss/value, of \{.*loss/policy"):
        logger.write("train", 5, {"loss/policy": 1.0, "loss/value": value})
    logger.close("failed")
    assert not read_rows(tmp_path / "metrics.jsonl")


def test_an_evaluation_lacks_nothing(tmp_path):
    logger = RunLogger(tmp_path, total=10)
    with pytest.raises(ValueError, match="return_std"):
        logger.write("eval", 5, {"return_mean": 1.0})
    logger.close("failed")


def test_tensorboard_gets_every_value(tmp_path):
    logger = RunLogger(tmp_path, total=10)
    logger.write("train", 5, {"loss/policy": 0.5})
    logger.write("eval", 10, SCORES)
    logger.close("finished")
    (path,) = tmp_path.glob("events.out.tfevents.*")
    data, found = path.read_bytes(), {}
    while data:  # length (8), its checksum (4), event, its checksum (4)
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        data = data[16 + size :]
    assert found["loss/policy", 5] == 0.5
    assert found["eval/return_mean", 10] == 1.0


def test_without_a_terminal_evaluations_are_lines(tmp_path, capsys):
    logger = RunLogger(tmp_path, total=10)
    logger.write("eval", 10, SCORES)
    logger.close("finished")
    assert "step 10  return 1.0" in capsys.readouterr().err


def test_a_run_directory_has_one_writer(tmp_path):
    logger = RunLogger(tmp_path, total=10)
    with pytest.raises(UsageError, match="is in use by another process"):
        RunLogger(tmp_path, total=10)
    logger.close("finished")
    RunLogger(tmp_path, total=10).close("finished")


def test_a_restart_from_nothing_leaves_no_events_of_the_killed_run(tmp_path):
    (tmp_path / "events.out.tfevents.1.here").write_text("of before")
    RunLogger(tmp_path, total=10).close("finished")
    assert not (tmp_path / "events.out.tfevents.1.here").exists()
    assert list(tmp_path.glob("events.out.tfevents.*"))


@pytest.mark.parametrize("line", ["5", "[]", '{"step": 3}'])
def test_a_file_of_something_else_is_refused(line, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(UsageError, match="is not a file of metrics"):
        read_rows(tmp_path / "metrics.jsonl")
