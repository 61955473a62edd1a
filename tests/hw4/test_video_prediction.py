"""Visual foresight: warps by hand, where a pixel goes, and a plan under a flow that is known."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from common.envs.pixels import SIZE, disc
from common.envs.pushing import BLOCK, COLOURS, FINGER, push
from common.replay import Batch
from common.types import EnvSpec, UsageError
from hw4_model_based.video_prediction import (
    GRID,
    PATCH,
    REACH,
    TEMPERATURE,
    Flow,
    FlowConfig,
    Foresight,
    ForesightConfig,
    closeness,
    expected_distance,
    move,
    patch,
    register,
    spot,
    turned,
    warp,
)

SPEC = EnvSpec(num_envs=2, obs_dim=COLOURS * SIZE**2 + 4, action_dim=2, discrete=False)
TINY = FlowConfig(channels=4, first_updates=30, updates=5, batch_size=8)
STEP = 3.0  # pixels


def constant(right, down, size=1):
    return torch.tensor([float(right), float(down)]).expand(size, SIZE, SIZE, 2)


def mean(P):
    """(column, row) of distributions [B, SIZE, SIZE]."""
    index = torch.arange(SIZE).float()
    return torch.stack([(P.sum(1) * index).sum(1), (P.sum(2) * index).sum(1)], 1)


def pictures(block, finger):
    """Centres [B, 2] each -> [B, COLOURS, SIZE, SIZE]."""
    pairs = zip(block, finger, strict=True)
    return torch.from_numpy(np.stack([[disc(b, 0.24), disc(f, 0.12)] for b, f in pairs]))


def test_a_flow_fetches_pixels_from_where_it_points(generator):
    image = torch.rand(1, 2, SIZE, SIZE, generator=generator)
    found = warp(image, constant(-3, 2))  # what was 3 to the left and 2 below
    torch.testing.assert_close(found[..., :-2, 3:], image[..., 2:, :-3], rtol=0, atol=1e-5)
    assert found[..., :3].abs().max() < 1e-5
    half = warp(image, constant(0.5, 0))
    expected = (image[..., :-1] + image[..., 1:]) / 2
    torch.testing.assert_close(half[..., :-1], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(warp(image, constant(0, 0)), image, rtol=0, atol=1e-5)


def test_a_spot_lies_where_the_picture_has_the_point():
    """Its mean is the point, to the fraction of a pixel; up is up."""
    point = torch.tensor([[0.71, 0.22], [0.5, 0.5]])
    P = spot(point)
    torch.testing.assert_close(P.sum((1, 2)), torch.ones(2))
    expected = torch.stack([SIZE * point[:, 0] - 0.5, SIZE * (1 - point[:, 1]) - 0.5], 1)
    torch.testing.assert_close(mean(P), expected, rtol=0, atol=1e-4)
    drawn = torch.from_numpy(disc(2 * point[0].numpy() - 1, 0.1))[None]
    torch.testing.assert_close(mean(drawn / drawn.sum()), expected[:1], rtol=0, atol=0.05)


def test_the_flow_moves_the_distribution_and_keeps_its_sum():
    P = spot(torch.tensor([[0.5, 0.5]]))
    moved = move(P, constant(-3, 2))
    assert moved.sum().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(mean(moved) - mean(P), torch.tensor([[3.0, -2.0]]), rtol=0, atol=1e-3)


def test_a_pixel_that_is_lost_may_be_anywhere():
    lost = move(spot(torch.tensor([[0.02, 0.5]])), constant(6, 0))
    torch.testing.assert_close(lost, torch.full_like(lost, 1 / SIZE**2))


def test_what_surrounds_a_pixel_is_cut_out(generator):
    """Around the pixel (column 18, row 13), whose centre is (18.5, 18.5) from the lower left corner."""
    picture = torch.rand(2, COLOURS, SIZE, SIZE, generator=generator)
    found = patch(picture, torch.full((2, 2), 18.5 / SIZE))
    expected = picture[:, :, 13 - PATCH : 14 + PATCH, 18 - PATCH : 19 + PATCH]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_registration_is_bayes_rule_over_patches(generator):
    """Place by place, in loops."""
    picture = torch.rand(2, COLOURS, SIZE, SIZE, generator=generator) / 5
    P = torch.rand(2, SIZE, SIZE, generator=generator) + 0.1
    sample = patch(picture, torch.tensor([[0.5, 0.5], [0.4, 0.6]]))
    found = register(P, picture, sample)
    padded = torch.nn.functional.pad(picture, [PATCH] * 4)
    expected = P.clone()
    for row in range(SIZE):
        for column in range(SIZE):
            seen = padded[..., row : row + 2 * PATCH + 1, column : column + 2 * PATCH + 1]
            expected[:, row, column] *= (-(seen - sample).square().sum((1, 2, 3)) / TEMPERATURE).exp()
    expected /= expected.sum((1, 2), keepdim=True)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_registration_finds_a_pixel_that_the_flow_has_lost():
    """The block is four pixels from where the flow thinks it is; to a third of a pixel."""
    before, after = (pictures([[x, 0.1]], [[x - 0.4, 0.1]]) for x in (0.0, 8 / SIZE))
    point = torch.tensor([[0.53, 0.58]])
    wrong = move(spot(point), constant(0, 0))
    found = mean(register(wrong, after, patch(before, point)))
    torch.testing.assert_close(found, mean(wrong) + torch.tensor([[4.0, 0.0]]), rtol=0, atol=0.35)


def test_distance_is_expected_and_in_pixels():
    """A pixel 3 to the right of and 4 below the goal: 5; half here and half there: the mean."""
    goal = torch.tensor([[0.5, 0.5]])
    there = spot(goal + torch.tensor([[3 / SIZE, -4 / SIZE]]))  # on four pixels, between them
    at = torch.zeros(1, SIZE, SIZE)
    at[0, 19, 18] = 1  # centre at (18.5, 19.5), the goal at (16, 16)
    assert expected_distance(at, goal).item() == pytest.approx(np.hypot(2.5, 3.5), abs=1e-4)
    mixed = (at + there) / 2
    each = (expected_distance(x, goal).item() for x in (at, there))
    assert expected_distance(mixed, goal).item() == pytest.approx(sum(each) / 2, abs=1e-4)
    assert expected_distance(there, goal).item() == pytest.approx(5, abs=0.1)


def test_a_push_is_a_push_wherever_it_happens(generator):
    """The flow moves with the scene, by steps of the coarsest layer, far from the edges."""
    model = Flow(2, TINY, generator)
    scene, action = torch.rand(1, COLOURS, 112, 112, generator=generator), torch.tensor([[1.0, 0.5]])
    with torch.no_grad():
        here, there = model(scene, action), model(scene.roll(4, 3), action)
    assert here.std() > 0.01
    inside = slice(40, 72)
    torch.testing.assert_close(there[:, inside, 44:76], here[:, inside, 40:72], rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", range(8))
def test_a_push_seen_from_another_side_is_what_the_turned_table_shows(side):
    """Pictures before and after, the action with them, against a table that is built turned."""
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])  # (right, up) to the left
    mirror = np.diag([-1.0 if side >= 4 else 1.0, 1.0])
    turn = np.linalg.matrix_power(quarter, side % 4) @ mirror
    finger, block, action = np.array([-0.5, 0.1]), np.array([-0.1, 0.2]), np.array([0.9, -0.3])

    def pictures(turn: np.ndarray) -> torch.Tensor:
        before = turn @ finger, turn @ block
        places = [before, push(*before, turn @ action)]
        return torch.from_numpy(np.stack([[disc(b, BLOCK), disc(f, FINGER)] for f, b in places]))

    seen, seen_action = turned(pictures(np.eye(2)), torch.from_numpy(action), side)
    torch.testing.assert_close(seen, pictures(turn), atol=1e-5, rtol=0)
    np.testing.assert_allclose(seen_action.numpy(), turn @ action, atol=1e-12)


def test_no_flow_bridges_more_than_its_reach(generator):
    agent = Flow(2, TINY, generator)
    with torch.no_grad():
        agent.flow.weight *= 1_000
        found = agent(torch.rand(2, COLOURS, SIZE, SIZE, generator=generator), torch.ones(2, 2))
    assert found.abs().max() == pytest.approx(REACH)


def test_every_parameter_learns(generator):
    agent = Foresight(SPEC, ForesightConfig(model=TINY), 0)
    seen = torch.rand(3, 2, COLOURS, SIZE, SIZE, generator=generator)
    agent.loss(seen, torch.randn(2, 2, 2, generator=generator)).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in agent.parameters)


class Known(nn.Module):
    """Everything moves by the action."""

    def forward(self, picture, action):
        flow = -STEP * action * torch.tensor([1.0, -1.0])  # from there it came; rows count down
        return flow[:, None, None].expand(-1, SIZE, SIZE, -1)


def known(**settings):
    config = ForesightConfig(**({"horizon": 2, "samples": 60, "iterations": 5} | settings), model=TINY)
    agent = Foresight(SPEC, config, 0)
    agent.model = Known()
    return agent


def scene(point, goal):
    """Observations [N, D] with an empty table."""
    points = np.concatenate([np.asarray(point), np.asarray(goal)], 1)
    return np.pad(points, ((0, 0), (COLOURS * SIZE**2, 0))).astype(np.float32)


def test_loss_is_the_error_of_pictures_predicted_in_a_row():
    """Two steps right, the truth goes one and stays: the second picture is off by a step."""
    agent = known()
    o = [pictures([[x, 0.0]], [[x, 0.5]]) for x in (-0.3, -0.3 + 2 * STEP / SIZE, -0.3 + 4 * STEP / SIZE)]
    right = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    assert agent.loss(torch.stack(o), right).item() == pytest.approx(0, abs=1e-3)
    off = (o[2] - o[1]).square().sum().item() / 2
    assert agent.loss(torch.stack([o[0], o[1], o[1]]), right).item() == pytest.approx(off, rel=1e-3)


@pytest.mark.parametrize("search", ["cem", "mppi"])
def test_the_plan_moves_the_designated_pixel_to_its_goal(search):
    agent = known(search=search, horizon=1, temperature=0.05)
    agent.begin(np.ones(2, bool))
    obs = scene([[0.5, 0.5], [0.3, 0.6]], [[0.5 + 2 / SIZE, 0.5 - 1 / SIZE], [0.3, 0.6 + 2.5 / SIZE]])
    expected = np.array([[2 / STEP, -1 / STEP], [0, 2.5 / STEP]])
    np.testing.assert_allclose(agent.act(obs), expected, atol=0.15)


def test_the_belief_follows_what_was_done_and_a_new_episode_begins_anew():
    agent = known()
    agent.begin(np.ones(2, bool))
    obs = scene([[0.5, 0.5], [0.4, 0.4]], [[0.9, 0.5], [0.1, 0.4]])
    at = mean(spot(torch.tensor([[0.5, 0.5], [0.4, 0.4]])))
    for _ in range(2):
        at = at + STEP * torch.from_numpy(agent.explore(obs, 0)) * torch.tensor([1.0, -1.0])
        torch.testing.assert_close(mean(agent.P), at, rtol=0, atol=0.01)
    assert at[0, 0] > 18 > 10 > at[1, 0]
    agent.begin(np.array([True, False]))
    at[0] = mean(spot(torch.tensor([[0.5, 0.5]])))[0]
    at = at + STEP * torch.from_numpy(agent.explore(obs, 0)) * torch.tensor([1.0, -1.0])
    torch.testing.assert_close(mean(agent.P), at, rtol=0, atol=0.01)
    agent.begin(np.ones(1, bool))  # a film has one environment
    assert agent.act(obs[:1]).shape == (1, 2)


def test_the_belief_is_registered_where_the_flow_was_wrong():
    """Nothing is done, yet block and finger lie four pixels to the right in the second picture."""
    agent = known()
    agent.search = lambda obs, warm: warm
    points = torch.tensor([[0.53, 0.58, 0.9, 0.9]]).expand(2, 4)
    seen = (pictures([[x, 0.1]] * 2, [[x - 0.4, 0.1]] * 2) for x in (0.0, 8 / SIZE))
    first, second = (torch.cat([picture.flatten(1), points], 1).numpy() for picture in seen)
    agent.begin(np.ones(2, bool))
    agent.explore(first, 0)
    before = mean(agent.P)
    agent.explore(second, 0)
    torch.testing.assert_close(mean(agent.P), before + torch.tensor([4.0, 0.0]), rtol=0, atol=0.35)


def test_a_step_of_the_plan_moves_picture_and_belief_alike(generator):
    agent = known()
    picture = torch.rand(2, COLOURS, SIZE, SIZE, generator=generator)
    P, goal, action = spot(torch.full((2, 2), 0.5)), torch.rand(2, 2, generator=generator), torch.ones(2, 2)
    state = torch.cat([picture.flatten(1), P.flatten(1), goal], 1)[None]
    flow = agent.model(picture, action)
    expected = torch.cat([warp(picture, flow).flatten(1), move(P, flow).flatten(1), goal], 1)
    torch.testing.assert_close(agent.foresee(state, action)[0], expected, rtol=0, atol=0)


def test_what_surrounded_the_pixel_at_first_is_remembered(generator):
    """Of the first picture of each episode, whatever comes later."""
    agent, points = known(), torch.tensor([[0.5, 0.5], [0.4, 0.4]])
    obs = [torch.from_numpy(scene(points, 1 - points)) for _ in range(2)]
    for o in obs:
        o[:, :-4] = torch.rand(2, COLOURS * SIZE**2, generator=generator)
    first, later = (patch(o[:, :-4].view(2, COLOURS, SIZE, SIZE), points) for o in obs)
    agent.begin(np.ones(2, bool))
    for o in obs:
        agent.explore(o.numpy(), 0)
        assert torch.equal(agent.sample, first)
    agent.begin(np.array([False, True]))
    agent.explore(obs[1].numpy(), 0)
    assert torch.equal(agent.sample, torch.stack([first[0], later[1]]))


def test_what_a_plan_is_paid_is_the_closeness_it_comes_to():
    P, goal = spot(torch.tensor([[0.5, 0.5]])), torch.tensor([[0.75, 0.5]])
    state = torch.cat([torch.zeros(1, COLOURS * SIZE**2), P.flatten(1), goal], 1)[None]
    torch.testing.assert_close(closeness(state, None, state), -expected_distance(P, goal)[None])


def test_a_fit_learns_what_moves_and_the_seed_decides(generator):
    """All moves by two pixels where the action points; 1 is to predict that nothing moves."""
    x = torch.rand(60, 2, generator=generator).numpy() - 0.5
    places = x[:, None] + np.array([0, 4 / SIZE, 8 / SIZE])[:, None] * [1, 0]  # [60, 3, 2]
    seen = torch.stack([pictures(places[:, k], places[:, k] + [0, 0.4]).flatten(1) for k in range(3)], 1)
    seen = torch.cat([seen, torch.zeros(60, 3, 4)], 2)
    obs, next_obs = seen[:, :2].transpose(0, 1).flatten(0, 1), seen[:, 1:].transpose(0, 1).flatten(0, 1)
    right = torch.tensor([1.0, 0.0]).expand(120, 2)
    fields = (right, torch.zeros(120), next_obs, torch.zeros(120, dtype=torch.bool))
    spec, model = SPEC._replace(num_envs=60), dataclasses.replace(TINY, first_updates=150)
    one, two = (Foresight(spec, ForesightConfig(model=model), 0) for _ in range(2))
    found = one.update(Batch(obs, *fields))
    assert found == two.update(Batch(obs, *fields))
    assert one.update(Batch(obs, *fields))["model/share_of_change"] < 0.8


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (SPEC._replace(obs_dim=4), "env_id must show 2052 numbers, as course/PushPixels-v0 does"),
        (SPEC._replace(discrete=True), "env_id must have continuous actions"),
    ],
)
def test_other_environments_are_refused(spec, sentence):
    with pytest.raises(UsageError, match=sentence):
        Foresight(spec, ForesightConfig(), 0)


def test_bad_settings_are_refused():
    with pytest.raises(UsageError, match="unroll must be at least 1, got 0"):
        FlowConfig(unroll=0)
    assert GRID.shape == (SIZE, SIZE, 2)
