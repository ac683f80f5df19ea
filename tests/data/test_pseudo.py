"""Pseudo-labels in a file, and samples without a label: what a run trains on."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from ssl_zoo.data.image.datamodule import ImageData
from ssl_zoo.data.image.synthetic import synthetic
from ssl_zoo.data.pseudo import PseudoLabels
from ssl_zoo.errors import ConfigError
from tests.data.helpers import augmentation, batches, memory


def guesses(data, copies):
    n = len(data.train)
    probabilities = torch.rand(n, 4, generator=torch.Generator().manual_seed(0))
    return PseudoLabels(probabilities / probabilities.sum(1, keepdim=True), copies, data.train.positions)


@pytest.fixture
def file(tmp_path):
    """Guesses for 30 samples, of which 8 keep their labels; sample i is seen i % 3 times."""
    path = tmp_path / "guesses.safetensors"
    guesses(memory(), torch.arange(30) % 3).write(path)
    return str(path)


def test_samples_come_as_often_as_the_file_says_and_labelled_ones_at_least_once(file):
    plain, data = memory(labels=0.25), memory(labels=0.25, pseudo_labels=file)
    labelled = plain.train_labels >= 0
    copies = (torch.arange(30) % 3).where(~labelled, (torch.arange(30) % 3).clamp_min(1))
    assert torch.equal(data.train.positions.bincount(minlength=30), copies)
    assert data.info.samples == int(copies.sum())
    assert torch.equal(data.train_labels, plain.train_labels[data.train.positions])


def test_a_batch_has_the_guesses_of_its_samples(file):
    data = memory(labels=0.25, pseudo_labels=file)
    wanted = PseudoLabels.read(file, memory().train).probabilities
    for batch in batches(data):
        rows = data.train.positions[batch.index]
        assert torch.equal(batch.extra["pseudo"], wanted[rows])


def test_guesses_for_other_samples_are_refused(file, tmp_path):
    with pytest.raises(ConfigError, match="made for 30 training samples, which are not the 20 of this run"):
        memory(subset=20, pseudo_labels=file)
    with pytest.raises(ConfigError, match="there is no such file; write it with: ssl-zoo pseudo-label"):
        memory(pseudo_labels=str(tmp_path / "none"))
    (tmp_path / "text").write_text("no tensors at all")
    with pytest.raises(ConfigError, match="text: holds no pseudo-labels"):
        memory(pseudo_labels=str(tmp_path / "text"))


def test_unlabelled_samples_can_be_dropped():
    data, plain = memory(labels=0.25, drop_unlabelled=True), memory(labels=0.25)
    rows = (plain.train_labels >= 0).nonzero().flatten()
    assert torch.equal(data.train.positions, rows) and data.info.samples == len(rows)
    assert torch.equal(data.train_labels, plain.train_labels[rows])
    state = data.state_dict()
    other = memory(labels=0.25, drop_unlabelled=True, seed=5)
    assert not torch.equal(other.train.positions, rows)
    other.load_state_dict(state)  # a resumed run keeps the labels that it had
    assert torch.equal(other.train.positions, rows)


def test_nothing_is_left_without_labels():
    with pytest.raises(ConfigError, match="data.drop_unlabelled=true: no training sample has a label"):
        ImageData(partial(synthetic, samples=30, classes=None), 8, 16, 3, augmentation(), drop_unlabelled=True)
