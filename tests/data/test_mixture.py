"""Batches of labelled samples with a number of unlabelled ones beside each of them."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from ssl_zoo.data.image.datamodule import ImageData
from ssl_zoo.data.image.synthetic import synthetic
from ssl_zoo.data.sampler import Groups, Mixture, Plan, order
from ssl_zoo.data.source import Shards
from ssl_zoo.errors import ConfigError
from tests.data.helpers import augmentation, batches, memory

LABELS = torch.tensor([0, -1, 1, -1, -1, 2, -1, 3, -1, -1, 0, -1])  # five with a label


def plan(ratio=2, rank=0, world=1, steps=None, labels=LABELS):
    return Plan(len(labels), 4, 0, rank=rank, world=world, steps=steps, mixture=Mixture.of(labels, ratio))


def test_every_share_of_a_batch_has_both_kinds_in_proportion():
    whole = plan().index(0, 0)[0]
    assert len(whole) == 12 and (LABELS[whole].view(4, 3) >= 0).tolist() == [[True, False, False]] * 4
    halves = [plan(rank=rank, world=2).index(0, 0)[0] for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), whole)


def test_labelled_samples_make_the_epoch_and_keep_their_order():
    one = plan()
    assert (one.length, one.rows, one.counted) == (1, 12, 5)
    labelled = (LABELS >= 0).nonzero().flatten()
    assert torch.equal(one.index(3, 0)[0][::3], labelled[order(0, 3, 5)[:4]])


def test_unlabelled_samples_come_again_when_an_epoch_wants_more():
    index = torch.cat([plan(ratio=4, steps=2).index(0, step)[0] for step in (0, 1)])
    counts = index.bincount(minlength=12)[LABELS < 0]
    assert len(index) == 40 and counts.sum() == 32 and counts.min() >= 4 and counts.max() <= 6


@pytest.mark.parametrize("labels, got", [(torch.zeros(4), "4 and 0"), (None, "0 and 0"), (-torch.ones(4), "0 and 4")])
def test_samples_of_one_kind_are_no_mixture(labels, got):
    with pytest.raises(ConfigError, match=f"data.unlabelled_per_labelled=5: wanted .* got {got}; set data.labels to"):
        Mixture.of(labels, 5)


def test_what_reads_samples_in_another_order_is_refused():
    with pytest.raises(ConfigError, match="reads samples by groups; set data.unlabelled_per_labelled=null"):
        plan().group(Groups(torch.zeros(12, dtype=torch.int64), None))
    shards = Shards(torch.zeros(12, dtype=torch.int64), 1, 1)
    with pytest.raises(ConfigError, match="data.unlabelled_per_labelled=2: labelled samples lie all over the shards"):
        Plan(12, 4, 0, shards=shards, mixture=Mixture.of(LABELS, 2))
    with pytest.raises(ConfigError, match="the training set has 5 labelled samples, fewer than data.batch_size=8"):
        Plan(12, 8, 0, mixture=Mixture.of(LABELS, 2))


def test_a_data_set_gives_such_batches_and_counts_its_epochs_by_labels():
    data = memory(batch_size=4, samples=32, labels=0.5, unlabelled_per_labelled=2, accumulate=2)
    assert (data.info.samples, data.info.batch_size, data.epoch_samples) == (32, 6, 16)
    epoch = batches(data)
    assert len(epoch) == 8
    for batch in epoch:
        assert (batch.label.view(2, 3) >= 0).tolist() == [[True, False, False]] * 2
        assert len(batch.views[0]) == 6 and len(batch.rng.slot) == 6


def test_views_are_cut_from_images_of_the_stored_size():
    data = ImageData(partial(synthetic, samples=8, val_samples=4), 4, 16, 3, augmentation(), stored_size=20)
    assert data.train.source.image_size == 20 and data.info.image_size == 16
    assert batches(data)[0].views[0].shape[-2:] == (16, 16)
