"""Losses against guessed classes, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_zoo.losses.distillation import softened_cross_entropy, softened_kl
from ssl_zoo.losses.self_training import cross_entropy_rows, sharpened


def test_rows_without_a_target_cost_nothing():
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0], [5.0, 0.0]])
    hard = cross_entropy_rows(logits, torch.tensor([0, 1, -1]))
    torch.testing.assert_close(hard, torch.tensor([math.log(4 / 3), math.log(2), 0.0]))
    soft = cross_entropy_rows(logits, torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]]))
    torch.testing.assert_close(soft, hard)


def test_smoothing_is_that_of_hard_and_of_one_hot_targets():
    logits = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 3, 1, 2, 2])
    one_hot = torch.nn.functional.one_hot(target, 4).double()
    torch.testing.assert_close(cross_entropy_rows(logits, target, 0.1), cross_entropy_rows(logits, one_hot, 0.1))
    mixed = 0.9 * one_hot + 0.1 / 4
    wanted = -(mixed * logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(cross_entropy_rows(logits, target, 0.1), wanted)


def test_sharpening_is_the_softmax_of_logits_over_the_temperature():
    logits = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(sharpened(logits.softmax(1), 0.5), (logits / 0.5).softmax(1))
    assert torch.equal(sharpened(torch.zeros(2, 3), 0.5), torch.zeros(2, 3))


def test_distillation_of_a_known_pair():
    # The teacher is sure of class 0 at odds 3 : 1, the student knows nothing: ln 2 nats, times T^2 at temperature 1.
    teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
    assert softened_cross_entropy(student, teacher, 1.0).item() == pytest.approx(math.log(2))
    assert softened_cross_entropy(student, teacher, 2.0).item() == pytest.approx(4 * math.log(2))


def test_it_is_the_divergence_and_the_teachers_entropy():
    generator = torch.Generator().manual_seed(2)
    student, teacher = (torch.randn(6, 7, dtype=torch.float64, generator=generator) for _ in range(2))
    q = (teacher / 3).softmax(1)
    entropy = -(q * q.log()).sum(1).mean()
    torch.testing.assert_close(
        softened_cross_entropy(student, teacher, 3.0), softened_kl(student, teacher, 3.0) + 9 * entropy
    )
