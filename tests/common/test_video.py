import json
import subprocess
import sys

import imageio_ffmpeg
import numpy as np
import pytest
from matplotlib.image import imread

from common import video
from tests.helpers import ROOT, Memory


@pytest.fixture(autouse=True)
def _no_display(monkeypatch):
    for name in (*video.DISPLAYS, "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")


@pytest.mark.parametrize(
    ("libraries", "expected"), [({"EGL", "OSMesa"}, "egl"), ({"OSMesa"}, "osmesa"), (set(), None)]
)
def test_back_end_without_a_display(libraries, expected, monkeypatch):
    monkeypatch.setattr("ctypes.util.find_library", lambda name: name if name in libraries else None)
    assert video.pick_gl_backend() == expected


def test_back_end_of_the_user_or_the_display_stays(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    assert video.pick_gl_backend() is None
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert video.pick_gl_backend() == "osmesa"


def read_frames(path):
    frames = imageio_ffmpeg.read_frames(str(path))
    width, height = next(frames)["size"]
    return [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in frames]


def push_right(obs):
    return np.ones(len(obs), np.int64)


def test_film_of_an_episode(tmp_path):
    path = video.film(push_right, "CartPole-v1", tmp_path / "video" / "x.mp4", seed=0)
    frames = read_frames(path)
    assert 8 <= len(frames) <= 14  # pushed one way the pole falls within nine or ten steps, and the start
    assert frames[0].shape == (400, 600, 3)
    assert frames[0].std() > 10  # not a blank picture
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 0.5  # it moves
    strip = imread(path.with_suffix(".png"))
    assert strip.shape[1] > 5 * strip.shape[0]  # beside one another
    assert strip[..., :3].std() > 0.1


def test_film_stops_at_max_steps(tmp_path):
    path = video.film(lambda obs: np.zeros((1, 1)), "Pendulum-v1", tmp_path / "x.mp4", 0, max_steps=5)
    assert len(read_frames(path)) == 6


def test_film_tells_a_policy_that_remembers_where_its_episode_begins(tmp_path):
    memory = Memory()
    for _ in range(2):
        video.film(memory, "CartPole-v1", tmp_path / "x.mp4", seed=0, max_steps=3)
    assert memory.notes == [[0], [1], [2]] * 2


@pytest.mark.parametrize("error", [RuntimeError, OSError, ValueError, AttributeError])
def test_a_failed_film_is_a_warning(error, tmp_path, monkeypatch, capsys):
    def fail(*args, **options):
        raise error("no GL here")

    monkeypatch.setattr(video, "make_env", fail)
    assert video.film(push_right, "CartPole-v1", tmp_path / "x.mp4", seed=0) is None
    assert "warning: no video of CartPole-v1" in capsys.readouterr().err


def test_mujoco_draws_without_a_display(tmp_path):
    """In a process of its own, as the choice of back end is made once."""
    if video.pick_gl_backend() is None:
        pytest.skip("neither EGL nor OSMesa is installed here")
    code = (
        "import json, sys, pathlib, numpy as np; from common.video import film\n"
        "still, path = lambda obs: np.zeros((1, 7)), pathlib.Path(sys.argv[1])\n"
        "path = film(still, 'course/Reacher-v0', path, seed=0, max_steps=2)\n"
        "print(json.dumps(str(path)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x.mp4")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert json.loads(result.stdout.splitlines()[-1]).endswith("x.mp4"), result.stderr
    frames = read_frames(tmp_path / "x.mp4")
    assert len(frames) == 3
    assert frames[0].std() > 10
