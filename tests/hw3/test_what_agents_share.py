"""What every agent owes to its target network, to transitions of several steps, and to importance weights."""

from operator import attrgetter

import numpy as np
import pytest
import torch
from torch import nn

from hw3_q_learning.cem_q import CEMQ, CEMQConfig
from hw3_q_learning.crossq import Critics, CrossQ, CrossQConfig
from hw3_q_learning.ddpg import DDPG, DDPGConfig, TD3Config
from hw3_q_learning.distributional import C51, QR, C51Config, QRConfig
from hw3_q_learning.dqn import DQN, DQNConfig
from hw3_q_learning.naf import NAF, NAFConfig
from hw3_q_learning.run import PRESETS, make_replay
from hw3_q_learning.sac import SAC, SACConfig
from tests.helpers import CPU
from tests.hw3.batches import CONTINUOUS, DISCRETE, noise

TINY, COLD = {"gamma": 0.5, "hidden": (16,)}, {"alpha": 1e-6, "learn_alpha": False}
AGENTS = {
    "dqn": (DQN, DQNConfig(**TINY)),
    "qr": (QR, QRConfig(**TINY, atoms=5)),
    "c51": (C51, C51Config(**TINY, atoms=5)),  # of 0, 25, .. 100
    "naf": (NAF, NAFConfig(**TINY)),
    "cem-q": (CEMQ, CEMQConfig(**TINY)),
    "ddpg": (DDPG, DDPGConfig(**TINY)),
    "td3": (DDPG, TD3Config(**TINY)),
    "sac": (SAC, SACConfig(**TINY, **COLD)),
    "crossq": (CrossQ, CrossQConfig(**TINY, **COLD, critic_hidden=(16,))),
}
NETWORKS = {DQN: ("q", "q_target"), NAF: ("net.v", "v_target"), CrossQ: ("critic", "critic")}


def build(kind: str):
    make, config = AGENTS[kind]
    spec = DISCRETE if isinstance(config, DQNConfig) else CONTINUOUS
    return make(spec, config, 1000, CPU, seed=0), noise(spec)


def critics(made) -> tuple[nn.Module, nn.Module]:
    """The online network of the values and the target network."""
    names = [names for kind, names in NETWORKS.items() if isinstance(made, kind)]
    return attrgetter(*(names[0] if names else ("critic", "critic_target")))(made)


@torch.no_grad()
def say(made, critic: nn.Module, *values: float) -> None:
    """The last layer gives `values` of the actions, whatever the state; for C51 all mass is at that atom."""
    values = torch.tensor(values)[:, None]
    for network in critic.members if isinstance(critic, Critics) else [critic]:
        last = getattr(network, "layers", getattr(network, "net", network))[-1]
        last.weight.zero_()
        of_action = last.bias.view(len(values), -1)  # [A, n], or [1, E] of continuous actions
        of_action.copy_(1e4 * (made.atoms == values) if isinstance(made, C51) else values)


@pytest.mark.parametrize("kind", AGENTS)
@pytest.mark.parametrize("steps", [1, 2])
def test_the_target_network_tells_what_follows_after_k_steps(kind, steps):
    """Online 0, target 100 everywhere: the error is gamma^k 100. CrossQ is its own target. NAF's advantages,
    at first, are small."""
    made, batch = build(kind)
    actions = 2 if isinstance(made, DQN) else 1
    for critic, value in zip(critics(made), (0.0, 100.0), strict=True):
        say(made, critic, *[value] * actions)
    zero = torch.zeros(32)
    shown = made.update(
        batch._replace(reward=zero, terminated=zero.bool(), steps=torch.full_like(zero, steps))
    )
    y = 100 * 0.5**steps
    expected = 100 - y if kind == "crossq" else y
    assert shown["value/td_error"].mean().item() == pytest.approx(expected, abs=3)


@pytest.mark.parametrize("kind", ["dqn", "qr", "c51"])
@pytest.mark.parametrize(("double", "chosen"), [(True, 25.0), (False, 100.0)])
def test_double_asks_the_target_for_the_value_of_the_online_choice(kind, double, chosen):
    """Online prefers the first action, of which the target network thinks little."""
    make, config = AGENTS[kind]
    made, batch = (
        make(DISCRETE, type(config)(**{**vars(config), "double": double}), 1000, CPU, 0),
        noise(DISCRETE),
    )
    say(made, made.q, 75.0, 0.0)
    say(made, made.q_target, 25.0, 100.0)
    zero = torch.zeros(32)
    _, _, y = made.loss(batch._replace(reward=zero, terminated=zero.bool()))
    torch.testing.assert_close(y, torch.full((32,), chosen / 2))


@pytest.mark.parametrize("kind", AGENTS)
def test_transitions_of_weight_zero_teach_the_critic_nothing(kind):
    made, batch = build(kind)
    parameters = tuple(critics(made)[0].parameters())
    before = [p.detach().clone() for p in parameters]
    made.update(batch._replace(weight=torch.zeros(32)))
    assert all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))
    made.update(batch)
    assert not all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))


def test_replay_discounts_as_the_agent_does_and_its_correction_is_whole_in_the_end():
    config = PRESETS["rainbow-cartpole"]
    replay = make_replay(config, DISCRETE, CPU)
    assert (replay.n_step.n, replay.n_step.gamma) == (config.train.n_step, config.algo.gamma)
    assert replay.alpha == config.train.priority
    assert (replay.beta(0), replay.beta(config.train.total_steps)) == (config.train.priority_weight, 1.0)
    config = PRESETS["dqn-cartpole"]
    replay = make_replay(config, DISCRETE, CPU)
    assert (replay.n_step.n, replay.n_step.gamma) == (config.train.n_step, config.algo.gamma)


def test_exploration_falls_to_its_last_epsilon():
    """Two actions: a random one differs from the greedy one half of the time."""
    config = DQNConfig(hidden=(16,), epsilon=1.0, epsilon_final=0.1, epsilon_steps=500)
    made = DQN(DISCRETE, config, 1000, CPU, seed=0)
    obs = np.ones((4_000, 3), np.float32)
    for step, epsilon in ((0, 1.0), (250, 0.55), (500, 0.1), (10**6, 0.1)):
        differs = (made.explore(obs, step) != made.act(obs)).mean()
        assert differs == pytest.approx(epsilon / 2, abs=0.03)


def test_smoothing_has_the_deviation_that_is_asked_for(monkeypatch):
    """Q'(s', a) = a_1 under an actor that does nothing: y / gamma is the noise, 0.2 cut at 0.5."""
    made, _ = build("td3")
    monkeypatch.setattr(made, "q", lambda critic, obs, action: action[None, :, 0])
    monkeypatch.setattr(made, "actor_target", lambda obs: torch.zeros(len(obs), 2))
    batch = noise(CONTINUOUS, 20_000)
    batch = batch._replace(reward=torch.zeros(20_000), terminated=torch.zeros(20_000, dtype=torch.bool))
    smoothing = made.target(batch) / 0.5
    assert smoothing.std().item() == pytest.approx(0.2, rel=0.03)
    assert smoothing.abs().max().item() == pytest.approx(0.5)


def test_the_entropy_aimed_at_is_minus_the_number_of_actions():
    for kind in ("sac", "crossq"):
        assert build(kind)[0].target_entropy == -2


def test_crossq_counts_and_learns_moments_in_its_joint_pass_only():
    made, batch = build("crossq")
    for count in (1, 2, 3, 4):
        made.update(batch)
        assert not made.critic.training
        assert not made.actor.training
        assert made.critic.members[0][0].passes == count
    assert made.actor[0].passes == 2  # updates 0 and 3
