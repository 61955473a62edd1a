"""Where no data were one network stays sure of itself; an ensemble does not."""

import pytest
import torch

from hw4_model_based.uncertainty import NOISE, beliefs, on_data, ratios, world


@pytest.fixture(scope="module")
def found():
    return beliefs(seed=0)


def test_disagreement_grows_off_the_data_where_one_networks_entropy_hardly_does(found):
    """Seeds 0, 1, 2: the disagreement is 25, 19 and 30 times as large off the data, one network's standard
    deviation 4, 3 and 1.4 times; the noise it reports on the data is 0.120, 0.106 and 0.113."""
    one, many = ratios(found)
    assert many > 3 * one
    assert many > 10


def test_on_the_data_the_members_agree_about_the_noise(found):
    on = on_data(found.obs)
    assert found.noise[on].median() == pytest.approx(NOISE, rel=0.4)
    assert found.disagreement[on].median() < NOISE / 2


def test_the_world_has_a_gap(generator):
    obs, _, _ = world(5000, generator)
    assert on_data(obs).all()
    assert ((obs < -1).float().mean() - 0.4).abs() < 0.03


def test_the_same_seed_believes_the_same():
    first, again, other = (beliefs(seed, size=20, points=9) for seed in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert not torch.equal(first.mean, other.mean)
