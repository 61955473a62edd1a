"""One plan of PETS, and one epoch of its model's fit, beside mbrl-lib's own code: the same networks, data,
candidates and particles, on one thread.

A plan is 5 iterations of CEM over 400 candidates of 25 steps, each tried by 20 particles of 5 members that
stay (TSinf): a million predictions of a cart-pole's next state, by networks of the size of `pets-cartpole`'s.
Measured on two cores that others used too, in processor time: 808 ms against 1,670 ms, at most 296 MB of
memory with everything imported. An epoch of the fit takes 24 ms against 46, with networks of PETS's own size
106 against 183: short of half the time.
"""

import resource

import gymnasium as gym
import numpy as np
import pytest
import torch

import common.envs  # noqa: F401, registers the environments
from common.envs.model_tasks import cartpole_reward, model_task
from common.types import EnvSpec
from hw4_model_based.dynamics import DynamicsConfig
from hw4_model_based.pets import PETS, PETSConfig
from tests.benchmarks.peers import in_turn

models = pytest.importorskip("mbrl.models", reason="a peer, see tests/benchmarks/requirements.txt")
from mbrl.planning.trajectory_opt import CEMOptimizer  # noqa: E402
from mbrl.types import TransitionBatch  # noqa: E402
from mbrl.util.replay_buffer import BootstrapIterator, TransitionIterator  # noqa: E402

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]
ENV = "course/CartPoleSwingUpDense-v0"
D, K, E, P, CANDIDATES, T, ITERATIONS = 5, 1, 5, 20, 400, 25, 5
TRANSITIONS, BATCH, EPOCHS = 2_000, 256, 4  # ten trials, mbrl-lib's batch; fewer epochs than the patience


def ours(hidden):
    model = DynamicsConfig(members=E, elites=E, hidden=hidden, batch_size=BATCH, max_epochs=EPOCHS)
    config = PETSConfig(
        horizon=T, samples=CANDIDATES, iterations=ITERATIONS, elites=40, particles=P, model=model
    )
    return PETS(EnvSpec(1, D, K, False), model_task(ENV), config, 0)


def theirs(hidden):
    net = models.GaussianMLP(
        D + K, D, "cpu", num_layers=len(hidden) + 1, ensemble_size=E, hid_size=hidden[0],
        propagation_method="fixed_model", activation_fn_cfg={"_target_": "torch.nn.SiLU"},
    )  # fmt: skip
    return models.OneDTransitionRewardModel(net, normalize=True, learned_rewards=False)


def data():
    draws = torch.Generator().manual_seed(0)
    obs, change = torch.randn(2, TRANSITIONS, D, generator=draws)
    return obs, 2 * torch.rand(TRANSITIONS, K, generator=draws) - 1, obs + 0.1 * change


def test_a_plan_in_half_the_time():
    hidden = (64, 64)
    torch.set_num_threads(1)
    agent, model = ours(hidden), theirs(hidden)
    agent.model.inputs.fit(torch.cat(data()[:2], 1))
    model.update_normalizer(TransitionBatch(*(x.numpy() for x in data()), *np.zeros((3, TRANSITIONS))))

    def reward(action, next_obs):
        return cartpole_reward(next_obs, action, next_obs)[:, None]

    def ended(action, next_obs):
        return torch.zeros(len(next_obs), 1, dtype=torch.bool)

    world = models.ModelEnv(gym.make(ENV), model, ended, reward, torch.Generator().manual_seed(0))
    limits = (np.full((T, K), limit).tolist() for limit in (-1.0, 1.0))
    search = CEMOptimizer(ITERATIONS, 0.1, CANDIDATES, *limits, 0.1, "cpu", return_mean_elites=True)
    obs = np.zeros(D, np.float32)

    def plan_of_mbrl():
        def score(actions):
            return world.evaluate_action_sequences(actions, obs, P)

        return search.optimize(score, x0=torch.zeros(T, K))

    def plan():
        return agent.search(torch.zeros(1, D), torch.zeros(1, T, K))

    with torch.no_grad():
        found = in_turn({"ours": plan, "mbrl-lib": plan_of_mbrl}, calls=1, rounds=3)
    print(f"most memory so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    assert found["ours"] < 0.5 * found["mbrl-lib"]


@pytest.mark.parametrize("hidden", [(64, 64), (200, 200, 200)])
def test_epochs_of_the_fit_in_half_the_time(hidden):
    """Data held out are scored after each of them in both. Not reached: 0.52 and 0.58 of mbrl-lib's time."""
    torch.set_num_threads(1)
    obs, action, next_obs = data()
    agent, draws = ours(hidden), torch.Generator().manual_seed(0)
    model = theirs(hidden)
    trainer = models.ModelTrainer(model, optim_lr=2e-3)
    fields = [x.numpy() for x in (obs, action, next_obs)] + [np.zeros(TRANSITIONS, np.float32)] * 3
    held = TRANSITIONS // 10
    model.update_normalizer(TransitionBatch(*fields))
    rest, few = (TransitionBatch(*(x[part] for x in fields)) for part in (slice(held, None), slice(held)))
    rng = np.random.default_rng(0)

    def epoch_of_mbrl():
        batches = BootstrapIterator(rest, BATCH, E, shuffle_each_epoch=True, rng=rng)
        trainer.train(batches, TransitionIterator(few, BATCH), num_epochs=EPOCHS, silent=True)

    def epoch():
        agent.model.fit(obs, action, next_obs, draws)

    found = in_turn({"ours": epoch, "mbrl-lib": epoch_of_mbrl}, calls=1, rounds=9)
    assert found["ours"] < 0.5 * found["mbrl-lib"]
