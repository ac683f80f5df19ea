"""Prediction of clusters: a hand-derived number, the definition as loops, samples without a cluster."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_zoo.losses.clustering import cluster_prediction


def test_two_clusterings_of_one_sample() -> None:
    # Scores (1, 0) at temperature 1/2 against the first of two, and three equal ones: log(1 + e^-2) and log 3.
    scores = [torch.tensor([[1.0, 0.0]]), torch.zeros(1, 3)]
    loss = cluster_prediction(scores, torch.tensor([[0], [2]]), torch.ones(2), 0.5)
    assert loss.item() == pytest.approx((math.log(1 + math.exp(-2)) + math.log(3)) / 2, abs=1e-6)


def test_it_equals_the_mean_over_clusterings_views_and_labelled_samples_as_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = [torch.randn(3 * 4, k, generator=generator).double().requires_grad_() for k in (5, 7)]
    targets = torch.tensor([[0, 4, -100, 2], [6, -100, -100, 1]])
    wanted = 0.0
    for s, target in zip(scores, targets, strict=True):
        known = [(v * 4 + i, target[i]) for v in range(3) for i in range(4) if target[i] >= 0]
        terms = [-torch.log_softmax(s[row] / 0.1, 0)[cluster] for row, cluster in known]
        wanted += sum(terms) / len(terms) / 2  # type: ignore[assignment]
    loss = cluster_prediction(scores, targets, (targets >= 0).sum(1).double(), 0.1)
    torch.testing.assert_close(loss, torch.as_tensor(wanted), rtol=1e-12, atol=0)
    loss.backward()
    assert scores[0].grad is not None and scores[0].grad.view(3, 4, 5)[:, 2].abs().max() == 0  # no label, no gradient


def test_without_any_label_the_loss_is_zero() -> None:
    scores = torch.randn(4, 3, requires_grad=True)
    loss = cluster_prediction([scores], torch.full((1, 4), -100), torch.ones(1))
    loss.backward()
    assert loss == 0 and scores.grad is not None and scores.grad.abs().max() == 0
