"""One round of DAgger by what is seen, acted and labelled, and the mixture's shares."""

import numpy as np
import pytest

from common.envs import registry
from common.types import UsageError
from hw1_imitation.dagger import DaggerConfig, Mixture, ask
from hw1_imitation.experts import expert as known
from tests.helpers import Counter, vector


def constant(action: int):
    return lambda obs: np.full(len(obs), action)


class Walk(Counter):
    """Moves by the action: 0 or 1."""

    def step(self, action):
        self.t += 1
        self.place += int(action)
        return np.full(1, self.place, np.float32), 0.0, self.t == 6, False, {}

    def reset(self, *, seed=None, options=None):
        self.t = self.place = 0
        return np.zeros(1, np.float32), {}


def parity(obs: np.ndarray) -> np.ndarray:
    return obs[:, 0].astype(np.int64) % 2


def test_the_policy_acts_and_the_expert_labels():
    """The policy walks 0, 1, 2, ...; the expert, which would have stayed at 0, is asked at each of them."""
    data = ask(constant(1), parity, vector(Walk, 1), DaggerConfig(labels=6), i=1, seed=0)
    assert data.obs[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert data.action.tolist() == [0, 1, 0, 1, 0, 1]


def test_beta_of_one_is_cloning_again():
    """The expert acts in every round: only its own states come."""
    data = ask(constant(1), parity, vector(Walk, 1), DaggerConfig(labels=6, beta=1.0), i=3, seed=0)
    assert data.obs.unique().tolist() == [0.0]


def test_labels_are_shared_among_environments():
    """Seven of two environments: four steps each."""
    assert len(ask(constant(1), parity, vector(Walk, 2), DaggerConfig(labels=7), i=1, seed=0)) == 8


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_mixture_follows_the_expert_as_often_as_beta(beta):
    """Within four standard errors of 10,000 draws, and in no fixed pattern."""
    act = Mixture(constant(0), beta, np.random.default_rng(0))
    shares = np.stack([act(np.zeros((100, 1)), np.ones(100)) for _ in range(100)])
    assert abs(shares.mean() - beta) <= 4 * np.sqrt(beta * (1 - beta) / shares.size)
    assert 0 < beta < 1 or shares.std() == 0


def test_mixture_leaves_the_policys_own_array_alone_and_takes_the_experts_rows():
    own = np.zeros((4, 1))
    act = Mixture(lambda obs: own, 0.5, np.random.default_rng(1))
    obs = np.arange(1.0, 5.0)[:, None]
    found = act(obs, obs * 10)
    assert (own == 0).all()
    assert 0 < (found != 0).sum() < 4
    assert ((found == 0) | (found == obs * 10)).all()


def test_help_fades_geometrically():
    """beta = 1/2: in round 3 the expert, which stands still, acts in an eighth of the steps. It is asked
    once in each, or one that remembers would take two for one."""
    config, asked = DaggerConfig(labels=4_000, beta=0.5), []

    def expert(obs):
        asked.append(len(obs))
        return np.zeros(len(obs), np.int64)

    walked = ask(constant(1), expert, vector(Walk, 1), config, i=3, seed=0).obs.numpy()[:, 0]
    assert asked == [1] * 4_000
    inside = np.arange(4_000) % 6 < 5  # the sixth step ends the episode
    helped = (np.diff(walked, append=0.0)[inside] == 0).sum()
    n = inside.sum()
    assert abs(helped - n / 8) < 4 * np.sqrt(n / 8 * 7 / 8)


def test_an_expert_that_remembers_helps_as_well_as_it_plays():
    """beta = 1: it plays alone. Asked twice a step it would see a pole without velocity, and let it fall."""
    envs, config = registry.make_envs("course/CartPoleNoVelocity-v0", 4), DaggerConfig(labels=1_200, beta=1.0)
    data = ask(constant(1), known("course/CartPoleNoVelocity-v0"), envs, config, i=1, seed=0)
    assert data.length.tolist() == [300] * 4


def test_rounds_differ_and_repeat_with_their_seed():
    """Each round has chance of its own, and a resumed run finds the same."""
    config = DaggerConfig(labels=50, beta=0.9)
    a, b, c = (
        ask(constant(1), parity, vector(Walk, 1), config, i, seed=0).obs[:, 0].tolist() for i in (2, 2, 3)
    )
    assert a == b
    assert a != c


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"beta": 1.5}, r"beta must lie in \[0, 1\]"), ({"labels": 0}, "labels must be at least 1, got 0")],
)
def test_bad_settings_are_named(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        DaggerConfig(**settings)
