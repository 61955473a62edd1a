"""Branches of a model: by hand, in closed form, and where they end."""

import pytest
import torch

from common.envs.model_tasks import ModelTask, never
from common.types import UsageError
from hw4_model_based.imagination import any_member, imagine, joined
from tests.hw4.models import LINE, A, line


def add(obs, action):
    return obs + action


def half(obs):
    return obs / 2


def test_branches_by_hand():
    """s' = s + s / 2, the reward is the state reached: 2, 3, 4.5 and -4, -6, -9."""
    branches = imagine(add, LINE, half, torch.tensor([[2.0], [-4.0]]), 2)
    assert branches.obs[..., 0].tolist() == [[2, -4], [3, -6]]
    assert branches.action[..., 0].tolist() == [[1, -2], [1.5, -3]]
    assert branches.reward.tolist() == [[3, -6], [4.5, -9]]
    assert branches.next_obs[..., 0].tolist() == [[3, -6], [4.5, -9]]
    assert branches.alive.all()
    assert not branches.terminated.any()


def test_a_branch_ends_where_the_task_ends():
    """From 2 the state passes 4 in the second step: that step counts as the end, the third does not count."""
    branches = imagine(add, line(limit=4), half, torch.tensor([[2.0], [-4.0]]), 3)
    assert branches.alive.tolist() == [[True, True], [True, True], [False, True]]
    kept = branches.transitions()
    assert kept.next_obs[:, 0].tolist() == [3, -6, 4.5, -9, -13.5]
    assert kept.terminated.tolist() == [False, False, True, False, False]


def test_a_model_that_leaves_the_numbers_ends_its_branch_alone():
    def bad(obs, action):
        return torch.where(obs > 2.5, torch.nan, obs + action)

    alive = ModelTask(lambda obs, action, next_obs: torch.ones_like(obs[..., 0]), never)
    for task in (LINE, alive):
        kept = imagine(bad, task, half, torch.tensor([[2.0], [-4.0]]), 4).transitions()
        assert kept.next_obs[:, 0].tolist() == [3, -6, -9, -13.5, -20.25]
    task = ModelTask(lambda obs, action, next_obs: 1 / (next_obs[..., 0] - 3), never)
    assert len(imagine(add, task, half, torch.tensor([[2.0]]), 4).transitions().reward) == 0


def test_every_step_draws_its_member_anew(generator):
    """s' = a_e s, a = .9, 1, 1.05, ten steps: mean (E a)^10, variance (E a^2)^10 - (E a)^20 = .029263."""

    def predict(obs, action):
        return A[:, None, None] * obs, torch.zeros(3, *obs.shape).double()

    start = torch.ones(100_000, 1).double()
    end = imagine(any_member(predict, generator), LINE, half, start, 10).next_obs[-1]
    assert end.mean().item() == pytest.approx(A.mean().item() ** 10, abs=0.003)
    assert end.var().item() == pytest.approx(0.029263, rel=0.02)


def test_noise_is_that_of_the_member_that_was_drawn(generator):
    """Members at 0 and 100 with deviations 1 and 2."""

    def predict(obs, action):
        mean, std = torch.tensor([0.0, 100.0]), torch.tensor([1.0, 2.0])
        return tuple(x[:, None, None].expand(2, *obs.shape) for x in (mean, std))

    found = any_member(predict, generator)(torch.zeros(20_000, 1), torch.zeros(20_000, 1))
    high = found > 50
    assert high.float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert found[high].std().item() == pytest.approx(2, abs=0.06)
    assert found[~high].std().item() == pytest.approx(1, abs=0.03)


def test_several_worlds_advance_beside_each_other():
    """[E, B, D]: each member its own future, as when each is rolled out alone."""

    def step(obs, action):
        return A[:, None, None] * obs + action

    start = torch.tensor([[1.0], [2.0], [3.0]]).double()
    together = imagine(step, LINE, half, start.expand(3, 3, 1), 4)
    for e, a in enumerate(A):
        alone = imagine(lambda obs, action, a=a: a * obs + action, LINE, half, start, 4)
        torch.testing.assert_close(together.next_obs[:, e], alone.next_obs, rtol=1e-12, atol=0)


def test_no_gradient_flows():
    start = torch.ones(2, 1, requires_grad=True)
    assert not any(x.requires_grad for x in imagine(add, LINE, half, start, 2))


def test_bad_input_is_refused():
    start = torch.ones(2, 1)
    with pytest.raises(UsageError, match="horizon must be at least 1, got 0"):
        imagine(add, LINE, half, start, 0)
    task = ModelTask(lambda obs, action, next_obs: next_obs, never)
    with pytest.raises(UsageError, match=r"reward must be \[2\], got \[2, 1\]"):
        imagine(add, task, half, start, 1)


def test_transitions_are_joined_field_by_field():
    a, b = (imagine(add, LINE, half, torch.full((size, 1), 2.0), 1).transitions() for size in (2, 3))
    both = joined(a, b)
    assert [len(x) for x in both[:5]] == [5] * 5
    assert both.steps == 1
