"""Where no data were one network stays sure of itself; an ensemble and a Bayesian network do not."""

import pytest
import torch

from common.types import UsageError
from hw4_model_based import uncertainty
from hw4_model_based.bayesian_network import BayesianConfig
from hw4_model_based.uncertainty import NOISE, beliefs, calibration, coverage, on_data, ratios, world


@pytest.fixture(scope="module")
def found():
    return beliefs(seed=0)


def test_disagreement_grows_off_the_data_where_one_networks_entropy_hardly_does(found):
    """Seeds 0, 1, 2: off the data the ensemble's disagreement is 41, 24 and 21 times as large, the Bayesian
    network's 3.5, 2.1 and 3.4 times, one network's standard deviation 1.2, 1.4 and 0.95 times."""
    one, many, bayesian = ratios(found)
    assert many > 10
    assert many > 3 * one
    assert bayesian > 1.5 * one


def test_coverage_counts_what_lies_within_one_and_two_deviations():
    """Two members at -1 and 1, each with variance 3: together a deviation of 2 around 0."""
    mean = torch.tensor([-1.0, 1.0])[:, None, None].expand(2, 4, 1)
    target = torch.tensor([[0.0], [-1.9], [3.9], [4.1]])
    assert coverage(mean, torch.full_like(mean, 3**0.5), target) == (0.5, 0.75)
    with pytest.raises(UsageError, match=r"target must be \[4, 1\] and not empty, got \[4\]"):
        coverage(mean, mean.abs(), target[:, 0])


def test_an_ensemble_is_calibrated_on_new_data():
    """68.27 and 95.45 % of 2,000 new data, to 3 sqrt(p (1 - p) / n) and 2 % more for the fit. Seeds 0 to 4:
    69.4 to 71.4 and 95.8 to 96.9 %; the noise differs sevenfold over the states."""
    for share, p in zip(calibration(seed=0), (0.6827, 0.9545), strict=True):
        assert share == pytest.approx(p, abs=3 * (p * (1 - p) / 2000) ** 0.5 + 0.02)


def test_on_the_data_the_members_agree_about_the_noise(found):
    on = on_data(found.obs)
    assert found.noise[on].median() == pytest.approx(NOISE, rel=0.4)
    assert found.disagreement[on].median() < NOISE / 2


def test_the_world_has_a_gap(generator):
    obs, _, _ = world(5000, generator)
    assert on_data(obs).all()
    assert ((obs < -1).float().mean() - 0.4).abs() < 0.03


def test_the_same_seed_believes_the_same(monkeypatch):
    monkeypatch.setattr(uncertainty, "BAYES", BayesianConfig(epochs=5))
    first, again, other = (beliefs(seed, size=20, points=9) for seed in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert not torch.equal(first.mean, other.mean)
