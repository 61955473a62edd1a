"""The recurrent state-space model: KL, free nats and ELBO against definitions, and what is remembered."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from common.types import UsageError
from hw4_model_based.rssm import RSSM, PlaNet, RSSMConfig, RSSMModelConfig, free, gaussian_kl, moments
from tests.hw4.test_latent_dynamics import SPEC, data, sequences

TINY = RSSMModelConfig(
    latent=3, memory=5, hidden=(16,), dynamics_hidden=(16,), unroll=4, first_updates=60, updates=5
)
CONFIG = RSSMConfig(horizon=2, samples=8, elites=2, iterations=1, model=TINY)


def test_kl_is_that_of_torch(generator):
    mean, other = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    std, other_std = torch.rand(2, 6, 4, generator=generator, dtype=torch.float64) + 0.1
    expected = kl_divergence(Normal(mean, std), Normal(other, other_std)).sum(-1)
    torch.testing.assert_close(gaussian_kl(mean, std, other, other_std), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("nats", "slope"), [(3.0, 0.0), (1.0, 1.0)])
def test_below_the_free_nats_there_is_no_gradient(nats, slope):
    """The mean of the batch counts: 2 nats."""
    kl = torch.tensor([[1.0, 2.0], [3.0, 2.0]], requires_grad=True)
    found = free(kl, nats)
    found.backward()
    assert found.item() == max(nats, 2)
    assert kl.grad.tolist() == [[slope / 4] * 2] * 2


def test_free_nats_leave_the_prior_alone(generator):
    """Where the KL costs nothing, the prior has nothing to learn."""
    for nats, learns in ((1e3, False), (0.0, True)):
        model = RSSM(4, 1, dataclasses.replace(TINY, free_nats=nats), generator)
        model.loss(sequences(generator))[0].backward()
        assert all((p.grad.abs().max() > 0) == learns for p in model.prior_net.parameters())


def test_every_parameter_learns(generator):
    model = RSSM(4, 1, dataclasses.replace(TINY, free_nats=0.0), generator)
    model.loss(sequences(generator))[0].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_loss_is_the_elbo(generator):
    """Step by step, with torch's distributions, the noise drawn again."""
    model = RSSM(4, 1, dataclasses.replace(TINY, free_nats=0.0), generator)
    x = sequences(generator)
    model.draws = torch.Generator().manual_seed(3)
    total, parts = model.loss(x)
    noise = torch.Generator().manual_seed(3)
    h, z, a = torch.zeros(5, 5), torch.zeros(5, 3), torch.zeros(5, 1)
    pixels, kl, reward = [], [], []
    for k in range(4):
        gru_input = torch.nn.functional.silu(model.inputs(torch.cat([z, a], 1)))
        h = model.cell(gru_input, h)
        seen = torch.nn.functional.silu(model.encoder(x.obs[k][:, 2:]))
        q, p = (
            Independent(Normal(*moments(out)), 1)
            for out in (model.posterior_net(torch.cat([h, seen], 1)), model.prior_net(h))
        )
        z = q.mean + q.stddev * torch.randn(5, 3, generator=noise)
        logits = model.decoder(torch.cat([h, z], 1))
        pixels.append(-Bernoulli(logits=logits, validate_args=False).log_prob(x.obs[k][:, 2:]).sum(1))
        kl.append(kl_divergence(q, p))
        if k < 3:
            a = x.action[k]
            reward.append((model.reward_net(torch.cat([h, z], 1))[:, 0] - x.reward[k]).square())
    expected = torch.stack([torch.stack(part).mean() for part in (pixels, kl, reward)])
    torch.testing.assert_close(parts, expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(total, expected @ torch.tensor([1.0, 1.0, 50.0]), rtol=1e-4, atol=1e-4)


def test_planned_steps_are_the_means_of_the_prior(generator):
    model = RSSM(4, 1, TINY, generator)
    s, action = torch.randn(2, 6, 8, generator=generator), torch.randn(2, 6, 1, generator=generator)
    found = model.step(s, action)
    for i in range(2):
        h = model.remember(s[i], action[i])
        torch.testing.assert_close(found[i], torch.cat([h, model.prior(h)[0]], 1))


def test_one_picture_is_seen_and_the_past_remembered(generator):
    model = RSSM(4, 1, TINY, generator)
    s, action, obs = torch.zeros(1, 8), torch.ones(1, 1), torch.rand(1, 4, generator=generator)
    older, newer = obs.clone(), obs.clone()
    older[0, 0] += 0.5
    newer[0, 3] += 0.5
    here = model.filter(s, action, obs)
    torch.testing.assert_close(model.filter(s, action, older), here)
    assert not torch.allclose(model.filter(s, action, newer), here)
    assert not torch.allclose(model.filter(s + 1, action, obs), here)


@pytest.mark.parametrize("replan_every", [1, 2])
def test_belief_is_filtered_at_every_step_and_forgotten_with_the_episode(replan_every, generator):
    agent = PlaNet(SPEC, dataclasses.replace(CONFIG, replan_every=replan_every), 0)
    obs, s, action = torch.rand(4, 2, 4, generator=generator), torch.zeros(2, 8), torch.zeros(2, 1)
    agent.begin(np.ones(2, bool))
    for each in obs:
        with torch.no_grad():
            s = agent.model.filter(s, action, each)
        action = torch.from_numpy(agent.explore(each.numpy(), 0))
        torch.testing.assert_close(agent.belief, s)
    agent.begin(np.array([True, False]))
    assert (agent.belief[0].abs().max(), agent.action[0].item()) == (0, 0)
    torch.testing.assert_close(agent.belief[1], s[1])
    agent.begin(np.ones(1, bool))  # a film has one environment
    assert agent.act(obs[0, :1].numpy()).shape == (1, 1)


def test_a_fit_learns_and_the_seed_decides(generator):
    batch = data(generator)
    one, two = (PlaNet(SPEC, CONFIG, 0) for _ in range(2))
    found = one.update(batch)
    assert found == two.update(batch)
    for _ in range(4):
        after = one.update(batch)
    assert after["loss/pixels"] < found["loss/pixels"]


def test_bad_settings_are_refused():
    with pytest.raises(UsageError, match="free_nats must be at least 0, got -1"):
        RSSMModelConfig(free_nats=-1.0)
    with pytest.raises(UsageError, match="memory must be at least 1, got 0"):
        RSSMModelConfig(memory=0)
