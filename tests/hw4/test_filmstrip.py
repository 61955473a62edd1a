"""Pictures seen beside pictures foreseen: by models that know the truth, and by each agent."""

import numpy as np
import pytest
import torch

from common.envs import registry
from common.envs.pixels import SIZE
from hw4_model_based.e2c import E2C, E2CConfig
from hw4_model_based.filmstrip import film, play
from hw4_model_based.latent_dynamics import LatentConfig, LatentMPC
from hw4_model_based.rssm import PlaNet, RSSMConfig
from hw4_model_based.video_prediction import Foresight, ForesightConfig

POINT, PUSH = "course/PointMassPixels-v0", "course/PushPixels-v0"


class Oracle:
    """Pushes to the right; imagines that the number of the step is painted all over the picture."""

    def act(self, obs):
        self.last = obs
        return np.array([[5.0, 0.0]])

    def show(self, obs):
        return obs[:, -(SIZE**2) :].view(-1, SIZE, SIZE)

    def imagine(self, obs, actions):
        assert np.array_equal(obs.numpy(), self.last)  # what act was shown last is the episode's first
        self.actions = actions
        return torch.arange(len(actions) + 1.0).view(-1, 1, 1, 1).expand(-1, 1, SIZE, SIZE)


def test_the_model_sees_the_first_picture_and_the_actions_that_were_played():
    agent = Oracle()
    seen, foreseen = play(agent, POINT, seed=3, steps=6)
    assert seen.shape == foreseen.shape == (7, SIZE, SIZE)
    assert foreseen[:, 0, 0].tolist() == list(range(7))
    assert agent.actions.tolist() == [[[1.0, 0.0]]] * 6  # as the environment clips them
    env = registry.make_env(POINT)
    pictures = [env.reset(seed=3)[0]] + [env.step(np.array([1.0, 0.0]))[0] for _ in range(6)]
    np.testing.assert_array_equal(seen, np.stack(pictures)[:, -(SIZE**2) :].reshape(-1, SIZE, SIZE))


def test_an_episode_that_ends_ends_the_strip():
    seen, foreseen = play(Oracle(), POINT, seed=0, steps=999)
    assert len(seen) == len(foreseen) == 41


@pytest.mark.parametrize(
    ("agent", "config", "env_id"),
    [
        (LatentMPC, LatentConfig, POINT),
        (E2C, E2CConfig, POINT),
        (PlaNet, RSSMConfig, POINT),
        (Foresight, ForesightConfig, PUSH),
    ],
)
def test_every_agent_says_what_it_expects_to_see(agent, config, env_id, tmp_path):
    spec = registry.spec(registry.make_envs(env_id, 2))
    dreamer = agent(spec, config(horizon=2, samples=4, elites=2, iterations=1), 0)
    path = film(dreamer, env_id, 1, tmp_path / "frames.png", steps=3)
    assert path.stat().st_size > 1000
    seen, foreseen = play(dreamer, env_id, 1, 3)
    assert seen.shape == foreseen.shape
    assert ((foreseen >= 0) & (foreseen <= 1 + 1e-6)).all()
    if agent is Foresight:  # nothing is invented: the first picture is the one that is seen
        np.testing.assert_array_equal(seen[0], foreseen[0])
