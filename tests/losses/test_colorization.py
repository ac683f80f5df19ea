"""Colours as classes: by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_zoo.losses.colorization import (
    SoftBins,
    annealed_mean,
    colour_rows,
    rarity,
    rebalanced_divergence,
    regression_rows,
    soft_bins,
)

CENTRES = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [50.0, 50.0]])


def test_weights_of_two_bins_are_those_of_the_gaussian() -> None:
    found = soft_bins(torch.tensor([2.0, 0.0]).view(1, 2, 1, 1), CENTRES, 2, 5.0)
    near, far = math.exp(-4 / 50), math.exp(-64 / 50)
    assert found.index.flatten().tolist() == [0, 1]
    assert found.weight.flatten().tolist() == pytest.approx([near / (near + far), far / (near + far)])
    assert found.dense(4).flatten().tolist() == pytest.approx([near / (near + far), far / (near + far), 0, 0])


def test_equally_near_bins_come_in_their_order() -> None:
    found = soft_bins(torch.zeros(1, 2, 2, 3), CENTRES, 3)
    assert found.index.shape == (1, 3, 2, 3) and (found.index == torch.tensor([0, 1, 2]).view(1, 3, 1, 1)).all()


def test_rare_bins_weigh_more_and_the_mean_is_one() -> None:
    prior = torch.tensor([0.75, 0.25, 0.0])
    weight = rarity(prior, 0.5)
    # 1 / (0.375 + 0.25), 1 / (0.125 + 0.25), 1 / 0.25 before their mean is made 1
    assert (weight / weight[0]).tolist() == pytest.approx([1, 0.625 / 0.375, 0.625 / 0.25])
    assert (prior * weight).sum().item() == pytest.approx(1)


def test_weights_multiply_gradients_and_not_the_value() -> None:
    target = SoftBins(torch.tensor([0, 1]).view(1, 2, 1, 1), torch.tensor([0.75, 0.25]).view(1, 2, 1, 1))
    logits = torch.zeros(1, 4, 1, 1, requires_grad=True)
    loss = rebalanced_divergence(logits, target, torch.full((1, 1, 1), 3.0))
    assert loss.item() == pytest.approx(math.log(4) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25), abs=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == pytest.approx([3 * (0.25 - 0.75), 0, 0.75, 0.75])


def test_pixels_are_summed_and_images_averaged() -> None:
    target = SoftBins(torch.zeros(2, 1, 3, 5, dtype=torch.int64), torch.ones(2, 1, 3, 5))
    loss = rebalanced_divergence(torch.zeros(2, 4, 3, 5), target, torch.zeros(2, 3, 5))
    assert loss.item() == pytest.approx(15 * math.log(4), rel=1e-6)
    assert colour_rows(torch.zeros(2, 4, 3, 5), target.index[:, 0]).tolist() == pytest.approx([math.log(4)] * 2)


def test_the_distance_of_colours_is_that_of_a_and_that_of_b() -> None:
    predicted = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1).expand(3, 2, 4, 4)
    assert regression_rows(predicted, torch.zeros(3, 2, 4, 4)).tolist() == [3.0, 3.0, 3.0]


def test_a_cold_mean_is_the_likeliest_bin_and_a_warm_one_lies_between() -> None:
    logits = torch.tensor([1.0, 0.0, 0.0, -9.0]).view(1, 4, 1, 1)
    assert annealed_mean(logits, CENTRES, 0.01).flatten().tolist() == pytest.approx([0, 0], abs=1e-6)
    share = 1 / (math.e + 2)
    assert annealed_mean(logits, CENTRES, 1.0).flatten().tolist() == pytest.approx([10 * share] * 2, abs=2e-2)
