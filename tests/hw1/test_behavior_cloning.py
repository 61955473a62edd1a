"""The three losses by hand, and the maximum of a likelihood that is known."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from common.checkpoint import restore, state_of
from common.types import EnvSpec, UsageError
from hw1_imitation.behavior_cloning import (
    MIN_LOG_STD,
    BCConfig,
    BehaviorCloning,
    categorical_nll,
    gaussian_nll,
    linear_gaussian_mle,
    squared_error,
)
from tests.helpers import CPU

SPEC = EnvSpec(1, 3, 2, False)


def data(rows: int = 40, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A linear expert with noise of its own size in each entry, float64."""
    g = torch.Generator().manual_seed(seed)
    obs = torch.randn(rows, 3, generator=g, dtype=torch.float64)
    noise = torch.randn(rows, 2, generator=g, dtype=torch.float64) * torch.tensor([0.1, 2.0])
    return obs, obs @ torch.tensor([[1.0, 0], [-2, 0.5], [0, 3]], dtype=torch.float64) + 0.7 + noise


def test_losses_by_hand():
    """|(1, 2)|^2 and 0, mean 5/2; -log N = 1/2 + log 2 + log 3 + log 2 pi; -log 3/4."""
    action = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    assert squared_error(torch.zeros(2, 2), action).item() == 2.5
    log_std = torch.tensor([2.0, 3.0]).log()
    nll = gaussian_nll(torch.zeros(1, 2), log_std, torch.tensor([[2.0, 0.0]]))
    assert nll.item() == pytest.approx(0.5 + math.log(6) + math.log(2 * math.pi))
    logits = torch.tensor([[math.log(3.0), 0.0]])
    assert categorical_nll(logits, torch.tensor([0])).item() == pytest.approx(math.log(4 / 3))


def test_squared_error_is_the_gaussian_of_unit_variance():
    """But for a factor of 2 and a constant: the gradients are the same."""
    mean, action = torch.randn(5, 2, dtype=torch.float64).requires_grad_(), torch.randn(5, 2).double()
    (a,) = torch.autograd.grad(squared_error(mean, action) / 2, mean)
    (b,) = torch.autograd.grad(gaussian_nll(mean, torch.zeros(2).double(), action), mean)
    assert torch.allclose(a, b, atol=1e-14)


@pytest.mark.parametrize("loss", ["squared", "gaussian"])
def test_the_likeliest_linear_gaussian_policy_is_least_squares(loss):
    """Climbed by L-BFGS from zero, to 1e-6; sigma is the residuals' root mean square."""
    obs, action = data()
    W, b, sigma = linear_gaussian_mle(obs, action)
    policy, log_std = nn.Linear(3, 2).double(), torch.zeros(2, dtype=torch.float64, requires_grad=True)
    nn.init.zeros_(policy.weight)
    optimizer = torch.optim.LBFGS(
        [*policy.parameters(), log_std], max_iter=300, tolerance_grad=1e-10, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        mean = policy(obs)
        value = squared_error(mean, action) if loss == "squared" else gaussian_nll(mean, log_std, action)
        value.backward()
        return value

    optimizer.step(closure)
    assert torch.allclose(policy.weight, W, atol=1e-6)
    assert torch.allclose(policy.bias, b, atol=1e-6)
    if loss == "gaussian":
        assert torch.allclose(log_std.exp(), sigma, atol=1e-6)


def test_least_squares_agrees_with_numpy_and_survives_a_constant_column():
    obs, action = data()
    W, b, sigma = linear_gaussian_mle(obs, action)
    design = np.c_[obs.numpy(), np.ones(40)]
    solution, rest, *_ = np.linalg.lstsq(design, action.numpy())
    assert np.allclose(np.c_[W.numpy(), b.numpy()], solution.T, atol=1e-12)
    assert np.allclose(sigma.numpy() ** 2 * 40, rest, atol=1e-12)
    W, b, _ = linear_gaussian_mle(torch.cat([obs, torch.ones(40, 1)], 1), action)
    assert torch.isfinite(W).all()
    assert torch.isfinite(b).all()


@pytest.mark.parametrize(
    ("obs", "action"),
    [
        (torch.zeros(4, 2), torch.zeros(3, 1)),
        (torch.zeros(4), torch.zeros(4, 1)),
        (torch.zeros(0, 2), torch.zeros(0, 1)),
        (torch.full((4, 2), torch.nan), torch.zeros(4, 1)),
        (torch.zeros(4, 2), torch.full((4, 1), torch.inf)),
    ],
)
def test_least_squares_refuses_what_it_cannot_fit(obs, action):
    with pytest.raises(UsageError, match="obs and action must be"):
        linear_gaussian_mle(obs, action)


@pytest.mark.parametrize("loss", ["squared", "gaussian"])
def test_the_agent_without_hidden_layers_comes_to_least_squares(loss):
    """Adam on the whole batch; compared by what it does, as it sees normalised observations."""
    obs, action = data()
    W, b, sigma = linear_gaussian_mle(obs, action)
    agent = BehaviorCloning(SPEC, BCConfig(loss=loss, hidden=(), lr=0.05), CPU, 0)
    agent.observe(obs)
    for _ in range(500):
        agent.update(obs.float(), action.float())
    assert np.allclose(agent.act(obs.numpy()), (obs @ W.T + b).numpy(), atol=1e-2)
    if loss == "gaussian":
        assert torch.allclose(agent.policy.log_std.exp().double(), sigma, rtol=1e-2)


def test_discrete_labels_are_learnt():
    """The sign of the first entry; the likelihood of the labels rises towards one."""
    obs = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    label = (obs[:, 0] > 0).long()
    agent = BehaviorCloning(EnvSpec(1, 3, 2, True), BCConfig(hidden=(16,), lr=0.02), CPU, 0)
    agent.observe(obs)
    losses = [agent.update(obs, label)["loss/imitation"].item() for _ in range(100)]
    assert losses[0] == pytest.approx(math.log(2), abs=0.01)  # it starts without a preference
    assert losses[-1] < 0.1
    assert (agent.act(obs.numpy()) == label.numpy()).mean() > 0.95


def test_an_expert_without_noise_does_not_take_sigma_to_zero():
    agent = BehaviorCloning(SPEC, BCConfig(loss="gaussian", hidden=(), lr=0.5), CPU, 0)
    obs = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    for _ in range(60):
        metrics = agent.update(obs, torch.zeros(8, 2))
    bound = 2 * (MIN_LOG_STD + 0.5 * math.log(2 * math.pi))
    assert metrics["loss/imitation"].item() >= bound - 1e-4


def test_the_same_seed_gives_the_same_policy_and_the_state_is_all_of_it():
    obs, action = (x.float() for x in data())
    agents = [BehaviorCloning(SPEC, BCConfig(hidden=(8,)), CPU, seed) for seed in (0, 0, 1)]
    for agent in agents:
        agent.observe(obs)
        agent.update(obs, action)
    a, b, other = (agent.act(obs.numpy()) for agent in agents)
    assert (a == b).all()
    assert (a != other).any()
    restore(agents[2], copy.deepcopy(state_of(agents[0])))
    for agent in (agents[0], agents[2]):
        agent.update(obs, action)
    assert (agents[0].act(obs.numpy()) == agents[2].act(obs.numpy())).all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"hidden": (0,)}, r"hidden must lie in \[1, 4096\], got \(0,\)"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm must be positive"),
    ],
)
def test_bad_settings_are_named(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        BCConfig(**settings)
