import numpy as np
import pytest
import torch

from common.normalizer import ObsNormalizer, RewardScaler, RunningMoments


def test_batches_give_the_moments_of_all_data(generator):
    x = 3 + 2 * torch.randn(100, 4, 5, generator=generator, dtype=torch.float64)
    moments = RunningMoments(5)
    for batch in x.split([1, 30, 2, 67]):
        moments.update(batch)
    flat = x.reshape(-1, 5).numpy()
    np.testing.assert_allclose(moments.mean, flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.var, flat.var(0), rtol=1e-12)
    assert moments.count == 400


def test_large_offset_does_not_cancel():
    moments = RunningMoments(1)
    for x in (1e8 + torch.arange(10.0, dtype=torch.float64)).split(3):
        moments.update(x[:, None])
    assert moments.var.item() == pytest.approx(8.25, rel=1e-6)


def test_normalised_observations_and_their_limit(generator):
    normalize = ObsNormalizer(2)
    x = torch.tensor([5.0, -1.0]) + torch.tensor([0.1, 30.0]) * torch.randn(5000, 2, generator=generator)
    assert torch.equal(normalize(x[:3]), x[:3].clamp(-10, 10))  # nothing seen yet: as observed
    normalize.update(x)
    y = normalize(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(y.std(0), torch.ones(2), atol=1e-3, rtol=0)
    assert normalize(torch.tensor([1e9, 0.0]))[0] == 10


def test_every_dimension_has_its_own_scale():
    normalize = ObsNormalizer(2)
    normalize.update(torch.tensor([[0.0, 0.0], [2.0, 200.0]]))
    torch.testing.assert_close(normalize(torch.tensor([2.0, 200.0])), torch.ones(2))


def test_reward_trace_by_hand():
    """Column 0 goes on, column 1 ends after the first row: traces 1, 1 + .5 and 1, 1."""
    scale = RewardScaler(2, gamma=0.5)
    ended = torch.tensor([[False, True], [False, False]])
    scaled = scale(torch.ones(2, 2), ended)
    assert scale.trace.tolist() == [1.5, 1.0]
    std = np.std([1, 1.5, 1, 1])
    torch.testing.assert_close(scaled, torch.full((2, 2), 1 / std))


def test_reward_keeps_its_sign_and_zero():
    """Scaled, not centred: centring would pay an agent for staying alive or for dying."""
    scale = RewardScaler(1, gamma=0.9)
    reward = torch.tensor([[0.0], [5.0], [-1.0], [3.0]])
    scaled = scale(reward, torch.zeros(4, 1, dtype=torch.bool))
    assert torch.equal(scaled.sign(), reward.sign())


def test_statistics_are_part_of_the_state():
    one, two = RewardScaler(2, 0.9), RewardScaler(2, 0.9)
    one(torch.rand(5, 2), torch.zeros(5, 2, dtype=torch.bool))
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.trace, two.trace)
    assert torch.equal(one.var, two.var)


def test_a_batch_and_its_mean_and_variance_are_the_same(generator):
    x = 3 + 2 * torch.randn(2, 40, 3, generator=generator, dtype=torch.float64)
    whole, merged = RunningMoments(3), RunningMoments(3)
    for batch in x:
        whole.update(batch)
        merged.merge(len(batch), batch.mean(0).numpy(), batch.var(0, correction=0))
    assert all(map(torch.equal, whole.buffers(), merged.buffers()))
