import numpy as np
import pytest
import torch

from ssl_zoo.data.image.synthetic import synthetic
from ssl_zoo.data.splits import fixed_permutation, labelled_rows, split
from ssl_zoo.errors import ConfigError
from tests.data.helpers import memory


@pytest.fixture(scope="module")
def source():
    return synthetic(image_size=8, channels=1, samples=50, val_samples=0).train


def test_fixed_permutation_is_numpys_legacy_stream():
    assert fixed_permutation(10).tolist() == [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]


def test_a_smaller_subset_is_the_beginning_of_a_larger_one(source):
    small, _ = split(source, 5, None)
    large, _ = split(source, 20, None)
    expected = np.random.RandomState(0).permutation(50)
    assert large.positions.tolist() == expected[:20].tolist()
    assert torch.equal(small.positions, large.positions[:5])
    assert torch.equal(small.fetch(torch.tensor([4])), source.fetch(torch.tensor([expected[4]])))
    assert torch.equal(small.labels, source.labels[torch.from_numpy(expected[:5])])


def test_without_options_samples_keep_their_order(source):
    train, held = split(source, None, None)
    assert train.positions.tolist() == list(range(50)) and held is None


def test_val_fraction_splits_without_overlap_and_beside_a_subset(source):
    train, held = split(source, None, 0.2)
    assert len(held) == 10 and sorted(train.positions.tolist() + held.positions.tolist()) == list(range(50))
    subset, same = split(source, 40, 0.2)
    assert torch.equal(same.positions, held.positions)
    assert sorted(subset.positions.tolist()) == train.positions.tolist()


@pytest.mark.parametrize(
    ("subset", "fraction", "words"),
    [
        (51, None, "data.subset=51: wanted null, or 1 to 50"),
        (0, None, "data.subset=0"),
        (41, 0.2, "1 to 40, all training samples (50 less data.val_fraction)"),
        (None, 1.0, "data.val_fraction=1.0: wanted null, or a share between 0 and 1"),
        (None, 0.999, "nothing of 50 samples is left"),
    ],
)
def test_impossible_splits(source, subset, fraction, words):
    with pytest.raises(ConfigError) as error:
        split(source, subset, fraction)
    assert words in str(error.value)


def test_labelled_rows_are_balanced_seeded_and_never_empty():
    labels = torch.tensor([0] * 40 + [1] * 20 + [2] * 3 + [-1] * 7)
    rows = labelled_rows(labels, 0.1, seed=0)
    assert labels[rows].bincount().tolist() == [4, 2, 1]
    assert torch.equal(rows, labelled_rows(labels, 0.1, seed=0)) and rows.tolist() == sorted(rows.tolist())
    assert not torch.equal(rows, labelled_rows(labels, 0.1, seed=1))


def test_other_samples_lose_their_label_and_the_list_is_in_the_state():
    data = memory(samples=40, labels=0.25)
    assert data.labelled.shape == (8,)  # four classes of ten: round(2.5) = 2 of each
    kept = data.train_labels
    assert (kept >= 0).nonzero().flatten().tolist() == data.labelled.tolist()
    assert data.info.classes == 4
    assert torch.equal(data.state_dict()["labelled"], data.labelled)
    with pytest.raises(ConfigError, match="data.labels=2: wanted null, or the share of labels to keep"):
        memory(labels=2)
