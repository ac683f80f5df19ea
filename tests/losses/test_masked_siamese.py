"""MSN's terms by hand and as loops."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_zoo.losses.masked_siamese import (
    assignment_cross_entropy,
    log_assignments,
    mean_entropy,
    missing_entropy,
    sharpened,
)


def test_assignments_are_a_softmax_of_cosines():
    # Cosines 1 and 0, whatever the lengths: odds of e^(1 / 0.5).
    p = log_assignments(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.1, 0.0], [0.0, 7.0]]), 0.5).exp()
    assert p[0, 0].item() == pytest.approx(math.exp(2) / (math.exp(2) + 1))


def test_smoothed_labels_spread_a_share_over_all_prototypes():
    z, prototypes = torch.randn(4, 3), torch.randn(5, 3)
    labels = 0.9 * torch.eye(5) + 0.1 / 5
    wanted = log_assignments(z, prototypes, 0.1).exp() @ labels
    torch.testing.assert_close(log_assignments(z, prototypes, 0.1, label_smoothing=0.1).exp(), wanted)


def test_sharpening_by_hand():
    log_p = torch.tensor([[0.8, 0.2]]).log()
    torch.testing.assert_close(sharpened(log_p, 0.5, 0), torch.tensor([[0.64, 0.04]]) / 0.68)


def test_balance_is_that_of_the_sharpened_probabilities():
    p = torch.rand(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(1)
    q = p ** (1 / 0.25)
    q = (q / q.sum(1, keepdim=True)).T
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / 4
        q = q / q.sum(0, keepdim=True) / 12
    torch.testing.assert_close(sharpened(p.log(), 0.25, 3), (q * 12).T)
    many = sharpened(p.log(), 0.25, 200)
    torch.testing.assert_close(many.sum(0), torch.full((4,), 3.0, dtype=torch.float64))


def test_a_probability_that_underflows_is_no_nan():
    log_p = log_assignments(torch.eye(2), torch.eye(2), 0.001)
    assert sharpened(log_p, 0.25, 3).isfinite().all()


def test_cross_entropy_is_the_mean_over_views_and_rows():
    p, targets = torch.rand(6, 3).softmax(1), torch.rand(2, 3).softmax(1)
    wanted = sum(-float(targets[row % 2] @ p[row].log()) for row in range(6)) / 6
    assert assignment_cross_entropy(p.log(), targets).item() == pytest.approx(wanted, rel=1e-5)


def test_the_mean_assignment_lacks_nothing_when_uniform_and_all_when_certain():
    assert missing_entropy(torch.full((5,), 0.2)).item() == pytest.approx(0, abs=1e-6)
    assert missing_entropy(torch.eye(5)[0]).item() == pytest.approx(math.log(5))
    assert mean_entropy(torch.full((3, 5), 0.2).log()).item() == pytest.approx(math.log(5))
