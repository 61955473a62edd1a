"""Against the environments themselves and MuJoCo's own finite differences, where it has them."""

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch
from torch.func import vmap

from common.envs.mujoco_dynamics import MujocoDynamics

RK4, EULER = "InvertedDoublePendulum-v5", "Pusher-v5"


def states(system: MujocoDynamics, count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x = system.x0 + 0.05 * torch.randn(count, system.n, generator=g, dtype=torch.float64)
    u = 0.5 * torch.rand(count, system.m, generator=g, dtype=torch.float64)
    return x, u


@pytest.mark.parametrize("env_id", [RK4, EULER])
def test_a_step_is_the_environments(env_id):
    system, env = MujocoDynamics(env_id), gym.make(env_id).unwrapped
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(5):
        x = np.concatenate([env.data.qpos, env.data.qvel])
        action = env.action_space.sample()
        env.step(action)
        after = system(torch.from_numpy(x), torch.from_numpy(action.astype(np.float64)))
        np.testing.assert_allclose(after, np.concatenate([env.data.qpos, env.data.qvel]), rtol=0, atol=1e-11)
    assert (system.n, system.m, system.dt) == (2 * env.model.nq, env.action_space.shape[0], env.dt)
    np.testing.assert_allclose(system.u_high, env.action_space.high)


def test_a_simulation_that_breaks_down_has_no_result():
    """At 1e12 rad/s MuJoCo gives up and starts anew from rest; the state beside it is not concerned."""
    system = MujocoDynamics(RK4)
    x, u = states(system, 2)
    alone = system(x, u)[1]
    x[0, -1] = 1e12
    after = system(x, u)
    assert after[0].isnan().all()
    assert (after[1] == alone).all()


def test_derivatives_are_mujocos_own_where_it_integrates_by_euler():
    system = MujocoDynamics(EULER)
    system.frame_skip = 1
    x, u = (a[0] for a in states(system))
    data, n = system.data, system.n
    data.qpos[:], data.qvel[:], data.ctrl[:] = x[: n // 2], x[n // 2 :], u
    A, B = np.zeros((n, n)), np.zeros((n, system.m))
    mujoco.mjd_transitionFD(system.model, data, 1e-6, True, A, B, None, None)
    np.testing.assert_allclose(system.jacobian(x, u), np.concatenate([A, B], 1), rtol=0, atol=1e-5)


def test_derivatives_of_an_rk4_model_predict_its_steps():
    """The error of the linear model falls with the square of the step."""
    system = MujocoDynamics(RK4)
    x, u = (a[0] for a in states(system))
    F, after = system.jacobian(x, u), system(x, u)
    dz = torch.randn(system.n + system.m, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    errors = []
    for size in (1e-3, 1e-4):
        moved = system(x + size * dz[: system.n], u + size * dz[system.n :])
        errors.append(float((moved - after - size * F @ dz).norm()))
    assert np.log10(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)


def test_vmap_and_autograd_pass_through():
    system = MujocoDynamics(RK4)
    x, u = states(system)
    together, F = vmap(system)(x, u), vmap(system.jacobian)(x, u)
    for i in range(4):
        assert torch.equal(together[i], system(x[i], u[i]))
        assert torch.equal(F[i], system.jacobian(x[i], u[i]))
    assert torch.equal(vmap(system, (0, None))(x, u[0])[2], system(x[2], u[0]))
    z = torch.cat([x, u], -1).requires_grad_()
    weight = torch.arange(1.0, system.n + 1, dtype=torch.float64)
    total = (vmap(system)(z[:, : system.n], z[:, system.n :]) @ weight).sum()
    (gradient,) = torch.autograd.grad(total, z)
    torch.testing.assert_close(gradient, weight @ F)


def test_derivatives_at_a_limit_look_inwards():
    system = MujocoDynamics(RK4)
    x = states(system)[0][0]
    at, inside = (system.jacobian(x, share * system.u_high) for share in (1.0, 0.999))
    torch.testing.assert_close(at[:, -1], inside[:, -1], rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    ("env_id", "sentence"),
    [("CartPole-v1", "must name a MuJoCo environment"), ("Ant-v5", "without quaternions")],
)
def test_what_cannot_be_a_vector_is_refused(env_id, sentence):
    with pytest.raises(ValueError, match=sentence):
        MujocoDynamics(env_id)
