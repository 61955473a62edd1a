"""A human expert, whose window and keys are played by the test."""

import numpy as np
import pygame
import pytest

from common.envs import registry
from common.envs.lane_keeping import expert
from common.types import UsageError
from hw1_imitation import keyboard
from hw1_imitation.demonstrations import collect
from hw1_imitation.keyboard import Keyboard, frame, label

ENV_ID = "course/LaneKeeping-v0"


@pytest.fixture
def keys(monkeypatch):
    """The keys that are down; SDL's dummy driver stands in for a display, without waiting."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(keyboard, "NO_WINDOW", ())
    monkeypatch.setattr(keyboard, "RATE", 0)
    held = {"keys": set(), "shift": 0}
    pressed = type("Pressed", (), {"__getitem__": lambda self, key: key in held["keys"]})()
    monkeypatch.setattr(pygame.key, "get_pressed", lambda: pressed)
    monkeypatch.setattr(pygame.key, "get_mods", lambda: held["shift"])
    yield held
    pygame.display.quit()


def test_labels_of_the_keys():
    assert label(True, False, False) == 0.5  # to the left, as the expert's sign has it
    assert label(False, True, False) == -0.5
    assert label(False, True, True) == -1.0
    assert label(True, True, True) == label(False, False, False) == 0.0


def test_the_keys_steer(keys):
    human, obs = Keyboard(ENV_ID), np.zeros((1, 192), np.float32)
    assert human(obs).tolist() == [[0.0]]
    keys["keys"] = {pygame.K_LEFT}
    assert human(obs).tolist() == [[0.5]]
    keys["shift"] = pygame.KMOD_LSHIFT
    assert human(obs).tolist() == [[1.0]]


def test_a_road_to_the_left_is_shown_on_the_left():
    env = registry.make_env(ENV_ID).unwrapped
    env.reset(seed=0)
    env.e = -0.9  # the car is near the right edge
    picture = frame(env.camera())
    assert expert(env.camera()[None])[0, 0] > 0
    assert picture.shape == (192, 576, 3)
    nearest = picture[-1, :, 0].astype(float)
    assert nearest[:288].mean() > 2 * nearest[288:].mean()


def test_what_a_human_did_is_recorded(keys):
    keys["keys"] = {pygame.K_RIGHT}
    human = Keyboard(ENV_ID)
    data = collect(human, registry.make_envs(ENV_ID, 1), 5, seed=0)
    assert data.action.tolist() == [[-0.5]] * 5


def test_closing_the_window_is_said_in_a_sentence(keys):
    human = Keyboard(ENV_ID)
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    with pytest.raises(UsageError, match="the window was closed before every label was given"):
        human(np.zeros((1, 192), np.float32))


def test_what_cannot_be_shown_is_refused(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with pytest.raises(UsageError, match="needs a display, the video driver is 'dummy'"):
        Keyboard(ENV_ID)
    pygame.display.quit()
    monkeypatch.setenv("SDL_VIDEODRIVER", "none such")
    with pytest.raises(UsageError, match="needs a display: none such not available"):
        Keyboard(ENV_ID)
    with pytest.raises(UsageError, match="env_id must be course/LaneKeeping-v0 for a human expert"):
        Keyboard("Hopper-v5")
