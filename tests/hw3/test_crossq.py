"""CrossQ: batch renormalisation in its limits, one pass of both batches, no target network."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from common import checkpoint
from common.types import UsageError
from hw3_q_learning.crossq import EPSILON, BatchRenorm, Critics, CrossQ, CrossQConfig, renormalization
from hw3_q_learning.sac import soft_value
from tests.helpers import CPU
from tests.hw3.batches import CONTINUOUS, DISCRETE, noise, self_loop
from tests.hw3.test_sac import same, snapshot

SMALL = CrossQConfig(hidden=(16,), critic_hidden=(16,))


def agent(seed: int = 0, **options) -> CrossQ:
    return CrossQ(CONTINUOUS, dataclasses.replace(SMALL, **options), 1000, CPU, seed)


def norm(momentum: float = 0.1, warmup: int = 0, **limits) -> BatchRenorm:
    """With scale and bias that show."""
    made = BatchRenorm(4, momentum=momentum, warmup=warmup, **limits)
    made.scale.data.uniform_(0.5, 2, generator=torch.Generator().manual_seed(1))
    made.bias.data.uniform_(-1, 1, generator=torch.Generator().manual_seed(2))
    return made


def norms(net: torch.nn.Module) -> list[BatchRenorm]:
    return [layer for layer in net.modules() if isinstance(layer, BatchRenorm)]


def data(generator, size: int = 32) -> torch.Tensor:
    return 3 * torch.randn(size, 4, generator=generator) + 2


def test_before_the_end_of_the_warmup_it_is_batch_normalisation(generator):
    """PyTorch's, in value and in gradient."""
    made, x = norm(warmup=10**9), data(generator).requires_grad_()
    expected = F.batch_norm(x, None, None, made.scale, made.bias, training=True, eps=EPSILON)
    weight = torch.randn(32, 4, generator=generator)
    out = made(x)
    torch.testing.assert_close(out, expected)
    leaves = (x, made.scale, made.bias)
    grads = [torch.autograd.grad((y * weight).sum(), leaves) for y in (out, expected)]
    for got, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_at_limits_one_and_zero_it_is_batch_normalisation(generator):
    x = data(generator)
    torch.testing.assert_close(norm(r_max=1.0, d_max=0.0)(x), norm(warmup=10**9)(x))


def test_without_limits_it_normalises_by_the_running_moments(generator):
    """The value in training is that in evaluation; only the gradient is the batch's."""
    made, x = norm(r_max=1e9, d_max=1e9), data(generator)
    made.mean.fill_(1.5), made.var.fill_(7.0)
    evaluated = made.eval()(x)
    torch.testing.assert_close(made.train()(x), evaluated, rtol=1e-4, atol=1e-5)
    expected = (x - 1.5) * (7 + EPSILON) ** -0.5 * made.scale + made.bias
    torch.testing.assert_close(evaluated, expected)


def test_corrections_are_limited_and_carry_no_gradient():
    moments = (torch.tensor(x) for x in ([5.0, 0.0, 1.0], [8.0, 0.1, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]))
    r, d = renormalization(*moments, r_max=3.0, d_max=2.0)
    assert r.tolist() == pytest.approx([3, 1 / 3, 1])
    assert d.tolist() == pytest.approx([2, 0, 1])
    made, x = norm(), data(torch.Generator().manual_seed(0)).requires_grad_()
    made(x).sum().backward()  # the sum of a normalised batch does not depend on it
    torch.testing.assert_close(x.grad, torch.zeros_like(x), atol=1e-5, rtol=0)


def test_running_moments_approach_those_of_the_data(generator):
    made = norm(momentum=0.5)
    x = data(generator)
    for _ in range(30):
        made(x)
    torch.testing.assert_close(made.mean, x.mean(0))
    torch.testing.assert_close(made.var, x.var(0))
    before = made.mean.clone()
    made.eval()(x + 5)
    assert torch.equal(made.mean, before)


def test_members_have_moments_of_their_own(generator):
    net = Critics(2, 4, 8, 1, generator=generator, momentum=0.1, warmup=10)
    x = torch.randn(16, 4, generator=generator)
    assert net(x).shape == (2, 16, 1)
    first, second = (norms(member)[1].mean for member in net.members)
    assert first.shape == (8,)
    assert not torch.allclose(first, second)


def test_both_batches_are_normalised_together():
    """Moments after the pass are those of (s, a) and (s', a') joined, and y has no gradient."""
    made, batch = agent(momentum=1.0), noise(CONTINUOUS)
    q, y = made.joint(batch)
    joined = torch.cat((batch.obs, batch.next_obs)).mean(0)
    for member in made.critic.members:
        torch.testing.assert_close(norms(member)[0].mean[:3], joined)
    assert q.shape == (2, 32)
    assert q.requires_grad
    assert not y.requires_grad
    ended = batch._replace(terminated=torch.ones(32, dtype=torch.bool))
    torch.testing.assert_close(made.joint(ended)[1], batch.reward)


def test_target_is_sacs_with_the_critic_itself():
    """Normalisation fixed to its running moments (unlimited, momentum 0), joint and separate passes agree."""
    made, batch = agent(momentum=0.0, warmup=0), noise(CONTINUOUS)
    for layer in norms(made.critic):
        layer.r_max = layer.d_max = 1e9
    state = made.generator.get_state()
    _, y = made.joint(batch)
    made.generator.set_state(state)
    with torch.no_grad():
        action, log_prob = made.sample(batch.next_obs)
        v = soft_value(made.q(made.critic, batch.next_obs, action), log_prob, made.temperature())
    torch.testing.assert_close(y, batch.reward + 0.99 * v * ~batch.terminated, rtol=1e-3, atol=1e-3)


def test_actor_moves_every_third_step_and_acting_leaves_moments_alone():
    made = agent()
    for k in range(6):
        before = snapshot(made.actor)
        made.update(noise(CONTINUOUS, seed=k))
        assert same(before, snapshot(made.actor)) is (k % 3 != 0)
    moments = norms(made.actor)[0].mean.clone()
    made.act(noise(CONTINUOUS).obs.numpy())
    made.explore(noise(CONTINUOUS).obs.numpy(), 0)
    assert torch.equal(norms(made.actor)[0].mean, moments)


def test_value_of_the_state_that_never_ends():
    """Of noise as states and actions, so that there is something to normalise: 1 / (1 - gamma) = 5."""
    made = agent(gamma=0.8, lr=0.01, alpha=1e-9, learn_alpha=False, momentum=0.1)
    for k in range(200):
        batch = noise(CONTINUOUS, seed=k)
        ones = torch.ones(32)
        made.update(batch._replace(reward=ones, terminated=ones < 0))
    q = made.q(made.critic, batch.obs, batch.action).detach()
    assert q.mean().item() == pytest.approx(5, rel=0.1)


def test_a_batch_without_variance_does_no_harm():
    made = agent()
    made.update(self_loop(CONTINUOUS))
    assert all(torch.isfinite(p).all() for p in snapshot(made.actor, made.critic))


def test_a_saved_agent_goes_on_as_it_was(tmp_path):
    """Running moments and the count of passes included: the warm-up ends between the two."""
    made, other = agent(seed=0, warmup=4), agent(seed=1, warmup=4)
    for k in range(3):
        made.update(noise(CONTINUOUS, seed=k))
    checkpoint.save(tmp_path, 0, agent=checkpoint.state_of(made))
    checkpoint.restore(other, checkpoint.load_latest(tmp_path)["agent"])
    for k in range(3):
        for each in (made, other):
            each.update(noise(CONTINUOUS, seed=10 + k))
    assert same(*(snapshot(each.actor, each.critic, each.temperature) for each in (made, other)))


def test_bad_input_is_named():
    with pytest.raises(UsageError, match="momentum must lie in"):
        CrossQConfig(momentum=1.5)
    with pytest.raises(UsageError, match=r"critic_hidden must lie in \[1, 4096\], got \(0,\)"):
        CrossQConfig(critic_hidden=(0,))
    with pytest.raises(UsageError, match="continuous actions for CrossQ"):
        CrossQ(DISCRETE, SMALL, 1, CPU, seed=0)
