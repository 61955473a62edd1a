"""Planning through a model: the objective against a loop, what loses, what ends, and what is played."""

import dataclasses

import numpy as np
import pytest
import torch

from common.envs.model_tasks import MODEL_TASKS, ModelTask, never
from common.envs.obstacles import move
from common.stochastic_search import cem, mppi
from common.types import EnvSpec, UsageError
from hw4_model_based.dynamics import DynamicsConfig
from hw4_model_based.mpc import MPC, MPCConfig, filtered_noise, imagined_return, plan
from tests.hw4.models import LINE, A, line, members

SEARCHES = ["random", "cem", "mppi"]
SPEC = EnvSpec(num_envs=2, obs_dim=4, action_dim=2, discrete=False)
TINY = MPCConfig(
    samples=8, elites=3, iterations=2, horizon=4, model=DynamicsConfig(members=2, elites=2, hidden=(8,))
)


def product(s, a, following):
    return (s * (a + 2 * following))[..., 0]


@pytest.mark.parametrize(
    ("task", "reward"),
    [(LINE, lambda s, u, n: n), (ModelTask(product, never), lambda s, u, n: s * (u + 2 * n))],
)
def test_objective_is_the_mean_over_members_of_the_loop(task, reward, generator):
    """J = 1/E sum_e sum_t r(s_{t,e}, a_t, s_{t+1,e}), row by row."""
    obs = torch.randn(5, 1, generator=generator, dtype=torch.float64)
    actions = torch.randn(5, 7, 1, generator=generator, dtype=torch.float64)
    found = imagined_return(members, task, obs, actions, 3)
    for b in range(5):
        total = 0.0
        for a in A.tolist():
            s = obs[b, 0].item()
            for u in actions[b, :, 0].tolist():
                following = a * s + u
                total, s = total + reward(s, u, following) / 3, following
        assert found[b].item() == pytest.approx(total, abs=1e-12)


def test_nothing_is_earned_after_the_end():
    """Each member's rollout ends on its own: 1, 2 | over; the reward of the last step still counts."""
    obs, actions = torch.zeros(1, 1), torch.ones(1, 4, 1)

    def step(state, action):
        return state + action * torch.tensor([1.0, 2.0])[:, None, None]

    found = imagined_return(step, line(limit=2.5), obs, actions, 2)
    assert found.item() == pytest.approx(((1 + 2 + 3) + (2 + 4)) / 2)
    assert imagined_return(step, LINE, obs, actions, 2).item() == pytest.approx((10 + 20) / 2)


def test_what_a_dead_rollout_dreams_of_does_not_matter():
    """NaN after the end is no reason to lose; NaN before it is."""
    obs, actions = torch.zeros(1, 1), torch.ones(1, 3, 1)

    def step(state, action):
        following = state + action
        return torch.where(following > 1.5, torch.nan, following)

    ends = ModelTask(LINE.reward, lambda next_obs: next_obs[..., 0] > 0.5)
    assert imagined_return(step, ends, obs, actions, 1).item() == 1
    assert imagined_return(step, LINE, obs, actions, 1).isnan().all()


@pytest.mark.parametrize("search", SEARCHES)
def test_plans_that_diverge_lose(search, generator):
    """The reward grows towards 0.8, where the model breaks down: returns are negative, NaN is no zero."""

    def step(state, action):
        return torch.where(action > 0.8, torch.nan, action.expand(1, -1, -1))

    task = ModelTask(lambda s, a, n: -(1 - n[..., 0]) - 1, never)
    config = MPCConfig(search=search, horizon=1, samples=200, iterations=8, temperature=0.02)
    best = plan(step, task, torch.zeros(1, 1), torch.zeros(1, 1, 1), config, 1, generator)
    assert 0.6 < best.item() <= 0.8


@pytest.mark.parametrize("search", SEARCHES)
def test_problems_side_by_side_are_solved_each_for_itself(search, generator):
    """Reach the target by one action, another target in each problem; s_1 and s_2 count."""
    task = ModelTask(lambda s, a, n: -(n[..., 0] - n[..., 1]).square(), never)
    obs = torch.tensor([[0.0, 0.5], [0.0, -0.7], [0.2, 0.2]])
    config = MPCConfig(search=search, horizon=2, samples=300, iterations=6, temperature=0.003)

    def step(state, action):
        return torch.stack([state[..., 0] + action[..., 0], state[..., 1]], -1)

    found = plan(step, task, obs, torch.zeros(3, 2, 1), config, 1, generator)
    expected = torch.tensor([[0.5, 0.0], [-0.7, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(found[..., 0], expected, rtol=0, atol=0.2 if search == "random" else 0.06)


@pytest.mark.parametrize("beta", [0.3, 0.8, 1.0])
def test_filtered_noise_has_the_covariance_of_its_recursion(beta, generator):
    """n = L u with L_ts = beta (1 - beta)^(t-s): Cov(n_s, n_t) = beta^2 sum_{k <= s} (1 - beta)^(s+t-2k)."""
    T = 6
    L = filtered_noise(torch.eye(T).double()[..., None], beta)[..., 0].T  # a unit of noise at each step
    t = torch.arange(T).double()
    expected = beta * (1 - beta) ** (t[:, None] - t).clamp(min=0) * (t[:, None] >= t)
    torch.testing.assert_close(L, expected, rtol=0, atol=1e-12)
    k, s = torch.arange(3).double(), 2
    closed = [beta**2 * ((1 - beta) ** (s + t - 2 * k)).sum().item() for t in range(2, T)]
    assert (L @ L.T)[2, 2:].tolist() == pytest.approx(closed, abs=1e-12)
    u = torch.randn(100_000, T, 2, generator=generator)
    n = filtered_noise(u, beta)
    assert n.shape == u.shape
    for axis in range(2):
        torch.testing.assert_close(n[..., axis].T.cov(), (L @ L.T).float(), rtol=0, atol=0.02)
    assert (n[..., 0] * n[..., 1]).mean().abs() < 0.01  # entries of an action stay independent


OBS, WARM = torch.ones(2, 1), torch.zeros(2, 3, 1)


def score(x):
    """Returns [20, 2] of 20 plans of 3 steps for each of two problems."""
    start = OBS.expand(20, -1, -1).reshape(40, 1)
    return imagined_return(members, LINE, start, x.reshape(40, 3, 1), 3).view(20, 2)


def test_a_beta_of_one_is_mppi_bit_for_bit():
    config = MPCConfig(search="mppi", horizon=3, samples=20, iterations=2)
    settings = (config.std, config.temperature, 2, 20, -1.0, 1.0)
    draws = [torch.Generator().manual_seed(5) for _ in range(3)]
    plain = mppi(score, WARM.flatten(1), *settings, generator=draws[0]).mean[..., None]
    assert torch.equal(plan(members, LINE, OBS, WARM, config, 3, draws[1]), plain)
    smooth = dataclasses.replace(config, noise_beta=0.5)
    assert not torch.equal(plan(members, LINE, OBS, WARM, smooth, 3, draws[2]), plain)


def test_a_plan_by_cem_is_cem_bit_for_bit():
    config = MPCConfig(horizon=3, samples=20, iterations=4, elites=5, alpha=0.6, std=0.3)
    draws = [torch.Generator().manual_seed(5) for _ in range(2)]
    plain = cem(score, WARM.flatten(1), 0.3, 4, 20, 5, 0.6, -1.0, 1.0, generator=draws[0]).mean[..., None]
    assert torch.equal(plan(members, LINE, OBS, WARM, config, 3, draws[1]), plain)


def test_the_mean_is_played_and_not_the_luckiest_sample(generator):
    """Under a reward of pure noise the best sample may lie anywhere, the mean stays near where it began."""
    task = ModelTask(lambda s, a, n: torch.rand(n.shape[:-1], generator=generator), never)
    config = MPCConfig(search="cem", horizon=1, samples=1000, elites=500, iterations=1)
    found = plan(lambda s, a: s, task, torch.zeros(1, 1), torch.zeros(1, 1, 1), config, 1, generator)
    assert abs(found.item()) < 0.1


def test_a_reward_of_the_wrong_shape_is_refused(generator):
    task = ModelTask(lambda s, a, n: n, never)
    with pytest.raises(UsageError, match=r"reward must be \[1, 2\], got \[1, 2, 3\]"):
        imagined_return(lambda s, a: s, task, torch.zeros(2, 3), torch.zeros(2, 4, 3), 1)


def test_a_model_that_gives_nan_everywhere_is_refused(generator):
    with pytest.raises(UsageError, match="score must be finite for at least one of 100 samples"):
        plan(
            lambda s, a: s * torch.nan,
            LINE,
            torch.ones(1, 1),
            torch.zeros(1, 3, 1),
            MPCConfig(),
            1,
            generator,
        )


def test_perfect_dynamics_find_the_way_round_the_obstacles(generator):
    """CEM with replanning, the true dynamics as the model. Measured in five starts, side by side: -13.5 to
    -14.8, and at the goal to within 0.04; random shooting with 256 samples has -20.7 to -27.4."""
    task, config = MODEL_TASKS["course/Obstacles-v0"], MPCConfig(samples=80, elites=8)

    def step(state, action):
        xy = move(state[..., :2].numpy(), action.expand(*state.shape[:-1], 2).numpy())
        return torch.cat([torch.from_numpy(xy).float(), state[..., 2:]], -1)

    offset = 0.05 * torch.arange(-2.0, 3.0)
    obs = torch.stack([offset - 0.6, -offset - 0.6, torch.full((5,), 0.6), torch.full((5,), 0.6)], 1)
    total, warm = torch.zeros(5), torch.zeros(5, 10, 2)
    for _ in range(60):
        found = plan(step, task, obs, warm, config, 1, generator)
        obs = step(obs, found[:, 0])
        warm = torch.cat([found[:, 1:], torch.zeros(5, 1, 2)], 1)
        total += task.reward(obs, found[:, 0], obs)
    assert torch.linalg.vector_norm(obs[:, :2] - obs[:, 2:], dim=1).max() < 0.1
    assert total.min() > -18


class Counting(MPC):
    """Plans that say which plan and which step they are."""

    def search(self, obs, warm):
        self.warm = [*getattr(self, "warm", []), warm.clone()]
        steps = torch.arange(warm.shape[1]) / 100
        return (len(self.warm) + steps)[None, :, None].expand_as(warm)


def played(replan_every, steps):
    config = dataclasses.replace(TINY, replan_every=replan_every)
    agent = Counting(SPEC, MODEL_TASKS["course/Obstacles-v0"], config, 0)
    agent.begin(np.ones(2, bool))
    return agent, [agent.act(np.zeros((2, 4)))[0, 0].item() for _ in range(steps)]


def test_a_plan_is_played_for_replan_every_steps():
    assert played(1, 3)[1] == pytest.approx([1.0, 2.0, 3.0])
    assert played(3, 5)[1] == pytest.approx([1.0, 1.01, 1.02, 2.0, 2.01])
    assert played(4, 5)[1] == pytest.approx([1.0, 1.01, 1.02, 1.03, 2.0])


def test_the_search_begins_where_the_last_plan_was_left():
    agent, _ = played(2, 3)
    assert agent.warm[0].abs().max() == 0
    assert agent.warm[1][0, :, 0].tolist() == pytest.approx([1.02, 1.03, 0.0, 0.0])


def test_a_new_episode_forgets_its_plan_and_only_its_own():
    agent, _ = played(4, 2)
    agent.begin(np.array([True, False]))
    agent.explore(np.zeros((2, 4)), 0)
    assert agent.warm[-1][0].abs().max() == 0
    assert agent.warm[-1][1, :, 0].tolist() == pytest.approx([1.02, 1.03, 0.0, 0.0])
    agent.begin(np.ones(1, bool))  # a film has one environment
    assert agent.act(np.zeros((1, 4))).shape == (1, 2)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"replan_every": 11}, r"replan_every must lie in \[1, horizon = 10\], got 11"),
        ({"elites": 101}, "elites must be at most samples = 100, got 101"),
        ({"alpha": 1.0}, r"alpha must lie in \[0, 1\), got 1.0"),
        ({"std": 0.0}, "std must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
        ({"search": "mppi", "noise_beta": 0.0}, "noise_beta must be positive"),
        ({"search": "mppi", "noise_beta": 1.5}, r"noise_beta must lie in \[0, 1\], got 1.5"),
        ({"noise_beta": 0.5}, "noise_beta must be 1 unless search is mppi, got 0.5 with cem"),
    ],
)
def test_bad_settings_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        MPCConfig(**settings)
