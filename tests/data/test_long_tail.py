"""Long-tailed training sets."""

import numpy as np
import pytest
import torch

from ssl_zoo.data.image.synthetic import synthetic
from ssl_zoo.data.splits import long_tail, split
from ssl_zoo.errors import ConfigError
from tests.data.helpers import batches, memory

CIFAR = torch.arange(10).repeat(5000)  # ten classes of 5,000, as in CIFAR-10
NAMES = [str(i) for i in range(10)]


def test_the_profile_of_cifar10_at_100():
    counts = CIFAR[long_tail(CIFAR, NAMES, 100)].bincount().tolist()
    assert counts == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]  # the long-tailed CIFAR-10 of the literature
    assert sum(counts) == 12406


def test_the_same_samples_as_the_published_code_chooses():
    """As imbalance_cifar.py of kaidic/LDAM-DRW: one legacy generator of seed 0 shuffles class after class."""
    np.random.seed(0)
    wanted = []
    for c in range(10):
        rows = np.where(CIFAR.numpy() == c)[0]
        np.random.shuffle(rows)
        wanted += rows[: int(5000 * 0.01 ** (c / 9.0))].tolist()
    assert long_tail(CIFAR, NAMES, 100).tolist() == sorted(wanted)


def test_a_ratio_of_one_keeps_balanced_classes_and_small_classes_keep_what_they_have():
    assert len(long_tail(CIFAR, NAMES, 1)) == len(CIFAR)
    labels = torch.tensor([0] * 10 + [1] * 2 + [2] * 3)
    assert labels[long_tail(labels, ["a", "b", "c"], 1000)].bincount().tolist() == [5, 1, 1]


@pytest.mark.parametrize(
    ("labels", "names", "ratio", "message"),
    [
        (None, None, 100, "data.imbalance=100: the training set has no labels, so its classes cannot be cut"),
        (torch.tensor([0, -1]), ["a", "b"], 10, "has samples without a label"),
        (torch.tensor([0, 1]), ["a", "b"], 0.5, "wanted null, or how many times larger"),
        (torch.tensor([0, 0]), ["a"], 10, "the training set has 1 classes"),
    ],
)
def test_what_cannot_be_cut_is_refused(labels, names, ratio, message):
    with pytest.raises(ConfigError, match=message):
        long_tail(labels, names, ratio)


def test_a_subset_and_a_held_out_part_are_cut_from_the_tail():
    source = synthetic(image_size=8, channels=3, samples=400, classes=4).train
    kept = set(long_tail(source.labels, source.classes, 10).tolist())
    train, held = split(source, 50, 0.2, imbalance=10)
    assert len(train) == 50 and len(held) == round(0.2 * len(kept))
    positions = train.positions.tolist() + held.positions.tolist()
    assert len(set(positions)) == len(positions) and set(positions) <= kept


def test_the_datamodule_trains_on_the_tail_and_validates_on_all_classes():
    data = memory(batch_size=8, samples=400, imbalance=10)
    counts = data.train_labels.bincount().tolist()
    assert counts == [100, 46, 21, 10] and data.info.samples == sum(counts)
    assert data.val_loader().samples == 10
    assert max(int(batch.index.max()) for batch in batches(data)) < sum(counts)
