import math

import pytest
import torch

from hw5_planning_control.input_remapping import Camera, PixelPolicy, StateTeacher, pendulum_image
from hw5_planning_control.plato import Arena, PlatoConfig, learn, play

F64 = {"dtype": torch.float64}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("angle", "bright", "dark"),
    [
        (0.0, (-1, 9), (0, 9)),  # hangs: the last row but not the first, in the middle column
        (math.pi, (0, 9), (-1, 9)),
        (math.pi / 2, (9, -1), (9, 0)),  # to the right
        (-math.pi / 2, (9, 0), (9, -1)),
    ],
)
def test_the_rod_points_where_its_angle_says(angle, bright, dark):
    """Of 19 pixels 2.0 / 15 apart the outermost lie 0.2 beyond the tip."""
    image = pendulum_image(torch.tensor(angle, **F64), size=19, width=0.2)
    assert image[bright].item() == pytest.approx(math.exp(-0.5), abs=1e-6)
    assert image[dark] < 1e-6
    assert image[9, 9] == 1  # the pivot


def test_brightness_falls_with_the_distance_from_the_rod():
    image = pendulum_image(torch.tensor(0.0, **F64), size=25, width=0.1)  # pixels 0.1 apart
    row = image[17]  # 0.5 below the pivot
    expected = [math.exp(-0.5 * k**2) for k in range(6)]
    assert row[12:18].tolist() == pytest.approx(expected)
    assert row[7:13].flip(0).tolist() == pytest.approx(expected)


def test_batches_are_loops():
    angles = torch.linspace(-4, 4, 6, **F64).view(2, 3)
    images = pendulum_image(angles)
    assert images.shape == (2, 3, 20, 20)
    torch.testing.assert_close(images[1, 2], pendulum_image(angles[1, 2]))


def test_camera_shows_the_motion_and_the_clock():
    x = torch.tensor([[0.3, 2.0], [1.0, 0.0]], **F64)
    obs = Camera(dt=0.05, steps=100)(x, 25)
    before, now = obs[:, :-1].view(2, 2, 20, 20).unbind(1)
    torch.testing.assert_close(before[0], pendulum_image(torch.tensor(0.2, **F64)))
    torch.testing.assert_close(now, pendulum_image(x[:, 0]))
    torch.testing.assert_close(before[1], now[1])  # it stands still
    assert obs[:, -1].tolist() == [0.25, 0.25]


@pytest.mark.parametrize("size", [12, 20, 32])
def test_pixel_policy_takes_any_batch(size):
    policy, obs = PixelPolicy(size, 3.0, generator(), actions=2), torch.rand(3, 4, 2 * size**2 + 1, **F64)
    u = policy(obs)
    assert u.shape == (3, 4, 2)
    assert u.dtype == torch.float64
    torch.testing.assert_close(u[1], policy(obs[1]), rtol=1e-5, atol=1e-6)


def test_pixel_policy_reads_the_clock():
    policy, obs = PixelPolicy(20, 3.0, generator()), torch.rand(1, 801, **F64)
    later = obs.clone()
    later[:, -1] += 0.5
    assert (policy(obs) - policy(later)).abs() > 1e-6


def test_teacher_counts_the_steps_and_keeps_to_the_limits():
    teacher = StateTeacher(lambda x, t: 10 * t + x[:, :1], steps=4, limit=6.0)
    x = torch.tensor([[0.0, 1.0], [0.5, 1.0]], **F64)
    controls = [teacher.plan(x)[:, 0].tolist() for _ in range(4)]
    assert controls == [[0, 0.5], [2.5, 3.0], [5.0, 5.5], [6.0, 6.0]]


def test_velocity_can_be_learnt_from_two_pictures():
    """u = -w, which no single picture shows: five seeds leave 0.009 to 0.02 of its variance."""
    g = generator()
    starts = torch.randn(64, 2, generator=g, **F64) * torch.tensor([1.0, 4.0], **F64)
    arena = Arena(lambda g: starts, lambda x, u: x, Camera(0.05, 1), lambda x: x[:, 0].abs() > 99, 1)
    data = play(arena, lambda x, obs, t: (x[:, 1:], -x[:, 1:]), g)
    policy = PixelPolicy(20, 3.0, generator())
    config = PlatoConfig(learning_steps=150, batch_size=32, lr=3e-3)
    learn(policy, torch.optim.Adam(policy.parameters()), data.obs, data.label, config, g)
    with torch.no_grad():
        left = (policy(data.obs) - data.label).var() / data.label.var()
    assert left < 0.05
