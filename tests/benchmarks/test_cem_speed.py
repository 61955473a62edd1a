"""The cross-entropy method beside mbrl-lib's: 5 refits to 40 of 400 samples, 30 dimensions, float32."""

import pytest
import torch

from common.stochastic_search import cem
from tests.benchmarks.peers import in_turn

REASON = "a peer, see tests/benchmarks/requirements.txt"
peer = pytest.importorskip("mbrl.planning.trajectory_opt", reason=REASON)
pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]


def test_less_than_half_the_time():
    """mbrl-lib as PETS has it, with truncated normal samples; ours are clipped."""
    torch.set_num_threads(1)
    mean, generator = torch.zeros(30), torch.Generator().manual_seed(0)
    other = peer.CEMOptimizer(5, 0.1, 400, [-2.0] * 30, [2.0] * 30, 0.1, torch.device("cpu"))

    def score(x):
        return -(x - 0.3).square().sum(-1)

    def ours():
        return cem(score, mean, 1.0, 5, 400, 40, 0.1, -2.0, 2.0, generator=generator).best

    assert float(score(ours())) > float(score(mean))
    found = in_turn({"ours": ours, "mbrl-lib": lambda: other.optimize(score, mean)}, calls=20)
    assert found["ours"] < 0.5 * found["mbrl-lib"]
