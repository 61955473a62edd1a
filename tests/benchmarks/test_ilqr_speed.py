"""iLQR and DDP on the acrobot of trajax's tests, from zero controls to a gradient below 1e-6."""

import pytest
import torch

from hw5_planning_control.ddp import ddp
from hw5_planning_control.ilqr import ilqr
from tests.benchmarks.peers import in_turn
from tests.hw5.problems import F64, acrobot

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]


def test_the_acrobot_swings_up_in_half_a_second():
    """Recording its functions included. trajax takes 0.02 to 0.05 s once it is compiled, 4.5 s before."""
    torch.set_num_threads(1)
    u = torch.zeros(50, 1, **F64)
    solution = ilqr(acrobot(), u)
    assert bool(solution.converged)
    print(f"\n{int(solution.iterations)} and {int(ddp(acrobot(), u).iterations)} accepted steps", end="")
    found = in_turn({"iLQR": lambda: ilqr(acrobot(), u), "DDP": lambda: ddp(acrobot(), u)}, calls=1, rounds=9)
    assert found["iLQR"] < 500
