"""Mechanical systems as differentiable functions of one state: dx/dt = f(x, u), SI units, angles in radians.

Every system has `dynamics` f, `jacobian` [df/dx, df/du] written out, its sizes n and m, the limits u_max of
its controls and, where it has one, `energy`. An angle of zero hangs straight down, pi stands upright.
Functions take x [..., n] and u [..., m], and torch.func.vmap works on them. common.envs.integration turns
f into x_{t+1}.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from common.types import require


class System(Protocol):
    n: int  # size of the state
    m: int  # size of the control

    def dynamics(self, x: Tensor, u: Tensor) -> Tensor:
        """dx/dt [..., n]"""

    def jacobian(self, x: Tensor, u: Tensor) -> Tensor:
        """d(dx/dt)/d[x; u]: [..., n, n+m]"""


@dataclass(frozen=True)
class DoubleIntegrator:
    """A mass on rails in `axes` directions. x = [positions, velocities], u = accelerations."""

    axes: int = 1
    u_max: float = 1.0  # m/s^2

    def __post_init__(self):
        require(self.axes >= 1, f"axes must be at least 1, got {self.axes}")

    @property
    def n(self) -> int:
        return 2 * self.axes

    @property
    def m(self) -> int:
        return self.axes

    def dynamics(self, x: Tensor, u: Tensor) -> Tensor:
        return torch.cat([x[..., self.axes :], u], -1)

    def jacobian(self, x: Tensor, u: Tensor) -> Tensor:
        J = x.new_zeros(self.n, self.n + self.m)
        J[:, self.axes :] = torch.eye(self.n, dtype=x.dtype, device=x.device)
        return J.expand(*x.shape[:-1], -1, -1)


@dataclass(frozen=True)
class Pendulum:
    """m l^2 w' = u - m g l sin(angle) - b w. x = [angle, w], u = torque."""

    n: ClassVar[int] = 2
    m: ClassVar[int] = 1
    mass: float = 1.0  # kg, at the end of a massless rod
    length: float = 1.0  # m
    damping: float = 0.0  # N m s
    gravity: float = 9.81  # m/s^2
    u_max: float = 2.0  # N m

    def dynamics(self, x: Tensor, u: Tensor) -> Tensor:
        angle, w = x.unbind(-1)
        inertia = self.mass * self.length**2
        swing = (u[..., 0] - self.damping * w) / inertia - self.gravity / self.length * angle.sin()
        return torch.stack([w, swing], -1)

    def jacobian(self, x: Tensor, u: Tensor) -> Tensor:
        fall = -self.gravity / self.length * x[..., 0].cos()
        inertia = self.mass * self.length**2
        return _matrix([[0, 1, 0], [fall, -self.damping / inertia, 1 / inertia]])

    def energy(self, x: Tensor) -> Tensor:
        angle, w = x.unbind(-1)
        kinetic = 0.5 * self.mass * self.length**2 * w.square()
        return kinetic - self.mass * self.gravity * self.length * angle.cos()


@dataclass(frozen=True)
class CartPole:
    """Kelly 2017, eqs. 6.1 and 6.2. x = [position, angle, velocity, angular velocity], u = force."""

    n: ClassVar[int] = 4
    m: ClassVar[int] = 1
    cart_mass: float = 1.0  # kg
    pole_mass: float = 0.3  # kg, at the end of a massless rod
    length: float = 0.5  # m
    gravity: float = 9.81  # m/s^2
    u_max: float = 20.0  # N

    def dynamics(self, x: Tensor, u: Tensor) -> Tensor:
        _, angle, v, w = x.unbind(-1)
        return torch.stack([v, w, *self._accelerations(angle.sin(), angle.cos(), w, u[..., 0])], -1)

    def _accelerations(self, s: Tensor, c: Tensor, w: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        inertia = self.cart_mass + self.pole_mass * s * s
        push = u + self.pole_mass * self.length * s * w * w
        cart = (push + self.pole_mass * self.gravity * s * c) / inertia
        fall = (self.cart_mass + self.pole_mass) * self.gravity * s
        return cart, -(c * push + fall) / (self.length * inertia)

    def jacobian(self, x: Tensor, u: Tensor) -> Tensor:
        _, angle, _, w = x.unbind(-1)
        s, c = angle.sin(), angle.cos()
        m1, m2, length, g = self.cart_mass, self.pole_mass, self.length, self.gravity
        cart, pole = self._accelerations(s, c, w, u[..., 0])
        inertia, d_inertia = m1 + m2 * s * s, 2 * m2 * s * c
        push, d_push = u[..., 0] + m2 * length * s * w * w, m2 * length * c * w * w
        cart_angle = (d_push + m2 * g * (c * c - s * s) - cart * d_inertia) / inertia
        pole_angle = -(c * d_push - s * push + (m1 + m2) * g * c + length * pole * d_inertia) / (
            length * inertia
        )
        cart_w = 2 * m2 * length * s * w / inertia
        return _matrix(
            [
                [0, 0, 1, 0, 0],
                [0, 0, 0, 1, 0],
                [0, cart_angle, 0, cart_w, 1 / inertia],
                [0, pole_angle, 0, -c * cart_w / length, -c / (length * inertia)],
            ]
        )

    def energy(self, x: Tensor) -> Tensor:
        _, angle, v, w = x.unbind(-1)
        c, m2, length = angle.cos(), self.pole_mass, self.length
        kinetic = (
            0.5 * (self.cart_mass + m2) * v * v + m2 * length * c * v * w + 0.5 * m2 * length * length * w * w
        )
        return kinetic - m2 * self.gravity * length * c


@dataclass(frozen=True)
class Acrobot:
    """Two links, the motor at the elbow (Sutton and Barto 1998; Murray and Hauser 1991).

    x = [shoulder, elbow relative to the upper link, both angular velocities], u = torque at the elbow.
    M(q) q'' + h(q, q') = [0, u], the inertias about the centres of mass.
    """

    n: ClassVar[int] = 4
    m: ClassVar[int] = 1
    m1: float = 1.0  # kg
    m2: float = 1.0  # kg
    l1: float = 1.0  # m, shoulder to elbow
    lc1: float = 0.5  # m, shoulder to the upper link's centre of mass
    lc2: float = 0.5  # m, elbow to the lower link's
    I1: float = 1.0  # kg m^2
    I2: float = 1.0  # kg m^2
    gravity: float = 9.8  # m/s^2
    u_max: float = 10.0  # N m

    def dynamics(self, x: Tensor, u: Tensor) -> Tensor:
        q1, q2, w1, w2 = x.unbind(-1)
        return torch.stack([w1, w2, *self._accelerations(q1, q2, w1, w2, u[..., 0])], -1)

    def _inertia(self, c2: Tensor) -> tuple[Tensor, Tensor, float]:
        """M11, M12, M22"""
        M22 = self.I2 + self.m2 * self.lc2**2
        M11 = M22 + self.I1 + self.m1 * self.lc1**2 + self.m2 * self.l1**2
        coupling = self.m2 * self.l1 * self.lc2 * c2
        return 2 * coupling + M11, coupling + M22, M22

    def _accelerations(
        self, q1: Tensor, q2: Tensor, w1: Tensor, w2: Tensor, u: Tensor
    ) -> tuple[Tensor, Tensor]:
        M11, M12, M22 = self._inertia(q2.cos())
        coriolis = self.m2 * self.l1 * self.lc2 * q2.sin()
        lower = self.m2 * self.lc2 * self.gravity * (q1 + q2).sin()
        upper = (self.m1 * self.lc1 + self.m2 * self.l1) * self.gravity * q1.sin()
        force1 = coriolis * w2 * (2 * w1 + w2) - upper - lower
        force2 = u - coriolis * w1 * w1 - lower
        determinant = M22 * M11 - M12 * M12
        return (M22 * force1 - M12 * force2) / determinant, (M11 * force2 - M12 * force1) / determinant

    def jacobian(self, x: Tensor, u: Tensor) -> Tensor:
        q1, q2, w1, w2 = x.unbind(-1)
        a1, a2 = self._accelerations(q1, q2, w1, w2, u[..., 0])
        M11, M12, M22 = self._inertia(q2.cos())
        d = self.m2 * self.l1 * self.lc2
        s2, c2 = d * q2.sin(), d * q2.cos()
        lower = self.m2 * self.lc2 * self.gravity * (q1 + q2).cos()
        upper = (self.m1 * self.lc1 + self.m2 * self.l1) * self.gravity * q1.cos()
        # M a = force, so M da = dforce - dM a; dM11/dq2 = -2 s2, dM12/dq2 = -s2
        columns = [
            (-upper - lower, -lower),
            (c2 * w2 * (2 * w1 + w2) - lower + s2 * (2 * a1 + a2), -c2 * w1 * w1 - lower + s2 * a1),
            (2 * s2 * w2, -2 * s2 * w1),
            (2 * s2 * (w1 + w2), 0.0),
            (0.0, 1.0),
        ]
        determinant = M22 * M11 - M12 * M12
        return _matrix(
            [
                [0, 0, 1, 0, 0],
                [0, 0, 0, 1, 0],
                [(M22 * f1 - M12 * f2) / determinant for f1, f2 in columns],
                [(M11 * f2 - M12 * f1) / determinant for f1, f2 in columns],
            ]
        )

    def energy(self, x: Tensor) -> Tensor:
        q1, q2, w1, w2 = x.unbind(-1)
        M11, M12, M22 = self._inertia(q2.cos())
        upper = (self.m1 * self.lc1 + self.m2 * self.l1) * q1.cos()
        height = -upper - self.m2 * self.lc2 * (q1 + q2).cos()
        return 0.5 * (M11 * w1 * w1 + 2 * M12 * w1 * w2 + M22 * w2 * w2) + self.gravity * height


@dataclass(frozen=True)
class PlanarQuadrotor:
    """x = [horizontal, height, pitch, their velocities]; u = thrust of the left and of the right rotor."""

    n: ClassVar[int] = 6
    m: ClassVar[int] = 2
    mass: float = 0.5  # kg
    inertia: float = 0.005  # kg m^2
    arm: float = 0.2  # m, centre to rotor
    gravity: float = 9.81  # m/s^2
    u_max: float = 5.0  # N, of each rotor; they cannot pull

    @property
    def hover(self) -> float:
        """N of each rotor that hold it still."""
        return 0.5 * self.mass * self.gravity

    def dynamics(self, x: Tensor, u: Tensor) -> Tensor:
        thrust, pitch = u.sum(-1) / self.mass, x[..., 2]
        turn = (u[..., 1] - u[..., 0]) * (self.arm / self.inertia)
        pull = torch.stack([-thrust * pitch.sin(), thrust * pitch.cos() - self.gravity, turn], -1)
        return torch.cat([x[..., 3:], pull], -1)

    def jacobian(self, x: Tensor, u: Tensor) -> Tensor:
        thrust, turn = u.sum(-1) / self.mass, self.arm / self.inertia
        s, c = x[..., 2].sin(), x[..., 2].cos()
        return _matrix(
            [
                [0, 0, 0, 1, 0, 0, 0, 0],
                [0, 0, 0, 0, 1, 0, 0, 0],
                [0, 0, 0, 0, 0, 1, 0, 0],
                [0, 0, -thrust * c, 0, 0, 0, -s / self.mass, -s / self.mass],
                [0, 0, -thrust * s, 0, 0, 0, c / self.mass, c / self.mass],
                [0, 0, 0, 0, 0, 0, -turn, turn],
            ]
        )

    def energy(self, x: Tensor) -> Tensor:
        _, height, _, vx, vy, w = x.unbind(-1)
        kinetic = 0.5 * self.mass * (vx * vx + vy * vy) + 0.5 * self.inertia * w * w
        return kinetic + self.mass * self.gravity * height


@dataclass(frozen=True)
class Car:
    """A kinematic bicycle among discs. x = [east, north, heading, speed], u = [acceleration, steering]."""

    n: ClassVar[int] = 4
    m: ClassVar[int] = 2
    wheelbase: float = 0.5  # m
    # m: east, north, radius
    obstacles: tuple[tuple[float, float, float], ...] = ((1.0, 1.2, 0.5), (2.0, 1.8, 0.5))
    u_max: tuple[float, float] = (2.0, 0.6)  # m/s^2, rad

    def __post_init__(self):
        ok = all(len(o) == 3 and o[2] > 0 for o in self.obstacles)
        require(ok, f"obstacles must be (east, north, radius > 0) each, got {self.obstacles}")

    def dynamics(self, x: Tensor, u: Tensor) -> Tensor:
        _, _, heading, speed = x.unbind(-1)
        acceleration, steering = u.unbind(-1)
        turn = speed * steering.tan() / self.wheelbase
        return torch.stack([speed * heading.cos(), speed * heading.sin(), turn, acceleration], -1)

    def jacobian(self, x: Tensor, u: Tensor) -> Tensor:
        _, _, heading, speed = x.unbind(-1)
        s, c, tan = heading.sin(), heading.cos(), u[..., 1].tan()
        turn = speed * (1 + tan * tan) / self.wheelbase
        return _matrix(
            [
                [0, 0, -speed * s, c, 0, 0],
                [0, 0, speed * c, s, 0, 0],
                [0, 0, 0, tan / self.wheelbase, 0, turn],
                [0, 0, 0, 0, 1, 0],
            ]
        )

    def clearance(self, x: Tensor) -> Tensor:
        """m from the car's reference point to the rim of each obstacle, negative inside: [..., obstacles]"""
        discs = torch.tensor(self.obstacles, dtype=x.dtype, device=x.device).reshape(-1, 3)
        return torch.linalg.vector_norm(x[..., None, :2] - discs[:, :2], dim=-1) - discs[:, 2]


def _matrix(rows: list[list[Tensor | float]]) -> Tensor:
    """[..., i, j] from entries [...] or numbers, of which at least one is a tensor."""
    like = next(entry for row in rows for entry in row if isinstance(entry, Tensor))
    entries = [
        entry if isinstance(entry, Tensor) else torch.full_like(like, entry) for row in rows for entry in row
    ]
    return torch.stack(entries, -1).unflatten(-1, (len(rows), len(rows[0])))
