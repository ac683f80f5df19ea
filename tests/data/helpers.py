"""Small data for the tests of this folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.datamodule import ImageData
from ssl_zoo.data.image.folder import folder
from ssl_zoo.data.image.synthetic import synthetic


def augmentation(size: int = 16, where: str = "auto") -> dict[str, Any]:
    ops = [{"image/random_resized_crop": {"scale": [0.3, 1.0]}}, {"image/flip": {"p": 0.5}}]
    return {
        "views": [{"count": 2, "size": size, "ops": ops}],
        "eval": {"ops": [{"image/resize_center_crop": {"fraction": 0.875}}]},
        "normalize": {"mean": [0.5], "std": [0.25]},
        "where": where,
    }


def memory(batch_size: int = 8, samples: int = 30, where: str = "auto", **options: Any) -> ImageData:
    """Synthetic images of 16 x 16 in memory."""
    source = partial(synthetic, samples=samples, val_samples=10)
    return ImageData(source, batch_size, 16, 3, augmentation(where=where), **options)


def pictures(root: Path, n: int, size: tuple[int, int] = (20, 24), seed: int = 0) -> list[Path]:
    """``n`` PNG files of noise in ``root``."""
    rng = np.random.RandomState(seed)
    root.mkdir(parents=True, exist_ok=True)
    paths = [root / f"{i:03d}.png" for i in range(n)]
    for path in paths:
        Image.fromarray(rng.randint(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return paths


def files(
    root: Path, batch_size: int = 8, where: str = "auto", source: dict[str, Any] | None = None, **options: Any
) -> ImageData:
    """A folder, views of 16 x 16."""
    built = partial(folder, cache=False, **(source or {}))
    options = {"workers": 0, **options}
    return ImageData(built, batch_size, 16, 3, augmentation(where=where), root=str(root), **options)


def batches(data: ImageData, n: int | None = None) -> list[Batch]:
    """The next batches of a pass, with their views."""
    out = []
    for raw in data.train_dataloader():
        out.append(data.on_after_batch_transfer(raw, 0))
        if len(out) == n:
            break
    return out


def by_slot(epoch: list[Batch]) -> dict[int, tuple[int, torch.Tensor]]:
    """slot -> (index, all views of that row in one tensor)."""
    rows: dict[int, tuple[int, torch.Tensor]] = {}
    for batch in epoch:
        views = torch.cat(batch.views, dim=1)
        for slot, index, view in zip(batch.rng.slot.tolist(), batch.index.tolist(), views, strict=True):
            assert slot not in rows
            rows[slot] = (index, view)
    return rows
