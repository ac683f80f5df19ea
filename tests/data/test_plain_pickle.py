"""CIFAR files that somebody has written again: any protocol, numbers of NumPy."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_zoo.data.image import arrays, plain_pickle
from ssl_zoo.errors import ConfigError

FILES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def written(root: Path, protocol: int, labels: Any) -> Path:
    pixels = np.arange(3 * 3072).reshape(3, 3072).astype(np.uint8)
    (root / "cifar-10-batches-py").mkdir()
    for name in FILES:
        content = {"data": pixels, "labels": labels, "filenames": [np.str_("a.png")], "batch": np.bytes_(b"one")}
        (root / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(content, protocol))
    names = {"label_names": [np.str_(f"class {i}") for i in range(10)]}
    (root / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps(names, protocol))
    return root


LABELS = {
    "numbers": [7, 0, 3],
    "numbers of NumPy": [np.int64(7), np.int64(0), np.int64(3)],
    "bytes of NumPy": [np.uint8(7), np.uint8(0), np.uint8(3)],
    "an array": np.array([7, 0, 3], np.int32),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", LABELS)
def test_every_protocol_and_kind_of_label_is_read(tmp_path: Path, protocol: int, kind: str) -> None:
    train, val = arrays.cifar10(str(written(tmp_path, protocol, LABELS[kind])), 32, 3)
    assert train.labels.tolist() == [7, 0, 3] * 5 and train.classes[9] == "class 9"
    assert val.images[1, 2, 31, 30].item() == (3072 + 3070) % 256


def test_names_of_both_versions_of_numpy_are_known() -> None:
    for core in ("core", "_core"):
        for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer")):
            assert callable(plain_pickle._Plain(io.BytesIO()).find_class(f"numpy.{core}.{module}", name))


def test_labels_that_are_no_whole_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds float64 \(3,\) for labels, not a whole number for each image"):
        arrays.cifar10(str(written(tmp_path, 4, [0.5, 1.0, 2.0])), 32, 3)


class Runs:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("hacked"),)


@pytest.mark.parametrize("inside", [[Runs()], np.array([Runs()], object)])
@pytest.mark.parametrize("protocol", [2, 5])
def test_what_is_no_data_is_named_with_the_fix_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: Any, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "asks for .*, which is not data; write it again with NumPy arrays and lists alone"
    with pytest.raises(ConfigError, match=words):
        arrays.cifar10(str(written(tmp_path, protocol, inside)), 32, 3)
    assert not Path("hacked").exists()
