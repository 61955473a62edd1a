"""Imagined transitions: where they begin, whose they are, how many there are of them."""

import pytest
import torch

from common.envs.model_tasks import model_task
from common.replay import Batch
from common.types import EnvSpec, UsageError
from hw3_q_learning.sac import SAC, SACConfig
from hw4_model_based.dynamics import DynamicsConfig
from hw4_model_based.mbpo import MBPO, MBPOConfig, horizon_at
from tests.helpers import CPU

SPEC = EnvSpec(num_envs=1, obs_dim=4, action_dim=1, discrete=False)
TASK = model_task("InvertedPendulum-v5")
SMALL = DynamicsConfig(members=2, elites=2, hidden=(8,), max_epochs=2)


def some_data(size: int = 40) -> Batch:
    """Upright pendulums, marked by reward 7."""
    g = torch.Generator().manual_seed(3)
    obs, next_obs = 0.1 * torch.randn(2, size, 4, generator=g).clamp(-1, 1)
    action = 2 * torch.rand(size, 1, generator=g) - 1
    return Batch(obs, action, torch.full((size,), 7.0), next_obs, torch.zeros(size, dtype=torch.bool))


def sac() -> SAC:
    return SAC(SPEC, SACConfig(hidden=(8,)), 10, CPU, seed=0)


def made(**settings) -> MBPO:
    return MBPO(SPEC, TASK, MBPOConfig(model=SMALL, **settings), seed=0)


def tilts(obs, action):
    """A world of two members without noise: the angle grows by 0.05 and by 0.05 + 0.01 a."""
    one = obs + torch.tensor([0, 0.05, 0, 0])
    two = one + 0.01 * action * torch.tensor([0, 1.0, 0, 0])
    return torch.stack([one, two]), torch.zeros(2, *obs.shape)


def imagined(mbpo: MBPO) -> Batch:
    return Batch(*(x[: len(mbpo.imagined)] for x in mbpo.imagined.memory[:5]))


def test_branches_begin_at_real_states_and_follow_the_model(monkeypatch):
    data, mbpo = some_data(), made(branches=200)
    monkeypatch.setattr(mbpo.model, "predict", tilts)
    metrics = mbpo.branch(data.obs, sac())
    found = imagined(mbpo)
    assert len(found.reward) == 200
    assert metrics["model/horizon"] == 1
    rows = {tuple(row) for row in data.obs.tolist()}
    assert {tuple(row) for row in found.obs.tolist()} <= rows
    assert len(found.obs.unique(dim=0)) > 35  # of 40
    change = (found.next_obs - found.obs)[:, 1] - 0.05
    first = change.abs() < 1e-6
    assert 60 < first.sum() < 140
    torch.testing.assert_close(change[~first], 0.01 * found.action[~first, 0], atol=1e-6, rtol=0)


def test_branches_are_as_noisy_as_the_model(monkeypatch):
    """s' ~ N(s, 0.03^2): 8,000 numbers, whose deviation is known to 0.8 %."""
    mbpo = made(branches=2_000)

    def predict(obs, action):
        return obs.expand(2, -1, -1), torch.full((2, *obs.shape), 0.03)

    monkeypatch.setattr(mbpo.model, "predict", predict)
    mbpo.branch(some_data().obs, sac())
    found = imagined(mbpo)
    assert (found.next_obs - found.obs).std().item() == pytest.approx(0.03, rel=0.03)


def test_a_fall_ends_the_branch_and_earns_nothing(monkeypatch):
    """0.05 to 0.06 a step: after at most six steps every pendulum has fallen, 0.2 is the limit."""
    mbpo = made(branches=100, horizon=10, final_horizon=10)
    monkeypatch.setattr(mbpo.model, "predict", tilts)
    metrics = mbpo.branch(some_data().obs * 0.5, sac())
    found = imagined(mbpo)
    assert metrics["model/terminated"] == 1
    assert found.terminated.sum() == 100
    assert torch.equal(found.terminated, found.next_obs[:, 1].abs() > 0.2)
    assert torch.equal(found.reward, found.terminated.logical_not().float())
    assert (found.obs[:, 1].abs() <= 0.2).all()


def test_actions_are_those_of_the_behaviour_policy(monkeypatch):
    """What the agent would explore with, at the number of steps that were made."""
    learner, mbpo, seen = sac(), made(branches=9), []
    monkeypatch.setattr(mbpo.model, "predict", tilts)

    def explore(obs, step):
        seen.append((obs.shape, step))
        return 0.25 + 0 * obs[:, :1]

    monkeypatch.setattr(learner, "explore", explore)
    mbpo.branch(some_data().obs, learner)
    assert seen == [((9, 4), 40)]
    assert (imagined(mbpo).action == 0.25).all()


@pytest.mark.parametrize(("ratio", "real"), [(0.0, 0), (0.05, 2), (0.5, 20), (0.99, 40)])
def test_a_share_of_each_batch_is_real(ratio, real):
    mbpo, data = made(real_ratio=ratio), some_data()
    mbpo.fit(data, sac())
    batch = mbpo.augment(data, sac())
    assert len(batch.reward) == 40
    assert (batch.reward == 7).sum() == real
    assert torch.equal(batch.obs[:real], data.obs[:real])


def test_real_batches_alone_need_no_model():
    mbpo, data = made(real_ratio=1.0), some_data()
    before = mbpo.fits.get_state()
    assert mbpo.fit(data, sac()) == {}
    assert mbpo.augment(data, sac()) is data
    assert torch.equal(mbpo.fits.get_state(), before)
    assert len(mbpo.imagined) == 0


def test_the_oldest_imagined_transitions_make_room(monkeypatch):
    mbpo = made(branches=30, capacity=50)
    monkeypatch.setattr(mbpo.model, "predict", tilts)
    for _ in range(3):
        mbpo.branch(some_data().obs, sac())
    assert len(mbpo.imagined) == 50


def test_horizon_grows_as_in_the_paper():
    """Hopper's of Janner et al. 2019: 1 to 15 steps between epochs 20 and 150 of 1000 steps."""
    config = MBPOConfig(horizon=1, final_horizon=15, grow_from=20_000, grow_until=150_000)
    steps = (0, 20_000, 29_000, 29_300, 85_000, 149_000, 150_000, 400_000)
    assert [horizon_at(step, config) for step in steps] == [1, 1, 1, 2, 8, 14, 15, 15]
    assert horizon_at(5_000, MBPOConfig(horizon=4, final_horizon=4)) == 4


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"real_ratio": 1.5}, r"real_ratio must lie in \[0, 1\], got 1.5"),
        ({"real_ratio": float("nan")}, "real_ratio must lie in"),
        ({"branches": 0}, "branches must be at least 1, got 0"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"horizon": 3}, "final_horizon must be at least horizon = 3, got 1"),
        ({"grow_from": 5}, "grow_until must be above grow_from = 5, got 1"),
        ({"capacity": 0}, "capacity must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        MBPOConfig(**settings)


def test_discrete_actions_are_refused():
    with pytest.raises(UsageError, match="env_id must have continuous actions for MBPO"):
        MBPO(SPEC._replace(discrete=True), TASK, MBPOConfig(), 0)
