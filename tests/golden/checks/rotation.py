"""RotNet: the four rotations of each image, their labels and the normalised batch."""

from __future__ import annotations

from typing import Any

import torch

from ssl_zoo import config
from ssl_zoo.augmentations.image.views import Normalize
from ssl_zoo.data.image.source import image_info
from ssl_zoo.methods.rotation import Rotation
from ssl_zoo.modules.quarter_turns import all_turns
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, no_recipe


def check(document: Any, arrays: Values) -> None:
    h = document["hyperparameters"]
    images = torch.tensor(arrays["images"]).permute(0, 3, 1, 2)
    assert images.shape == (h["B"], 3, h["S"], h["S"])
    close(all_turns(images).permute(0, 1, 3, 4, 2), arrays["rotated"], "rotated")
    normalize = config.load(["method=rotation", "data=cifar10"]).augmentation.normalize
    method = Rotation(Identity(3), no_recipe(), image_info(h["B"], None, h["S"], 3, h["B"]))  # type: ignore[arg-type]
    x, label = method.rotations(Normalize(normalize, 3)(images / 255), None)  # type: ignore[arg-type]
    close(x.flatten(0, 1), arrays["batch"], "batch")
    close(label.flatten(), arrays["labels"], "labels")


CHECKS = {"rotation": {"all": check}}
