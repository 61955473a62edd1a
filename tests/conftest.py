import os

import pytest
import torch

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame on machines without a display
os.environ["OMP_NUM_THREADS"] = "1"  # for child processes


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
