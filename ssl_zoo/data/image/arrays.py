"""Data sets that fit in memory: digits, Fashion-MNIST, CIFAR, STL-10; read from their original files.

The files are read here and not through torchvision's classes: those check the MD5 of pickles and archives at every
start, and refuse the same pixels in a folder that was written by anything but the original authors. Shapes and labels
are checked instead. Downloading is left to torchvision.
"""

from __future__ import annotations

import copy
import gzip
import math
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo import machine
from ssl_zoo.augmentations.image.views import WHITE
from ssl_zoo.data.fingerprint import Block, content, digest, numbers, sampled
from ssl_zoo.data.image import plain_pickle
from ssl_zoo.data.image.decode import Shrink
from ssl_zoo.data.image.source import ImageSource
from ssl_zoo.data.source import Splits
from ssl_zoo.errors import ConfigError
from ssl_zoo.sides import Side, height_width, plain_side

SHARE = 0.5  # of the memory of the machine that the images may take
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R 601-2, as Pillow's convert("L")


class Arrays(ImageSource):
    """Images in one tensor.

    Args:
        images: ``[N, C, H, W]`` of uint8, of uint16, or of floats in [0, 1].
        labels: ``[N]`` int64, -1 = none; None: unlabelled.
        classes: Their names.
        origin: What the fingerprint tells apart where ``images`` were computed, which rounds otherwise on another
            processor: the images before they were resized, or words that determine them. None: ``images``.
        white: The value of uint16 images that is white: 4095 of 12 bits.

    Raises:
        ConfigError: For pixels of another type or outside of [0, 1], whose range nobody knows, or of another shape.
    """

    in_memory = True
    damage_limit = 0

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None,
        classes: list[str] | None,
        origin: Tensor | str | None = None,
        white: int = WHITE,
    ) -> None:
        if images.dtype not in (torch.uint8, torch.uint16) and not images.is_floating_point() or images.dim() != 4:
            raise ConfigError(
                f"images are {images.dtype} {list(images.shape)}, wanted [N, C, H, W] of torch.uint8, torch.uint16, or "
                "floats in [0, 1]"
            )
        if images.is_floating_point():
            images = _checked(images).float()
        if images.dtype == torch.uint16 and not 255 < white <= WHITE:
            raise ConfigError(f"white={white}: wanted a value from 256 to 65,535 for images of uint16")
        self.white = white
        self.images = images
        self.labels = labels
        self.classes = None if labels is None else classes
        self.channels = images.shape[1]
        self.image_size: Side | None = plain_side(images.shape[-2:])
        self.origin = origin

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        origin = self.images if self.origin is None else self.origin
        stored: Block = origin if isinstance(origin, str) else content(sampled(origin))
        return digest("arrays", str(len(self)), numbers(self.labels), stored)

    def fetch(self, index: Tensor) -> Tensor:
        kind = self.images.dtype
        stored = self.images.view(torch.int16) if kind == torch.uint16 else self.images  # torch 2.6 cannot pick uint16
        return stored[index.to(stored.device)].view(kind)

    def load(self, index: int, shrink: Shrink | None = None) -> Tensor:
        return self.images[index].cpu()

    def to(self, device: torch.device) -> Arrays:
        moved = copy.copy(self)
        moved.images, moved.labels = self.images.to(device), None if self.labels is None else self.labels.to(device)
        return moved


def _checked(images: Tensor) -> Tensor:
    """Floating-point images, if they lie in [0, 1]."""
    low, high = (float(x) for x in images.aminmax()) if images.numel() else (0.0, 0.0)
    if not 0 <= low <= high <= 1:  # NaN too
        raise ConfigError(
            f"images of {images.dtype} hold values from {low:g} to {high:g}, wanted floats in [0, 1]; map what is "
            "black to 0 and what is white to 1: ((x - low) / (high - low)).clamp(0, 1)"
        )
    return images


def resized(images: Tensor, labels: Tensor | None, classes: list[str], image_size: Side, channels: int) -> Arrays:
    """Stored images ``uint8 [N, C, H, W]`` at the size and with the channels that are asked for."""
    made = shaped(images, image_size, channels)
    return Arrays(made, labels, classes, None if made is images else sampled(images))


def shaped(images: Tensor, image_size: Side, channels: int) -> Tensor:
    """``uint8 [N, C, H, W]`` at another size (bilinear, antialiased) and with 1 or 3 channels, in pieces of 4096."""
    if images.shape[1] == channels and tuple(images.shape[-2:]) == height_width(image_size):
        return images
    check_memory(len(images), image_size, channels)
    return torch.cat([_shaped(piece, image_size, channels) for piece in images.split(4096)])


def check_memory(samples: int, image_size: Side, channels: int) -> None:
    """Raise the sentence about images that would fill this machine, before there are any."""
    height, width = height_width(image_size)
    wanted, there = samples * channels * height * width, machine.memory()
    if wanted > SHARE * there:
        raise ConfigError(
            f"{samples:,} images of {height} x {width} pixels are {wanted / 2**30:,.1f} GiB, and this machine "
            f"has {there / 2**30:,.1f} GiB of memory; lower data.image_size or the number of samples"
        )


def _shaped(images: Tensor, image_size: Side, channels: int) -> Tensor:
    x = images.float()
    if x.shape[1] != channels:
        grey = x if x.shape[1] == 1 else torch.einsum("nchw,c->nhw", x, torch.tensor(LUMINANCE))[:, None]
        x = grey.expand(-1, channels, -1, -1)
    if tuple(x.shape[-2:]) != height_width(image_size):
        x = F.interpolate(x, height_width(image_size), mode="bilinear", antialias=True)
    return x.round().clamp(0, 255).to(torch.uint8)


def digits(image_size: Side, channels: int, root: str | None = None, download: bool = False) -> Splits:
    """The 1,797 handwritten digits of 8 x 8 pixels inside scikit-learn (UCI, test part of Alpaydin & Kaynak 1998).

    Every class is split 80/20 by a fixed permutation: 1,438 train, 359 validate. Nothing is downloaded.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy(np.round(data.images * (255 / 16)).astype(np.uint8))[:, None]  # stored as 0 .. 16
    labels = torch.from_numpy(data.target.astype(np.int64))
    train, val = [], []
    for label in range(10):
        rows = (labels == label).nonzero().flatten()
        rows = rows[torch.from_numpy(np.random.RandomState(label).permutation(len(rows)))]
        cut = round(0.8 * len(rows))
        train.append(rows[:cut])
        val.append(rows[cut:])
    names = [str(label) for label in range(10)]
    parts = (torch.cat(rows).sort().values for rows in (train, val))
    return Splits(*(resized(images[rows], labels[rows], names, image_size, channels) for rows in parts))


def fashion_mnist(root: str, image_size: Side, channels: int, download: bool = False) -> Splits:
    """Fashion-MNIST (https://arxiv.org/abs/1708.07747): 60,000 / 10,000 grey images of 28 x 28, ten classes."""
    names = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
    found = _find(root, "FashionMNIST", ["FashionMNIST/raw", "."], _either("train-images-idx3-ubyte"), download)
    splits = []
    for prefix, n in (("train", 60000), ("t10k", 10000)):
        images = _idx(found, f"{prefix}-images-idx3-ubyte", (n, 28, 28))
        labels = _idx(found, f"{prefix}-labels-idx1-ubyte", (n,))
        splits.append(resized(images[:, None], labels.long(), names, image_size, channels))
    return Splits(*splits)


Cifar = Literal["train", "train+test"]


def cifar10(root: str, image_size: Side, channels: int, download: bool = False, split: Cifar | None = None) -> Splits:
    """CIFAR-10 (Krizhevsky 2009): 50,000 / 10,000 colour images of 32 x 32, ten classes.

    Args:
        split: ``train+test``: train on both, and validate on nothing (methods that cluster both together); None: train.
    """
    found = _find(root, "CIFAR10", ["cifar-10-batches-py", "."], ("data_batch_1",), download)
    parts = [[f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]]
    return _cifar(found, _chosen(parts, split), b"labels", ("batches.meta", "label_names"), 10, image_size, channels)


def cifar100(root: str, image_size: Side, channels: int, download: bool = False, split: Cifar | None = None) -> Splits:
    """CIFAR-100 (Krizhevsky 2009): 50,000 / 10,000 colour images of 32 x 32, a hundred fine classes."""
    found = _find(root, "CIFAR100", ["cifar-100-python", "."], ("train",), download)
    parts, names = _chosen([["train"], ["test"]], split), ("meta", "fine_label_names")
    return _cifar(found, parts, b"fine_labels", names, 100, image_size, channels)


def _chosen(parts: list[list[str]], split: Cifar | None) -> list[list[str]]:
    """Files to train on and, unless all are, to validate on."""
    return [parts[0] + parts[1]] if split == "train+test" else parts


def stl10(
    root: str,
    image_size: Side,
    channels: int,
    download: bool = False,
    split: Literal["train", "unlabeled", "train+unlabeled"] = "train+unlabeled",
) -> Splits:
    """STL-10 (Coates et al. 2011): 5,000 labelled, 100,000 unlabelled and 8,000 test colour images of 96 x 96."""
    found = _find(root, "STL10", ["stl10_binary", "."], ("train_X.bin",), download)
    names = _read(found / "class_names.txt", Path.read_text).split()
    parts = [_stl(found, part) for part in split.split("+")]
    images = parts[0][0] if len(parts) == 1 else torch.cat([images for images, _ in parts])
    labels = None if split == "unlabeled" else torch.cat([labels for _, labels in parts])
    test_images, test_labels = _stl(found, "test")
    train = resized(images, labels, names, image_size, channels)
    return Splits(train, resized(test_images, test_labels, names, image_size, channels))


def _either(name: str) -> tuple[str, str]:
    return name, f"{name}.gz"


def _find(root: str, dataset: str, folders: list[str], wanted: tuple[str, ...], download: bool) -> Path:
    """The first of ``root/folders`` that holds one of the files ``wanted``; downloads when allowed and absent."""
    base = Path(os.path.expanduser(str(root)))
    for attempt in range(2):
        for folder in folders:
            if any((base / folder / name).is_file() for name in wanted):
                return base / folder
        if attempt == 0 and download:
            _download(base, dataset)
    looked = ", ".join(str((base / folder).absolute()) for folder in folders)
    raise ConfigError(
        f"data.root={root}: {dataset} is not there (looked for {wanted[0]} in {looked}); data.download=true fetches "
        f"it, or point data.root at the folder that holds {folders[0]}/{wanted[0]}"
    )


def _download(base: Path, dataset: str) -> None:
    """Fetch through torchvision into a folder aside, then move: what stands in ``base`` is always complete.

    Several processes may do this at the same time; the first that has finished wins.
    """
    import torchvision

    aside = base / f".download-{os.getpid()}"
    try:
        getattr(torchvision.datasets, dataset)(str(aside), download=True)
        for entry in aside.iterdir():
            if entry.is_dir() and not (base / entry.name).exists():
                entry.rename(base / entry.name)
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"data.download=true: {dataset} could not be fetched into {base.absolute()} ({error}); "
            "fetch it on a machine with a connection and point data.root at it"
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _damaged(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"{path}: {reason}; delete its folder and run once with data.download=true")


def _read(path: Path, reader: Callable[[Path], Any]) -> Any:
    """``reader(path)``; a missing or half-written file is a :class:`ConfigError` that names it."""
    if not path.is_file():
        raise _damaged(path, "is missing")
    try:
        return reader(path)
    except plain_pickle.NotData as error:
        raise ConfigError(
            f"{path}: {error}; write it again with NumPy arrays and lists alone, for example "
            "pickle.dump({'data': numpy.asarray(data), 'labels': list(map(int, labels))}, file), or delete its folder "
            "and run once with data.download=true"
        ) from None
    except (
        OSError, EOFError, ValueError, pickle.UnpicklingError, KeyError, TypeError, AttributeError, IndexError,
        OverflowError, MemoryError,
    ) as error:  # fmt: skip
        raise _damaged(path, f"cannot be read ({error})") from None


def _idx(folder: Path, name: str, shape: tuple[int, ...]) -> Tensor:
    """An IDX file of bytes (http://yann.lecun.com/exdb/mnist), packed or not."""
    path = folder / name if (folder / name).is_file() else folder / f"{name}.gz"
    open_file: Any = gzip.open if path.suffix == ".gz" else open

    def reader(path: Path) -> bytes:
        with open_file(path, "rb") as file:
            return file.read()

    header = 4 + 4 * len(shape)
    data = np.frombuffer(_read(path, reader), np.uint8)[header:]
    if data.size != math.prod(shape):
        raise _damaged(path, f"holds {data.size} values, {math.prod(shape)} expected")
    return torch.from_numpy(data.reshape(shape).copy())


def _unpickle(path: Path) -> dict[bytes, Any]:
    # Written by Python 2 the keys are bytes, by Python 3 text.
    return {key.encode() if isinstance(key, str) else key: value for key, value in plain_pickle.load(path).items()}


def _cifar(
    folder: Path,
    files: list[list[str]],
    key: bytes,
    meta: tuple[str, str],
    classes: int,
    image_size: Side,
    channels: int,
) -> Splits:
    names = [str(i) for i in range(classes)]
    if (folder / meta[0]).is_file():
        found = _read(folder / meta[0], _unpickle)[meta[1].encode()]
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in found]
    splits = []
    for group in files:
        batches = [_cifar_file(folder / name, key, classes) for name in group]
        images, labels = (torch.cat(column) for column in zip(*batches, strict=True))
        splits.append(resized(images, labels, names, image_size, channels))
    return Splits(splits[0], splits[1] if len(splits) > 1 else None)


def _cifar_file(path: Path, key: bytes, classes: int) -> tuple[Tensor, Tensor]:
    found = _read(path, _unpickle)
    if b"data" not in found or key not in found:
        raise _damaged(path, f"holds {sorted(map(str, found))}, not data and {key.decode()}")
    images, labels = np.asarray(found[b"data"]), np.asarray(found[key])
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise _damaged(path, f"holds {labels.dtype} {labels.shape} for labels, not a whole number for each image")
    if images.dtype != np.uint8 or images.shape != (len(labels), 3072):
        raise _damaged(path, f"holds {images.dtype} {images.shape} and {len(labels)} labels, not 3072 bytes a label")
    if not len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise _damaged(path, f"holds labels outside of 0 .. {classes - 1}")
    return torch.from_numpy(images.reshape(-1, 3, 32, 32).copy()), torch.from_numpy(labels.astype(np.int64))


def _stl(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images as a view of the file, read from the disk where they are touched; stored column by column."""
    path = folder / f"{part}_X.bin"
    size = path.stat().st_size if path.is_file() else 0
    if not size or size % (3 * 96 * 96):
        raise _damaged(path, f"holds {size} bytes, no multiple of an image's {3 * 96 * 96}" if size else "is missing")
    n = size // (3 * 96 * 96)
    images = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).view(n, 3, 96, 96).transpose(2, 3)
    if part == "unlabeled":
        return images, torch.full((n,), -1)
    stored = _read(folder / f"{part}_y.bin", lambda path: np.fromfile(path, np.uint8))  # 1 .. 10
    if len(stored) != n:
        raise _damaged(folder / f"{part}_y.bin", f"holds {len(stored)} labels for {n} images")
    return images, torch.from_numpy(stored.astype(np.int64) - 1)
