"""Rotation: the four directions of each image, their order and classes, as the method makes them."""

from __future__ import annotations

from typing import Any

import torch

from ssl_zoo.augmentations.image.geometry import Rotate90
from ssl_zoo.augmentations.rng import RecordedDraw
from ssl_zoo.config import load
from ssl_zoo.methods.rotation import Rotation
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, batch_of, no_recipe


def check(document: Any, arrays: Values) -> None:
    h = document["hyperparameters"]
    images = torch.tensor(arrays["images"]).movedim(-1, 1)                           # [B, C, H, W]
    assert images.shape == (h["B"], 3, h["S"], h["S"])
    method = Rotation(Identity(1), no_recipe())  # type: ignore[arg-type]
    turned, label = method.turned(batch_of([images.double()]))
    close(turned.movedim(2, -1).byte(), arrays["rotated"], "directions")
    close(label.flatten(), arrays["labels"], "classes")

    told = load(["method=rotation", "data=cifar10"]).augmentation.normalize
    mean, std = (torch.tensor(list(told[name]), dtype=torch.float64).view(3, 1, 1) for name in ("mean", "std"))
    batch = ((turned / 255 - mean) / std).flatten(0, 1)
    close(batch.float(), arrays["batch"], "the batch as the network gets it")

    draw = RecordedDraw({"turns": label.flatten()})
    again = Rotate90()(images.double().repeat_interleave(4, 0), draw)
    assert torch.equal(again, turned.flatten(0, 1))


CHECKS = {"rotation": {"*": check}}
