"""Value iteration on sparse problems of up to a million states; seconds of processor time, one thread.

python -m pytest -m bench -n 0 -s tests/benchmarks/test_dynamic_programming_speed.py
"""

import json
import subprocess
import sys

import pytest

from tests.helpers import ROOT

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

# A slippery lake of side x side as FrozenLake's: a third each of the way chosen and its two neighbours, -1 a
# step, the corner is the end. 12 transitions per state.
CODE = """
import json, resource, sys, time
import numpy as np
from scipy import sparse
from hw3_q_learning.dynamic_programming import action_values, value_iteration

side = int(sys.argv[1])
S = side * side
row, column = divmod(np.arange(S), side)
moves = ((0, -1), (1, 0), (0, 1), (-1, 0))
to = [(row + r).clip(0, side - 1) * side + (column + c).clip(0, side - 1) for r, c in moves]
successors = np.stack([np.stack([to[a - 1], to[a], to[(a + 1) % 4]], -1) for a in range(4)], 1)
successors[-1] = S - 1
starts = np.arange(0, 12 * S + 1, 3, dtype=np.int32)
data = (np.full(12 * S, 1 / 3), successors.ravel().astype(np.int32), starts)
P, R = sparse.csr_array(data, (4 * S, S)), np.full((S, 4), -1.0)
R[-1] = 0
start = time.process_time()
V, _ = value_iteration(P, R, 0.9, 1e-8)
seconds = time.process_time() - start
residual = np.abs(action_values(P, R, V, 0.9).max(1) - V).max()
megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([seconds, megabytes, residual]))
"""


def solve(side: int) -> tuple[float, float, float]:
    """(seconds, megabytes, residual)"""
    command = [sys.executable, "-c", CODE, str(side)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return tuple(json.loads(result.stdout))


def test_a_million_states_cost_what_a_hundred_times_ten_thousand_do():
    found = {side: solve(side) for side in (100, 316, 1000)}
    for side, (seconds, megabytes, residual) in found.items():
        print(f"\n{side**2:,} states: {seconds:.2f} s, {megabytes:.0f} MB, residual {residual:.1e}")
        assert residual < 1e-8
    assert found[1000][0] / found[100][0] < 300  # 100, and what leaves the cache
    assert found[1000][0] < 60
    assert found[1000][1] < 1000
