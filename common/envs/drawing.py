"""Pictures of the mechanical systems: lines and discs in metres, the goal as a pale shadow."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pygame

from common.envs.systems import Acrobot, Car, CartPole, DoubleIntegrator, Pendulum, PlanarQuadrotor, System

WIDTH, HEIGHT, FINER = 600, 400, 2  # pixels; drawn finer, then smoothed
BLUE, ORANGE, GRAY, WHITE = (38, 84, 124), (239, 131, 84), (180, 184, 190), (255, 255, 255)
Color = tuple[int, int, int]


class Shape(NamedTuple):
    """A line through points [k, 2], or a disc around one point; `size` is its width or diameter."""

    points: np.ndarray  # m: right and up
    size: float  # m
    color: Color


def draw(system: System, x: np.ndarray, goal: tuple[float, ...]) -> np.ndarray:
    """[HEIGHT, WIDTH, 3] uint8 of the state x [n]."""
    parts = [ground(system), *pale(shapes(system, np.array(goal))), *shapes(system, x)]
    return picture(parts, *frame(system, goal))


def picture(parts: list[Shape], center: tuple[float, float], width: float) -> np.ndarray:
    """[HEIGHT, WIDTH, 3] uint8 of `width` metres around `center`, the last shape on top."""
    canvas = pygame.Surface((WIDTH * FINER, HEIGHT * FINER))
    canvas.fill(WHITE)
    for shape in parts:
        _paint(canvas, shape, center, WIDTH * FINER / width)
    small = pygame.transform.smoothscale(canvas, (WIDTH, HEIGHT))
    return np.swapaxes(pygame.surfarray.array3d(small), 0, 1).copy()


def frame(system: System, goal: tuple[float, ...]) -> tuple[tuple[float, float], float]:
    """What the picture shows: its centre and its width, m."""
    match system:
        case CartPole():
            return (goal[0] / 2, 0.0), 3.0
        case Acrobot():
            return (0.0, 0.0), 7.0
        case PlanarQuadrotor():
            return (goal[0] / 2, goal[1] / 2), 6.0
        case DoubleIntegrator():
            return (0.0, 0.0), 6.0
        case Car():
            return (goal[0] / 2, goal[1] / 2), 7.0
    return (0.0, 0.0), 4.0


def ground(system: System) -> Shape:
    """The rail, or the pivot."""
    if isinstance(system, CartPole | DoubleIntegrator):
        return Shape(np.array([[-50.0, -0.02], [50.0, -0.02]]), 0.01, GRAY)
    return Shape(np.zeros((1, 2)), 0.08, GRAY)


def shapes(system: System, x: np.ndarray) -> list[Shape]:
    """An angle of zero hangs straight down."""
    match system:
        case CartPole():
            cart = np.array([x[0], 0.0])
            return [box(cart, 0.3, 0.12, 0.0, BLUE), *_links(cart, [x[1]], [system.length], 0.04)]
        case Pendulum():
            return _links(np.zeros(2), [x[0]], [system.length], 0.06)
        case Acrobot():
            return _links(np.zeros(2), [x[0], x[0] + x[1]], [system.l1, 2 * system.lc2], 0.08)
        case PlanarQuadrotor():
            right = np.array([np.cos(x[2]), np.sin(x[2])]) * system.arm
            up = np.array([-right[1], right[0]]) / 4
            rotors = [x[:2] + side * right + up for side in (-1, 1)]
            blades = [Shape(np.stack([r - right / 2, r + right / 2]), 0.03, ORANGE) for r in rotors]
            return [box(x[:2], 2 * system.arm, 0.06, x[2], BLUE), *blades]
        case DoubleIntegrator():
            return [box(np.array([x[0], 0.12]), 0.4, 0.24, 0.0, BLUE)]
        case Car():
            discs = [
                Shape(np.array([[east, north]]), 2 * radius, GRAY) for east, north, radius in system.obstacles
            ]
            return [*discs, box(x[:2], 0.4, 0.2, x[2], BLUE)]
    raise TypeError(f"there is no picture of a {type(system).__name__}")


def pale(parts: list[Shape]) -> list[Shape]:
    """The same, nearly as white as the paper."""
    return [part._replace(color=tuple(255 - (255 - c) // 5 for c in part.color)) for part in parts]


def _links(pivot: np.ndarray, angles: list[float], lengths: list[float], width: float) -> list[Shape]:
    """A chain of rods that hang from the pivot, a disc at each end."""
    parts = []
    for angle, length in zip(angles, lengths, strict=True):
        end = pivot + length * np.array([np.sin(angle), -np.cos(angle)])
        parts += [Shape(np.stack([pivot, end]), width, ORANGE), Shape(end[None], 2.2 * width, BLUE)]
        pivot = end
    return parts


def box(center: np.ndarray, width: float, height: float, angle: float, color: Color) -> Shape:
    """Turned by `angle` from lying."""
    along = np.array([np.cos(angle), np.sin(angle)]) * width / 2
    return Shape(np.stack([center - along, center + along]), height, color)


def _paint(canvas: pygame.Surface, shape: Shape, center: tuple[float, float], scale: float) -> None:
    """`scale` is pixels per metre; pygame counts them from the upper left corner."""
    size = np.array(canvas.get_size())
    points = size / 2 + (shape.points - center) * scale * [1, -1]
    points, half = np.clip(points, -1e4, 1e4), max(shape.size * scale / 2, 1)
    if len(points) == 1:
        pygame.draw.circle(canvas, shape.color, points[0], half)
        return
    start, end = points
    along = (end - start) / (np.linalg.norm(end - start) + 1e-9)
    across = np.array([-along[1], along[0]]) * half
    pygame.draw.polygon(canvas, shape.color, [start + across, end + across, end - across, start - across])
