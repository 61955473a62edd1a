import math

import pytest
import torch
from torch.nn import functional as F

from common.types import UsageError
from hw5_planning_control.distillation import (
    DistillationConfig,
    Distilled,
    distillation_loss,
    hard_targets,
    soft_targets,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_soft_targets_by_hand():
    """Two teachers at T = 2: p = [2, 1]/3 and [1, 1]/2."""
    logits = torch.tensor([[2 * math.log(2), 0.0], [5.0, 5.0]], dtype=torch.float64)
    expected = torch.tensor([(2 / 3 + 1 / 2) / 2, (1 / 3 + 1 / 2) / 2], dtype=torch.float64)
    torch.testing.assert_close(soft_targets(logits, 2.0), expected)


def test_cold_targets_are_the_labels_and_hot_ones_are_equal():
    logits = normal(1, 6, 4)
    torch.testing.assert_close(soft_targets(logits, 1e-3), hard_targets(logits[0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        soft_targets(logits, 1e6), torch.full((6, 4), 0.25).double(), rtol=0, atol=1e-5
    )


def test_an_impossible_action_has_no_share():
    logits = torch.tensor([[[0.0, -math.inf, 0.0]]])
    assert soft_targets(logits, 3.0).tolist() == [[0.5, 0.0, 0.5]]


def test_a_label_at_temperature_one_is_the_cross_entropy():
    logits, label = normal(5, 3), torch.tensor([0, 2, 1, 1, 0])
    loss = distillation_loss(logits, F.one_hot(label, 3).double(), 1.0)
    torch.testing.assert_close(loss, F.cross_entropy(logits, label))


def test_loss_is_least_where_the_student_is_its_teacher():
    """And there it is T^2 times the entropy of the target."""
    teacher = normal(5, 3)
    target, student = soft_targets(teacher[None], 2.0), (teacher + 7).requires_grad_()  # a shift is nothing
    loss = distillation_loss(student, target, 2.0)
    torch.testing.assert_close(loss.detach(), -4 * (target * target.log()).sum(-1).mean())
    (slope,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(slope, torch.zeros_like(slope))


def test_hot_gradients_match_the_logits():
    """Hinton et al. 2015, eq. 4: (z - v)/A, each less its mean, here the mean over five inputs."""
    teacher, student = normal(5, 3), normal(5, 3, seed=1).requires_grad_()
    loss = distillation_loss(student, soft_targets(teacher[None], 1e4), 1e4)
    (slope,) = torch.autograd.grad(loss, student)
    gap = (student - teacher).detach()
    expected = (gap - gap.mean(-1, keepdim=True)) / 3 / 5
    torch.testing.assert_close(slope, expected, rtol=1e-3, atol=1e-5)


def distilled(x, soft, config: DistillationConfig, g: torch.Generator) -> torch.nn.Module:
    student = Distilled(x.shape[1], soft.shape[1], config, g)
    for _ in range(config.epochs):
        student.epoch(x, soft)
    return student.network


def test_a_student_gets_the_probabilities_or_the_labels():
    """Of a linear teacher: by soft targets its odds, by hard ones its choices but not how sure it was."""
    x, weight = normal(300, 2).float(), torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])
    soft = soft_targets((x @ weight)[None], 1.0)
    options = {"temperature": 1.0, "epochs": 200, "lr": 3e-2, "hidden": ()}
    g = torch.Generator().manual_seed(0)
    odds = distilled(x, soft, DistillationConfig(**options), g)
    labels = distilled(x, soft, DistillationConfig(**options, hard=True), g)
    with torch.no_grad():
        torch.testing.assert_close(odds(x).softmax(-1), soft, rtol=0, atol=0.01)
        assert (labels(x).argmax(-1) == soft.argmax(-1)).float().mean() > 0.97
        assert (labels(x).softmax(-1) - soft).abs().mean() > 0.1


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0}, {"epochs": 0}, {"batch_size": 0}, {"lr": math.nan}, {"hidden": (8, 0)},
    ],
)  # fmt: skip
def test_bad_settings_are_named(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        DistillationConfig(**change)


@pytest.mark.parametrize(
    ("logits", "temperature", "name"),
    [
        (torch.zeros(3), 1.0, "logits"),
        (torch.full((1, 3), math.nan), 1.0, "logits"),
        (torch.full((1, 3), -math.inf), 1.0, "logits"),
        (torch.tensor([[0.0, math.inf]]), 1.0, "logits"),
        (torch.zeros(1, 3), 0.0, "t"),
    ],
)
def test_bad_targets_are_named(logits, temperature, name):
    with pytest.raises(UsageError, match=name):
        soft_targets(logits, temperature)


def test_inputs_without_a_target_each_are_refused():
    with pytest.raises(UsageError, match="x and soft"):
        Distilled(2, 2, DistillationConfig(), torch.Generator()).epoch(torch.zeros(3, 2), torch.zeros(4, 2))


def test_the_learning_rate_falls_to_zero_with_the_passes():
    student = Distilled(2, 3, DistillationConfig(epochs=4, lr=0.8), torch.Generator().manual_seed(0))
    rates = []
    for _ in range(4):
        student.epoch(normal(8, 2).float(), soft_targets(normal(1, 8, 3).float(), 1.0))
        rates.append(student.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.8, 0.6, 0.4, 0.2])
