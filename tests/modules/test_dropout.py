"""Dropout with drawn masks."""

from __future__ import annotations

import torch
from torch import nn

from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.modules.dropout import dropout, with_dropout


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


def test_each_linear_layer_of_a_head_has_dropout_of_its_own_before_it() -> None:
    rng = BatchRNG(0, 0, 0, torch.arange(8))
    first, second = nn.Linear(5, 4), nn.Linear(4, 3)
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    inner = first(dropout(x, 0.5, rng.sample(("dropout", 0)))).relu()
    wanted = second(dropout(inner, 0.5, rng.sample(("dropout", 2))))
    assert torch.equal(with_dropout([first, nn.ReLU(), second], x, 0.5, rng), wanted)
