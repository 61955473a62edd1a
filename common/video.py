"""Film a policy, with or without a display. A film that fails is a warning, never the end of a run."""

from __future__ import annotations

import ctypes.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from gymnasium.spaces import Box

from common.envs.registry import make_env
from common.filmstrip import Thinned, draw, spread
from common.types import begin

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


def pick_gl_backend() -> str | None:
    """Set MUJOCO_GL to what can draw here, before MuJoCo draws first; None where MuJoCo finds it by itself.

    On Linux without a display GLFW, which Gymnasium tries first, fails in a way that hides EGL from it.
    """
    if "MUJOCO_GL" in os.environ or sys.platform != "linux" or any(os.environ.get(d) for d in DISPLAYS):
        return os.environ.get("MUJOCO_GL")
    for name in ("EGL", "OSMesa"):
        if ctypes.util.find_library(name):
            os.environ["MUJOCO_GL"] = name.lower()
            return name.lower()
    return None


def opener() -> str:
    """The command that shows a picture or a film on this system."""
    return {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")


def film(
    act: Callable[[np.ndarray], np.ndarray], env_id: str, path: Path, seed: int, max_steps: int = 1000
) -> Path | None:
    """One episode of the policy as mp4, frame by frame to the disk, and a strip of it beside that, png; None,
    and a warning, if that fails."""
    pick_gl_backend()
    try:
        return _film(act, env_id, path, seed, max_steps)
    except Exception as error:  # whatever the driver, the encoder or the disk objects to: the run is safe
        print(f"warning: no video of {env_id}: {type(error).__name__}: {error}", file=sys.stderr)
        return None


def _film(
    act: Callable[[np.ndarray], np.ndarray], env_id: str, path: Path, seed: int, max_steps: int
) -> Path:
    from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter  # 0.5 s to import, seldom needed

    env = make_env(env_id, render_mode="rgb_array")
    try:
        obs, _ = env.reset(seed=seed)
        begin(act, np.ones(1, bool))
        frame, strip = env.render(), Thinned()
        strip.add(frame)
        path.parent.mkdir(parents=True, exist_ok=True)
        fps = env.metadata.get("render_fps", 30)
        with FFMPEG_VideoWriter(str(path), frame.shape[1::-1], fps, logfile=None) as writer:
            writer.write_frame(frame)
            for _ in range(max_steps):
                action = act(np.asarray(obs)[None])[0]
                action = np.clip(action, -1, 1) if isinstance(env.action_space, Box) else action
                obs, _, terminated, truncated, _ = env.step(action)
                frame = env.render()
                writer.write_frame(frame)
                strip.add(frame)
                if terminated or truncated:
                    break
    finally:
        env.close()
    frames = [*strip.frames().items()]
    steps, pictures = zip(*(frames[i] for i in spread(len(frames))), strict=True)
    draw({"": pictures}, steps).savefig(path.with_suffix(".png"), dpi=100)
    return path
