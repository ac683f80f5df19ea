"""SVHN, street view house numbers (http://ufldl.stanford.edu/housenumbers), from its original MATLAB files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.data.image.arrays import resized
from ssl_zoo.data.source import Splits
from ssl_zoo.errors import ConfigError
from ssl_zoo.sides import Side

FOLDER = "svhn"
NAMES = [str(digit) for digit in range(10)]


def svhn(
    root: str,
    image_size: Side,
    channels: int,
    download: bool = False,
    split: Literal["train", "train+extra"] = "train",
) -> Splits:
    """SVHN (Netzer et al. 2011): 73,257 / 26,032 colour images of 32 x 32, ten digits.

    Args:
        split: ``train+extra``: also the 531,131 easier ones, without their labels (Noisy Student's unlabelled images).
    """
    parts = split.split("+")
    folder = _found(Path(os.path.expanduser(str(root))), [*parts, "test"], download)
    images, labels = zip(*[_read(folder / f"{part}_32x32.mat") for part in parts], strict=True)
    marked = [labels[0], *(torch.full_like(label, -1) for label in labels[1:])]
    test_images, test_labels = _read(folder / "test_32x32.mat")
    train = resized(torch.cat(images), torch.cat(marked), NAMES, image_size, channels)
    return Splits(train, resized(test_images, test_labels, NAMES, image_size, channels))


def _found(base: Path, parts: list[str], download: bool) -> Path:
    """The folder that holds all the files, which are fetched when allowed and absent."""
    for attempt in range(2):
        for folder in (base / FOLDER, base):
            if all((folder / f"{part}_32x32.mat").is_file() for part in parts):
                return folder
        if attempt == 0 and download:
            _download(base / FOLDER, parts)
    wanted = ", ".join(f"{part}_32x32.mat" for part in parts)
    raise ConfigError(
        f"data.root={base}: SVHN is not there (looked for {wanted} in {(base / FOLDER).absolute()} and "
        f"{base.absolute()}); data.download=true fetches it, or point data.root at the folder that holds {FOLDER}"
    )


def _download(folder: Path, parts: list[str]) -> None:
    """Fetch through torchvision into a folder aside, then move: what stands in ``folder`` is always complete."""
    from torchvision.datasets import SVHN

    aside = folder.parent / f".download-{os.getpid()}"
    try:
        for part in parts:
            SVHN(str(aside), split=part, download=True)
        folder.mkdir(parents=True, exist_ok=True)
        for file in aside.glob("*_32x32.mat"):
            file.replace(folder / file.name)
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"data.download=true: SVHN could not be fetched into {folder.absolute()} ({error}); "
            "fetch it on a machine with a connection and point data.root at it"
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _read(path: Path) -> tuple[Tensor, Tensor]:
    """``uint8 [N, 3, 32, 32]`` and ``[N]`` digits; the file calls 0 10."""
    from scipy.io import loadmat

    try:
        held: dict[str, Any] = loadmat(path, variable_names=["X", "y"])
        images, labels = held["X"], held["y"].reshape(-1).astype(np.int64) % 10
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise _damaged(path, f"cannot be read ({error})") from None
    if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(labels)):
        raise _damaged(path, f"holds {images.dtype} {images.shape} and {len(labels)} labels, not 32 x 32 x 3 a label")
    return torch.from_numpy(np.ascontiguousarray(images.transpose(3, 2, 0, 1))), torch.from_numpy(labels)


def _damaged(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"{path}: {reason}; delete its folder and run once with data.download=true")
