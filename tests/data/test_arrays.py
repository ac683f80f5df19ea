import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_zoo.data.image import arrays
from ssl_zoo.data.image.synthetic import synthetic
from ssl_zoo.errors import ConfigError


def cifar_like(root: Path, n: int = 4, labels: str = "labels", names: list[str] | None = None) -> None:
    rng = np.random.RandomState(0)
    root.mkdir(parents=True, exist_ok=True)
    for name in names or [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        content = {"data": rng.randint(0, 256, (n, 3072), dtype=np.uint8), labels: list(range(n))}
        (root / name).write_bytes(pickle.dumps(content, protocol=2))


def test_digits_are_split_by_class_and_scaled_to_bytes():
    train, val = arrays.digits(image_size=8, channels=1)
    assert (len(train), len(val)) == (1438, 359)
    assert (train.images.dtype, train.images.shape[1:], int(train.images.max())) == (torch.uint8, (1, 8, 8), 255)
    share = train.labels.bincount() / (train.labels.bincount() + val.labels.bincount())
    assert share.sub(0.8).abs().max() < 0.005
    joined = torch.cat([train.images, val.images]).flatten(1).float().sum(1)
    assert len(joined) == 1797


def test_digits_at_another_size_with_three_equal_channels():
    train, _ = arrays.digits(image_size=32, channels=3)
    assert train.images.shape == (1438, 3, 32, 32)
    assert torch.equal(train.images[:, 0], train.images[:, 2])


def test_colour_becomes_grey_by_luminance():
    red = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    red[:, 0] = 200
    assert arrays.shaped(red, 2, 1).unique().tolist() == [60]  # 0.299 * 200 = 59.8


def test_cifar_is_read_from_either_folder_in_planes(tmp_path):
    cifar_like(tmp_path / "cifar-10-batches-py")
    train, val = arrays.cifar10(str(tmp_path), 32, 3)
    direct, _ = arrays.cifar10(str(tmp_path / "cifar-10-batches-py"), 32, 3)
    assert (len(train), len(val), train.classes[3]) == (20, 4, "3")
    assert torch.equal(train.images, direct.images)
    stored = pickle.loads((tmp_path / "cifar-10-batches-py" / "data_batch_2").read_bytes())
    # A row holds 1024 red, then green, then blue bytes, each plane row by row.
    assert int(train.images[5, 1, 2, 3]) == stored["data"][1][1024 + 2 * 32 + 3]
    assert train.labels[4:8].tolist() == [0, 1, 2, 3]


def test_cifar100_reads_fine_labels(tmp_path):
    cifar_like(tmp_path / "cifar-100-python", labels="fine_labels", names=["train", "test"])
    train, _ = arrays.cifar100(str(tmp_path), 32, 3)
    assert (len(train), len(train.classes), train.labels.tolist()) == (4, 100, [0, 1, 2, 3])


def test_cifar_trains_on_its_test_images_too_and_then_validates_on_nothing(tmp_path):
    cifar_like(tmp_path / "cifar-10-batches-py")
    train, val = arrays.cifar10(str(tmp_path), 32, 3, split="train+test")
    parts = arrays.cifar10(str(tmp_path), 32, 3)
    assert val is None and len(train) == 24
    assert torch.equal(train.images, torch.cat([part.images for part in parts]))


def test_missing_cifar_says_where_it_looked_and_what_to_do(tmp_path):
    with pytest.raises(ConfigError) as error:
        arrays.cifar10(str(tmp_path), 32, 3)
    words = ["CIFAR10 is not there", "data_batch_1", str(tmp_path / "cifar-10-batches-py"), "data.download=true"]
    assert all(word in str(error.value) for word in words), error.value


class _Evil:
    def __reduce__(self):
        return (Path.touch, (Path("hacked"),))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x80\x02broken", "cannot be read"),
        (pickle.dumps(_Evil(), 2), "which is not data"),
        (pickle.dumps({"data": np.zeros((2, 7), np.uint8), "labels": [0, 1]}, 2), "not 3072 bytes a label"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}, 2), "labels outside of 0 .. 9"),
        (pickle.dumps({"pixels": 1}, 2), "not data and labels"),
    ],
)
def test_damaged_pickles_are_named_and_never_run(tmp_path, monkeypatch, content, words):
    monkeypatch.chdir(tmp_path)
    cifar_like(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
    with pytest.raises(ConfigError) as error:
        arrays.cifar10(str(tmp_path), 32, 3)
    assert words in str(error.value) and "data_batch_3" in str(error.value) and "data.download=true" in str(error.value)
    assert not Path("hacked").exists()


def test_fashion_mnist_from_packed_files(tmp_path, monkeypatch):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, n in (("train", 60000), ("t10k", 10000)):
        pixels = np.zeros((n, 28, 28), np.uint8)
        pixels[1, 2, 3] = 9
        (raw / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + pixels.tobytes(), 1))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(bytes(8) + bytes(i % 10 for i in range(n)))
    train, val = arrays.fashion_mnist(str(tmp_path), 28, 1)
    assert (len(train), len(val), int(train.images[1, 0, 2, 3]), int(train.labels[13])) == (60000, 10000, 9, 3)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(bytes(100))
    with pytest.raises(ConfigError, match="t10k-labels-idx1-ubyte: holds 92 values, 10000 expected"):
        arrays.fashion_mnist(str(tmp_path), 28, 1)


def test_stl10_is_stored_by_columns_and_may_be_unlabelled(tmp_path):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    rng = np.random.RandomState(0)
    for part, n in (("train", 3), ("test", 2), ("unlabeled", 4)):
        (folder / f"{part}_X.bin").write_bytes(rng.randint(0, 256, n * 27648, dtype=np.uint8).tobytes())
        (folder / f"{part}_y.bin").write_bytes(bytes(range(1, n + 1)))
    (folder / "class_names.txt").write_text("airplane\nbird\ncar")
    both, val = arrays.stl10(str(tmp_path), 96, 3)
    assert both.labels.tolist() == [0, 1, 2, -1, -1, -1, -1] and val.labels.tolist() == [0, 1]
    raw = np.fromfile(folder / "train_X.bin", np.uint8)
    assert int(both.images[1, 2, 5, 7]) == raw[27648 + 2 * 9216 + 7 * 96 + 5]  # column 7, row 5
    alone, _ = arrays.stl10(str(tmp_path), 96, 3, split="unlabeled")
    assert (len(alone), alone.labels, alone.classes) == (4, None, None)


def test_download_puts_only_complete_folders_in_place(tmp_path, monkeypatch):
    import torchvision

    def fetch(root: str, download: bool) -> None:
        cifar_like(Path(root) / "cifar-10-batches-py")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fetch)
    train, _ = arrays.cifar10(str(tmp_path), 32, 3, download=True)
    assert len(train) == 20 and [path.name for path in tmp_path.iterdir()] == ["cifar-10-batches-py"]

    def broken(root: str, download: bool) -> None:
        cifar_like(Path(root) / "half")
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", broken)
    other = tmp_path / "other"
    with pytest.raises(ConfigError, match="could not be fetched.*no route to host.*with a connection"):
        arrays.cifar10(str(other), 32, 3, download=True)
    assert not any(other.iterdir())


def test_synthetic_images_are_a_function_of_their_seed_and_may_be_unlabelled():
    state = torch.get_rng_state()
    train, val = synthetic(image_size=8, channels=3, samples=12, val_samples=4)
    again, _ = synthetic(image_size=8, channels=3, samples=12, val_samples=4)
    other, _ = synthetic(image_size=8, channels=3, samples=12, val_samples=4, seed=1)
    assert torch.equal(train.images, again.images) and not torch.equal(train.images, other.images)
    assert train.labels.tolist() == [0, 1, 2, 3] * 3 and len(val) == 4
    assert synthetic(image_size=8, channels=1, samples=4, classes=None).train.labels is None
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("images", [
    torch.rand(4, 3, 8, 8) * 2 - 1, torch.zeros(4, 3, 8, 8, dtype=torch.int32), torch.zeros(4, 8, 8, dtype=torch.uint8),
])
def test_pixels_of_another_type_or_shape_say_what_is_wanted(images):
    with pytest.raises(ConfigError, match=r"wanted (\[N, C, H, W\] of torch.uint8, .*, or )?floats in \[0, 1\]"):
        arrays.Arrays(images, None, None)
