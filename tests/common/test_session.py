"""Where a run goes on: its checkpoint and the status in its summary decide."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common import checkpoint
from common.session import resume_point
from common.types import UsageError


def point(folder: Path, status: str | None, step: int) -> dict:
    """Of a run of 10 steps with a checkpoint at `step`, or none."""
    if status:
        (folder / "summary.json").write_text(json.dumps({"status": status}))
    if step:
        checkpoint.save(folder / "checkpoint", step, wall_s=1.0)
    config = SimpleNamespace(resume=folder, train=SimpleNamespace(total_steps=10))
    return resume_point(config, torch.device("cpu"))


@pytest.mark.parametrize("status", [None, "failed", "interrupted"])
@pytest.mark.parametrize("step", [0, 4, 10])
def test_what_did_not_finish_goes_on_from_its_checkpoint_or_starts_over(status, step, tmp_path):
    assert point(tmp_path, status, step)["step"] == step


@pytest.mark.parametrize(("step", "sentence"), [(0, "has lost its checkpoints"), (10, "is finished; raise")])
def test_what_finished_does_not(step, sentence, tmp_path):
    with pytest.raises(UsageError, match=sentence):
        point(tmp_path, "finished", step)


def test_a_finished_run_is_prolonged(tmp_path):
    assert point(tmp_path, "finished", 4)["step"] == 4
