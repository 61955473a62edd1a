"""Trajectory sampling: moments in closed form, who predicts whom, and the settings."""

import numpy as np
import pytest
import torch

from common.types import EnvSpec, UsageError
from hw4_model_based.dynamics import DynamicsConfig
from hw4_model_based.pets import PETS, PETSConfig, trajectory_sampling
from tests.hw4.models import LINE, A


def linear(std=0.0):
    """s' ~ N(a_e s + u, std^2) of three members."""

    def predict(state, action):
        mean = A[:, None, None] * state + action
        return mean, torch.full_like(mean, std)

    return predict


def propagate(anew, generator, steps=10, std=0.0, particles=199_998):
    step, state = trajectory_sampling(linear(std), 3, anew, generator), torch.ones(particles, 1, 1).double()
    for _ in range(steps):
        state = step(state, torch.zeros(1, 1).double())
    return state[:, 0, 0]


def test_members_that_change_average_and_members_that_stay_do_not(generator):
    """a in {0.9, 1, 1.05}, ten steps from 1: (E a)^T and (E a^2)^T of TS1, E a^T and E a^2T of TSinf;
    the variances .029263 and .273187 differ by a factor of nine."""
    ts1, tsinf = propagate(True, generator), propagate(False, generator)
    assert ts1.mean().item() == pytest.approx(A.mean().item() ** 10, rel=0.005)
    assert ts1.var().item() == pytest.approx(0.029263, rel=0.015)
    assert tsinf.mean().item() == pytest.approx((A**10).mean().item(), rel=1e-12)
    assert tsinf.var(correction=0).item() == pytest.approx(0.273187, abs=1e-6)


def test_noise_adds_up_along_a_rollout(generator):
    """With a = 1 the variance after T steps is T sigma^2, and that of TSinf holds it within each member."""
    stays = propagate(False, generator, steps=5, std=0.2)[66_666:133_332]
    assert stays.mean().item() == pytest.approx(1, abs=5 * (0.2 / 66_666) ** 0.5)
    assert stays.var().item() == pytest.approx(5 * 0.04, rel=0.03)


def test_particles_keep_their_place_when_they_are_dealt_anew(generator):
    """Particle p stays at row p: its reward so far belongs to it."""

    def predict(state, action):
        return state + action, torch.zeros_like(state)

    step = trajectory_sampling(predict, 2, True, generator)
    state = torch.arange(24.0).view(6, 4, 1)
    torch.testing.assert_close(step(state, torch.full((4, 1), 0.5)), state + 0.5)


def test_each_plan_has_its_own_actions(generator):
    step = trajectory_sampling(linear(), 3, False, generator)
    action = torch.tensor([[0.1], [0.2]]).double()
    found = step(torch.zeros(6, 2, 1).double(), action)
    torch.testing.assert_close(found, action.expand(6, 2, 1))
    a = step(torch.ones(6, 2, 1).double(), torch.zeros(2, 1).double())
    assert a[:, 0, 0].tolist() == pytest.approx([0.9, 0.9, 1.0, 1.0, 1.05, 1.05])


@pytest.mark.parametrize("propagation", ["ts1", "tsinf"])
def test_an_agent_deals_all_its_particles_as_it_is_told(propagation, monkeypatch):
    """Member e leads to the state e: then it sees e alone, or both states where particles are dealt anew."""
    model = DynamicsConfig(members=2, elites=2, hidden=(4,))
    settings = {"horizon": 2, "samples": 3, "elites": 2, "iterations": 1, "model": model}
    config = PETSConfig(particles=20, propagation=propagation, **settings)
    agent, seen = PETS(EnvSpec(1, 1, 1, False), LINE, config, 0), []

    def predict(state, action):
        seen.append(state)
        return torch.arange(2.0)[:, None, None].expand_as(state), torch.zeros_like(state)

    monkeypatch.setattr(agent.model, "predict", predict)
    agent.act(np.zeros((1, 1)))
    assert [x.shape for x in seen] == [(2, 10 * 3, 1)] * 2
    found = [x.unique().tolist() for x in seen[1]]
    assert found == ([[0, 1], [0, 1]] if propagation == "ts1" else [[0], [1]])


def test_particles_must_be_spread_evenly():
    with pytest.raises(UsageError, match="particles must be a multiple of the model's elites = 5, got 7"):
        PETSConfig(particles=7)
    assert PETSConfig(particles=7, model=DynamicsConfig(elites=1)).particles == 7
