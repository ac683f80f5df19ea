"""An order that reads all groups equally often."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssl_zoo.data.sampler import Groups, Plan, balanced_order
from ssl_zoo.data.source import Shards
from ssl_zoo.errors import ConfigError


def test_groups_of_any_size_come_equally_often() -> None:
    number = torch.tensor([0] * 70 + [1] * 20 + [2] * 9 + [3])
    order = balanced_order(Groups(number, None), np.random.RandomState(0))
    counts = number[order].bincount()
    assert len(order) == 100 and counts.sum() == 100
    assert counts.max() <= 26 and counts.min() >= 22  # 26 of each, four of them cut off
    drawn = order[number[order] == 0]
    assert len(drawn.unique()) == len(drawn)  # a large group shows different samples


def test_a_sample_without_a_group_is_one_of_its_own() -> None:
    order = balanced_order(Groups(torch.tensor([-1, 0, 0, 0, 0, -1]), None), np.random.RandomState(0))
    counts = order.bincount(minlength=6)
    assert counts[0] > 0 and counts[5] > 0 and counts[[0, 5]].max() <= 3


def test_a_plan_reads_groups_evenly_and_anew_each_epoch() -> None:
    plans = [Plan(64, 16, seed=3, rank=rank, world=2) for rank in range(2)]
    number = torch.tensor([0] * 48 + [1] * 16)
    for plan in plans:
        plan.group(Groups(number, None))
    epochs = [torch.cat([plan.index(epoch, i)[0] for i in range(4) for plan in plans]) for epoch in (0, 0, 1)]
    assert torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[0], epochs[2])
    assert 31 <= int((number[epochs[0]] == 1).sum()) <= 33


def test_shards_name_the_option_that_switches_it_off() -> None:
    plan = Plan(8, 4, seed=0, shards=Shards(torch.arange(8) // 4, 2, 1))
    with pytest.raises(ConfigError, match="or method.sampling=null"):
        plan.group(Groups(torch.zeros(8, dtype=torch.int64), None))
