"""Dropout with drawn masks."""

from __future__ import annotations

import torch

from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.modules.dropout import dropout


def test_a_share_of_the_entries_is_zero_and_the_mean_stays() -> None:
    rng = BatchRNG(0, 0, 0, torch.arange(200))
    out = dropout(torch.ones(200, 100), 0.25, rng.sample("dropout"))
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert abs(float((out == 0).float().mean()) - 0.25) < 0.01  # 20,000 entries: standard deviation 0.003


def test_masks_belong_to_samples() -> None:
    x = torch.ones(8, 5)
    whole = dropout(x, 0.5, BatchRNG(0, 0, 0, torch.arange(8)).sample("dropout"))
    half = dropout(x[4:], 0.5, BatchRNG(0, 0, 0, torch.arange(4, 8)).sample("dropout"))
    assert torch.equal(whole[4:], half)


def test_without_dropout_nothing_happens() -> None:
    x = torch.randn(3, 2)
    assert dropout(x, 0.0, BatchRNG(0, 0, 0, torch.arange(3)).sample("dropout")) is x
