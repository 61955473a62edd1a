"""Forward view = backward view; the slow sum over the past is the definition."""

import math

import pytest
import torch

from common.types import EnvSpec, UsageError
from hw2_policy_gradient.baselines import scores
from hw2_policy_gradient.policies import Policy
from hw2_policy_gradient.returns import gae
from hw2_policy_gradient.traces import backward_view, eligibility_trace, td_lambda
from tests.helpers import random_rollout
from tests.hw2.enumeration import F64, SmallMDP, T, moments

LAMBDAS = [0.0, 0.6, 1.0]


def rollout(steps: int = 30):
    """Ends here and there, two critics' values and features: reward, V, V', terminated, ended, x."""
    r = random_rollout(EnvSpec(4, 3, 2, True), steps)
    g = torch.Generator().manual_seed(1)
    value, next_value = torch.randn(2, steps, 4, generator=g, **F64)
    return (
        r.reward.double(),
        value,
        next_value,
        r.terminated,
        r.ended,
        torch.randn(steps, 4, 5, generator=g, **F64),
    )


def test_trace_by_hand():
    """x = 1, 2, 3, 4, decay 1/2, an end after row 1: 1, 2.5, 3, 5.5."""
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None]
    ended = torch.tensor([False, True, False, True])[:, None]
    expected = torch.tensor([1.0, 2.5, 3.0, 5.5])[:, None, None]
    torch.testing.assert_close(eligibility_trace(x, ended, 0.5), expected)


@pytest.mark.parametrize("lam", LAMBDAS)
def test_forward_view_equals_backward_view(lam):
    """sum_t A_t x_t = sum_t delta_t e_t over terminations, truncations and the end of the batch."""
    reward, value, next_value, terminated, ended, x = rollout()
    advantage = gae(reward, value, next_value, terminated, ended, 0.9, lam)
    delta = gae(reward, value, next_value, terminated, ended, 0.9, 0.0)
    forward = (advantage[..., None] * x).sum((0, 1))
    torch.testing.assert_close(backward_view(delta, x, ended, 0.9, lam), forward, rtol=1e-12, atol=1e-12)


def test_the_backward_view_of_the_scores_is_the_policy_gradient_with_gae():
    spec = EnvSpec(4, 3, 2, True)
    r, policy = random_rollout(spec, 30), Policy(spec, (8,), 0.0, False, torch.Generator().manual_seed(0))
    _, value, next_value, *_ = rollout()
    value, next_value = value.float(), next_value.float()
    rest = (r.reward, value, next_value, r.terminated, r.ended, 0.99)
    loss = (policy(r.obs).log_prob(r.action) * gae(*rest, 0.95)).sum()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*policy.parameters()])])
    x = scores(policy, r.obs.flatten(0, 1), r.action.flatten()).unflatten(0, r.action.shape)
    got = backward_view(gae(*rest, 0.0), x, r.ended, 0.99, 0.95)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lam", LAMBDAS)
def test_with_the_true_value_every_lambda_is_unbiased(lam):
    """Over every trajectory of a small problem, gamma = 1: the mean is the exact gradient."""
    mdp = SmallMDP()
    value, t = mdp.value(mdp.logits, 1.0), torch.arange(T)[:, None]
    now = value[t, mdp.state]
    after = torch.cat((now[1:], torch.zeros_like(now[:1])))  # nothing is left after the last step
    delta = mdp.reward + after - now
    x, p = mdp.scores(mdp.logits), mdp.probability(mdp.logits)
    each = [backward_view(delta[:, [n]], x[:, [n]], mdp.ended[:, [n]], 1.0, lam) for n in range(len(p))]
    torch.testing.assert_close(moments(p, torch.stack(each))[0], mdp.exact_gradient(mdp.logits, 1.0))


def stream(steps: int, seed: int = 0):
    """A random walk over five states, 1 at the right end, 0 elsewhere: V(k) = (k + 1) / 6."""
    g = torch.Generator().manual_seed(seed)
    state, rows = 2, []
    for right in (torch.rand(steps, generator=g) < 0.5).tolist():
        after = state + (1 if right else -1)
        over = after in (-1, 5)
        rows.append((state, float(after == 5), 0 if over else after, over))
        state = 2 if over else after
    columns = (torch.tensor(column) for column in zip(*rows, strict=True))
    s, reward, s_next, terminated = columns
    return s, reward.double(), s_next, terminated, terminated


def test_one_step_of_td_lambda_by_hand():
    """V = (1, 2), step 0 -> 1 with reward 3, gamma = 1/2: delta = 3 + 1 - 1 = 3, V(0) = 1 + 3/10. Then 1 ends
    with reward 0: delta = -2, e = (1/4, 1) at lam = 1/2: V = (1.3 - 1/20, 2 - 1/5)."""
    state, over = torch.tensor([0, 1]), torch.tensor([False, True])
    v = td_lambda(
        torch.tensor([1.0, 2.0]), state, torch.tensor([3.0, 0.0]), 1 - state, over, over, 0.1, 0.5, 0.5
    )
    torch.testing.assert_close(v, torch.tensor([1.25, 1.8]))


def test_a_time_limit_ends_the_trace_but_keeps_the_value():
    """0 -> 1 cut by a time limit, then 1 -> 0: V(1) counts, V(0) is no longer to blame."""
    state, no = torch.tensor([0, 1]), torch.tensor([False, False])
    cut = torch.tensor([True, False])
    v = td_lambda(torch.tensor([0.0, 8.0]), state, torch.zeros(2), 1 - state, no, cut, 0.5, 1.0, 1.0)
    torch.testing.assert_close(v, torch.tensor([4.0, 6.0]))


@pytest.mark.parametrize("lam", LAMBDAS)
def test_learning_at_every_step_is_the_forward_view_to_first_order(lam):
    """(V_new - V) / step size -> sum_t A_t x_t with an error of the order of the step size."""
    s, reward, s_next, terminated, ended = stream(40)
    value = torch.linspace(0, 1, 5, **F64)
    columns = (reward, value[s], value[s_next], terminated.double(), ended)
    advantage = gae(*(x[:, None] for x in columns), 0.95, lam)
    forward = torch.zeros(5, **F64).index_add(0, s, advantage.flatten())
    errors = []
    for step_size in (1e-3, 1e-4):
        after = td_lambda(value, s, reward, s_next, terminated, ended, step_size, 0.95, lam)
        errors.append(((after - value) / step_size - forward).norm())
    assert 8 < errors[0] / errors[1] < 12
    assert errors[1] < 1e-3 * forward.norm()


@pytest.mark.parametrize("lam", LAMBDAS)
def test_td_lambda_learns_the_random_walk(lam):
    """V(k) = (k + 1) / 6, from 1/2 everywhere, which is wrong by 0.33. Worst state of six seeds: wrong by
    0.054, 0.042 and 0.096 at lam = 0, 0.6 and 1."""
    value = td_lambda(torch.full((5,), 0.5, **F64), *stream(10_000), 0.003, 1.0, lam)
    assert (value - torch.arange(1, 6) / 6).abs().max() < 0.13


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"delta": torch.zeros(3, 1)}, "delta must be"),
        ({"delta": torch.full((3, 2), math.nan)}, "delta must be finite"),
        ({"x": torch.zeros(3, 2)}, "x must be"),
        ({"x": torch.full((3, 2, 4), math.inf)}, "x must be finite"),
        ({"ended": torch.zeros(0, 2), "delta": torch.zeros(0, 2), "x": torch.zeros(0, 2, 4)}, "x must be"),
        ({"gamma": 1.1}, "gamma must lie"),
        ({"lam": math.nan}, "lam must lie"),
    ],
)
def test_bad_input_is_named(change, sentence):
    zero = torch.zeros(3, 2)
    good = {"delta": zero, "x": torch.zeros(3, 2, 4), "ended": zero, "gamma": 0.9, "lam": 0.9}
    backward_view(**good)
    with pytest.raises(UsageError, match=sentence):
        backward_view(**good | change)
    columns = (torch.zeros(3).long(), torch.zeros(3), torch.zeros(3).long(), *torch.zeros(2, 3).bool())
    with pytest.raises(UsageError, match="step_size"):
        td_lambda(torch.zeros(2), *columns, math.nan, 0.9, 0.9)
    with pytest.raises(UsageError, match="value must be finite"):
        td_lambda(torch.full((2,), math.nan), *columns, 0.1, 0.9, 0.9)
    with pytest.raises(UsageError, match="next_state must lie"):
        td_lambda(torch.zeros(2), *columns[:2], columns[2] + 2, *columns[3:], 0.1, 0.9, 0.9)
    with pytest.raises(UsageError, match=r"must be \[T\] all"):
        td_lambda(torch.zeros(2), torch.zeros(2).long(), *columns[1:], 0.1, 0.9, 0.9)
