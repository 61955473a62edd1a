"""Physics by power balances, derivatives by autograd, integrators by their order."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import functional
from torch.func import vmap

from common.envs.integration import discretize, discretize_jacobian
from common.envs.systems import Acrobot, Car, CartPole, DoubleIntegrator, Pendulum, PlanarQuadrotor

F64 = {"dtype": torch.float64}
SYSTEMS = [
    DoubleIntegrator(),
    DoubleIntegrator(axes=3),
    Pendulum(damping=0.3, mass=0.7, length=1.4),
    CartPole(),
    Acrobot(m1=0.8, m2=1.3, l1=1.1, lc1=0.4, lc2=0.6, I1=0.2, I2=0.3),
    PlanarQuadrotor(),
    Car(),
]


def states(system, count: int = 20, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, system.n, generator=g, **F64), torch.randn(count, system.m, generator=g, **F64)


def autograd_jacobian(f, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """df/d[x; u] [N, n, n+m] of N states, one after the other."""
    rows = [functional.jacobian(f, pair) for pair in zip(x, u, strict=True)]
    return torch.stack([torch.cat(row, -1) for row in rows])


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: type(s).__name__)
class TestEverySystem:
    def test_analytic_and_autograd_derivatives_agree(self, system):
        x, u = states(system)
        expected = autograd_jacobian(system.dynamics, x, u)
        torch.testing.assert_close(system.jacobian(x, u), expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(vmap(system.jacobian)(x, u), expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("method", ["rk4", "euler"])
    def test_derivatives_of_a_step_agree(self, system, method):
        x, u = states(system)
        expected = autograd_jacobian(discretize(system.dynamics, 0.1, method), x, u)
        step = discretize_jacobian(system.dynamics, system.jacobian, 0.1, method)
        torch.testing.assert_close(step(x, u), expected, rtol=1e-12, atol=1e-12)

    def test_a_batch_is_a_loop(self, system):
        x, u = states(system)
        together, mapped = system.dynamics(x, u), vmap(system.dynamics)(x, u)
        for i in range(len(x)):
            assert system.dynamics(x[i], u[i]).shape == (system.n,)
            torch.testing.assert_close(together[i], system.dynamics(x[i], u[i]), rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(mapped, together, rtol=1e-14, atol=1e-14)

    def test_float32_stays_float32(self, system):
        x, u = (a.float() for a in states(system))
        assert discretize(system.dynamics, 0.1)(x, u).dtype == torch.float32
        assert system.jacobian(x, u).dtype == torch.float32


def power(system, x, u):
    """W that the controls put in and friction takes out."""
    match system:
        case Pendulum():
            return u[..., 0] * x[..., 1] - system.damping * x[..., 1] ** 2
        case CartPole():
            return u[..., 0] * x[..., 2]
        case Acrobot():
            return u[..., 0] * x[..., 3]
        case PlanarQuadrotor():
            _, _, pitch, vx, vy, w = x.unbind(-1)
            along = -pitch.sin() * vx + pitch.cos() * vy  # speed in the direction of the thrust
            return u.sum(-1) * along + system.arm * (u[..., 1] - u[..., 0]) * w


@pytest.mark.parametrize("system", SYSTEMS[2:6], ids=lambda s: type(s).__name__)
def test_energy_changes_by_what_is_put_in(system):
    """dE/dt = grad E . f, at random states and controls."""
    x, u = states(system, 100)
    gradient = functional.jacobian(lambda x: system.energy(x).sum(), x)
    change = (gradient * system.dynamics(x, u)).sum(-1)
    torch.testing.assert_close(change, power(system, x, u), rtol=1e-11, atol=1e-11)


def test_double_integrator_by_hand():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0], **F64)
    u = torch.tensor([5.0, 6.0], **F64)
    assert DoubleIntegrator(axes=2).dynamics(x, u).tolist() == [3, 4, 5, 6]


def test_car_by_hand():
    """Heading north at 2 m/s, steering by atan(1/2) on a wheelbase of 1/2 m: 2 rad/s."""
    x = torch.tensor([0.0, 0.0, math.pi / 2, 2.0], **F64)
    u = torch.tensor([0.7, math.atan(0.5)], **F64)
    torch.testing.assert_close(Car().dynamics(x, u), torch.tensor([0.0, 2.0, 2.0, 0.7], **F64))


def test_clearance_is_the_distance_to_the_rim():
    car = Car(obstacles=((3.0, 4.0, 1.0), (0.0, 0.0, 0.5)))
    assert car.clearance(torch.zeros(4, **F64)).tolist() == [4.0, -0.5]


def test_quadrotor_hovers():
    system = PlanarQuadrotor()
    rest = system.dynamics(torch.zeros(6, **F64), torch.full((2,), system.hover, **F64))
    assert float(rest.abs().max()) < 1e-15


def test_acrobot_reproduces_a_published_cost():
    """Fifty Euler steps of 0.1 s from rest with no torque, weights (1000, 0.1, 0.01): 4959.476212, as in
    the test of trajax's optimizers. Hanging still, it never moves: 500 pi^2 + 50 * 0.05 pi^2."""
    system, x = Acrobot(), torch.zeros(4, **F64)
    step = discretize(system.dynamics, 0.1, "euler")
    goal, cost = torch.tensor([math.pi, 0.0, 0.0, 0.0], **F64), 0.0
    for _ in range(50):
        cost += 0.05 * float((x - goal).square().sum())
        x = step(x, torch.zeros(1, **F64))
    assert cost + 500 * float((x - goal).square().sum()) == pytest.approx(4959.476212, abs=1e-6)


def test_cart_pole_solves_kellys_equations():
    """Kelly 2017, before solving for the accelerations: the cart's and the pole's balance of forces."""
    system = CartPole()
    x, u = states(system, 50)
    _, angle, _, w = x.unbind(-1)
    _, _, cart, pole = system.dynamics(x, u).unbind(-1)
    m1, m2, length, g = system.cart_mass, system.pole_mass, system.length, system.gravity
    horizontal = (m1 + m2) * cart + m2 * length * (pole * angle.cos() - w**2 * angle.sin()) - u[:, 0]
    along = cart * angle.cos() + length * pole + g * angle.sin()
    assert float(horizontal.abs().max()) < 1e-12
    assert float(along.abs().max()) < 1e-12


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("rk4", 4)])
def test_integrators_have_their_order(method, order):
    """Halving dt divides the error of the angle after 1 s by 2^order."""
    system, u = Pendulum(), torch.tensor([0.5], **F64)

    def end(steps: int, method: str = method) -> torch.Tensor:
        x, step = torch.tensor([1.0, 0.0], **F64), discretize(system.dynamics, 1 / steps, method)
        for _ in range(steps):
            x = step(x, u)
        return x

    exact = end(500, "rk4")
    coarse, fine = (float((end(steps) - exact).norm()) for steps in (60, 120))
    assert np.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("options", [{"dt": 0.0}, {"dt": math.nan}, {"dt": 0.1, "method": "midpoint"}])
def test_bad_steps_are_refused(options):
    with pytest.raises(ValueError, match=r"(dt|method) must be"):
        discretize(Pendulum().dynamics, **options)


def test_bad_systems_are_refused():
    with pytest.raises(ValueError, match="obstacles must be"):
        Car(obstacles=((0.0, 0.0, -1.0),))
    with pytest.raises(ValueError, match="axes must be"):
        DoubleIntegrator(axes=0)
