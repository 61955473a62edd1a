"""MPPI plans per second beside pytorch_mppi's, with the same dynamics and cost, 1,000 samples of 15 steps.

pytorch_mppi calls both at every step; ours plays what hw5_planning_control.recorder makes of them.
"""

import pytest
import torch

from common.envs.control_tasks import TASKS
from common.stochastic_search import mppi
from hw5_planning_control.shooting import simulator
from tests.benchmarks.peers import in_turn

peer = pytest.importorskip("pytorch_mppi", reason="a peer, see tests/benchmarks/requirements.txt")
pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]
SAMPLES, HORIZON = 1000, 15


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "course/DoubleIntegrator-v0", "course/CartPoleSwingUp-v0"])
@torch.no_grad()
def test_twice_as_many_plans_per_second(env_id):
    """The first by Euler's method, the others by Runge and Kutta's; the state is at rest."""
    torch.set_num_threads(1)
    task, generator = TASKS[env_id], torch.Generator().manual_seed(0)
    x, mean = torch.zeros(task.n, dtype=torch.float64), torch.zeros(HORIZON * task.m, dtype=torch.float64)
    simulate, eye = simulator(task), torch.eye(task.m, dtype=torch.float64)
    limits = {"u_min": torch.full((task.m,), task.u_low), "u_max": torch.full((task.m,), task.u_high)}
    limits = {name: limit.double() for name, limit in limits.items()}
    other = peer.MPPI(task.step, task.cost, task.n, eye, SAMPLES, HORIZON, lambda_=1.0, **limits)

    def score(z):
        return -simulate(x, z.reshape(-1, HORIZON, task.m))

    def plan():
        return mppi(score, mean, 1.0, 1.0, 1, SAMPLES, task.u_low, task.u_high, generator=generator).mean

    print(f"\n{env_id}", end="")
    found = in_turn({"ours": plan, "pytorch_mppi": lambda: other.command(x)}, calls=20)
    assert found["ours"] < 0.5 * found["pytorch_mppi"]
