import numpy as np
import pytest
import torch

from common.types import EnvSpec
from hw2_policy_gradient.policies import Policy

DISCRETE, CONTINUOUS = EnvSpec(2, 3, 4, True), EnvSpec(2, 3, 2, False)


def policy(spec, normalize_obs=False):
    return Policy(spec, (8,), -0.5, normalize_obs, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("spec", "shape", "kind"), [(DISCRETE, (5,), np.int64), (CONTINUOUS, (5, 2), np.float32)]
)
def test_actions_have_the_shape_and_type_the_environment_takes(spec, shape, kind, generator):
    obs = np.random.default_rng(0).normal(size=(5, 3))  # float64, as MuJoCo gives
    for actions in (policy(spec).act(obs), policy(spec).act(obs, generator)):
        assert (actions.shape, actions.dtype) == (shape, kind)


def test_mode_repeats_and_samples_vary(generator):
    pi, obs = policy(CONTINUOUS), np.ones((5, 3))
    np.testing.assert_array_equal(pi.act(obs), pi.act(obs))
    assert not np.array_equal(pi.act(obs, generator), pi.act(obs, generator))


def test_starts_without_preference():
    obs = torch.randn(100, 3, generator=torch.Generator().manual_seed(1))
    assert (policy(DISCRETE)(obs).log_p.exp() - 0.25).abs().max() < 0.02
    pi = policy(CONTINUOUS)(obs)
    assert pi.mean.abs().max() < 0.1
    assert pi.log_std.tolist() == [-0.5, -0.5]


def test_acting_normalises_with_the_statistics_it_carries():
    pi = policy(CONTINUOUS, normalize_obs=True)
    pi.normalize.update(torch.tensor([[0.0, 0.0, 0.0], [2.0, 4.0, 8.0]]))
    expected = pi(torch.ones(1, 3)).mode().detach().numpy()
    np.testing.assert_allclose(pi.act(np.array([[2.0, 4.0, 8.0]])), expected, rtol=1e-6)
    copy = policy(CONTINUOUS, normalize_obs=True)
    copy.load_state_dict(pi.state_dict())  # saved with the policy
    np.testing.assert_array_equal(copy.act(np.full((1, 3), 3.0)), pi.act(np.full((1, 3), 3.0)))
