"""Policies of homework 2 as files: what they compute, what they earn, what is refused."""

import json
import sys

import numpy as np
import pytest
import torch

from common import checkpoint
from common.envs import registry
from common.evaluation import evaluate
from common.seeding import child_seed, generator
from common.types import EnvSpec, UsageError
from hw1_imitation import sealed, trained_experts
from hw1_imitation.experts import expert
from hw1_imitation.sealed import Origin
from hw1_imitation.trained_experts import FOLDER, SEED, TRAINED, act, load, main, portable
from hw2_policy_gradient.policies import Policy

ORIGIN = Origin("Hopper-v5", "python -m hw2_policy_gradient.run trpo-hopper", 0, 3000.0)
ARRAYS = {
    "mean": np.array([1.0, 0.0, -1.0]),
    "std": np.array([2.0, 1.0, 1.0]),
    "weight0": np.ones((4, 3)),
    "bias0": np.zeros(4),
    "weight1": np.ones((2, 4)),
    "bias1": np.array([0.0, 0.5]),
}
DEVIATION = {"HalfCheetah-v5": 793, "Ant-v5": 1175, "Hopper-v5": 48, "Walker2d-v5": 11}  # of returns


def test_the_action_by_hand():
    """z = (1, 0, 0), each unit tanh 1, their sum beyond the limit; z = (-0.1, 0, 0) is within it."""
    layers = [(ARRAYS["weight0"], ARRAYS["bias0"]), (ARRAYS["weight1"], ARRAYS["bias1"])]
    out = act(np.array([[3.0, 0.0, -1.0], [0.8, 0.0, -1.0]]), ARRAYS["mean"], ARRAYS["std"], layers)
    inner = -4 * np.tanh(0.1)
    assert np.allclose(out, [[1, 1], [inner, inner + 0.5]], atol=1e-15)


def test_observations_far_away_are_cut_to_ten_deviations():
    layers = [(np.full((1, 1), 0.05), np.zeros(1))]
    far = act(np.array([[1e9], [-1e9]]), np.zeros(1), np.ones(1), layers)
    assert far.tolist() == [[0.5], [-0.5]]


@pytest.mark.parametrize("env_id", TRAINED)
def test_a_shipped_expert_earns_what_its_file_says(env_id):
    """Ten other episodes, within four standard errors by the deviation of the hundred measured, or 5 %, as a
    rare fall may be missing there."""
    policy, origin = load(FOLDER / f"{env_id}.npz")
    envs = registry.make_envs(env_id, 10)
    got = evaluate(policy, envs, child_seed(SEED, "other episodes"))["return_mean"]
    assert origin.env_id == env_id
    assert abs(got - origin.return_mean) < max(4 * DEVIATION[env_id] / 10**0.5, 0.05 * origin.return_mean)
    obs = np.zeros((1, envs.single_observation_space.shape[0]))
    assert (expert(env_id)(obs) == policy(obs)).all()


def saved_run(folder, normalize=True):
    """A run directory of homework 2, as far as it is read here."""
    policy = Policy(EnvSpec(1, 11, 3, False), (8, 8), -0.5, normalize, generator(0, "init"))
    if normalize:
        policy.normalize.update(torch.randn(50, 11, generator=generator(1, "obs")) * 3 + 1)
    draws = generator(2, "parameters")
    for parameter in policy.parameters():  # the last layer starts near zero
        torch.nn.init.normal_(parameter, generator=draws, std=0.3)
    folder.mkdir()
    checkpoint.save(folder / "checkpoint", 1, agent={"policy": policy.state_dict()})
    (folder / "config.json").write_text(json.dumps({"env_id": "Hopper-v5"}))
    command = "python -m hw2_policy_gradient.run trpo-hopper --out /tmp/x --seed 1"
    (folder / "summary.json").write_text(json.dumps({"command": command}))
    return policy


def export(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["trained_experts", *map(str, args)])
    main()


def test_an_exported_policy_acts_as_the_agent_did(tmp_path, monkeypatch, capsys):
    policy = saved_run(tmp_path / "run")
    export(monkeypatch, tmp_path / "run", "--folder", tmp_path)
    loaded, origin = load(tmp_path / "Hopper-v5.npz")
    obs = np.random.default_rng(0).normal(size=(40, 11)).astype(np.float32) * 4
    assert np.allclose(loaded(obs), policy.act(obs).clip(-1, 1), atol=1e-5)
    assert origin.expert == "python -m hw2_policy_gradient.run trpo-hopper --seed 1"
    assert f"return {origin.return_mean:.1f} +- " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (lambda folder: None, "must hold a trained policy"),
        (lambda folder: saved_run(folder, normalize=False), "normalised observations"),
    ],
)
def test_a_run_that_cannot_be_kept_is_refused(prepare, sentence, tmp_path, monkeypatch, capsys):
    prepare(tmp_path / "run")
    with pytest.raises(SystemExit) as end:
        export(monkeypatch, tmp_path / "run", "--folder", tmp_path)
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err


def test_the_command_is_told_without_the_place():
    for out in ("--out '/tmp/a b'", "--out=/tmp/a"):
        assert portable(f"python -m x {out} --seed 1") == "python -m x --seed 1"
    for resume in ("--resume runs/a", "--resume=runs/a"):
        with pytest.raises(UsageError, match="it was resumed"):
            portable(f"python -m x {resume}")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"std": np.zeros(3)}, "std positive"),
        ({"mean": np.zeros(2)}, r"mean and std must be \[D\]"),
        ({"mean": np.full(3, np.nan)}, "finite real numbers"),
        ({"weight0": np.array([["a"] * 3] * 4)}, "finite real numbers"),
        ({"weight0": np.ones((4, 2))}, r"weight0 and bias0 must be \[n, 3\]"),
        ({"bias1": np.zeros(3)}, r"weight1 and bias1 must be \[n, 4\] and \[n\]"),
        ({"bias2": np.zeros(3)}, "must hold mean, std, weight0, bias0"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(change, sentence, tmp_path):
    sealed.write(tmp_path / "a.npz", ARRAYS | change, ORIGIN)
    with pytest.raises(UsageError, match=sentence):
        load(tmp_path / "a.npz")


def test_a_policy_of_another_environment_is_not_taken(tmp_path, monkeypatch):
    sealed.write(tmp_path / "Ant-v5.npz", ARRAYS, ORIGIN)
    monkeypatch.setattr(trained_experts, "FOLDER", tmp_path)
    with pytest.raises(UsageError, match="must be for it, it is for Hopper-v5"):
        trained_experts.trained_expert("Ant-v5")
