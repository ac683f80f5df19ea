"""SVHN from its MATLAB files: order of axes, digit 0, images without labels, files that are damaged or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from ssl_zoo.data.image.svhn import svhn
from ssl_zoo.errors import ConfigError


def stored(folder: Path, part: str, labels: list[int], seed: int = 0) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.RandomState(seed).randint(0, 256, (32, 32, 3, len(labels)), dtype=np.uint8)
    savemat(folder / f"{part}_32x32.mat", {"X": images, "y": np.array(labels, dtype=np.uint8)[:, None]})
    return images


def test_images_are_planes_and_ten_is_zero(tmp_path):
    images = stored(tmp_path / "svhn", "train", [1, 10, 9])
    stored(tmp_path / "svhn", "test", [2])
    train, test = svhn(str(tmp_path), 32, 3)
    assert train.labels.tolist() == [1, 0, 9] and test.labels.tolist() == [2] and train.classes == list("0123456789")
    assert int(train.images[1, 2, 5, 7]) == images[5, 7, 2, 1] and train.images.shape == (3, 3, 32, 32)


def test_extra_images_have_no_labels(tmp_path):
    for part, labels in (("train", [1, 2]), ("extra", [3, 4, 5]), ("test", [6])):
        stored(tmp_path, part, labels)
    train, _ = svhn(str(tmp_path), 16, 1, split="train+extra")
    assert train.labels.tolist() == [1, 2, -1, -1, -1] and train.images.shape == (5, 1, 16, 16)
    assert train.images.dtype == torch.uint8


def test_absent_and_damaged_files_are_named(tmp_path):
    stored(tmp_path, "train", [1])
    with pytest.raises(ConfigError, match=r"SVHN is not there \(looked for train_32x32.mat, test_32x32.mat in .*svhn"):
        svhn(str(tmp_path), 32, 3)
    (tmp_path / "test_32x32.mat").write_bytes(b"no MATLAB file, but as long as the header of one" * 20)
    with pytest.raises(ConfigError, match="test_32x32.mat: cannot be read .*; delete its folder and run once with"):
        svhn(str(tmp_path), 32, 3)
    savemat(tmp_path / "test_32x32.mat", {"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1))})
    with pytest.raises(ConfigError, match=r"holds float64 \(32, 32, 3, 2\) and 2 labels, not 32 x 32 x 3 a label"):
        svhn(str(tmp_path), 32, 3)
