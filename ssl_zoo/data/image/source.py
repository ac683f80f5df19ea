"""What sources of images have besides: size, bands, what is white, and raw pixels to be measured against.

Images are uint8, whose white is 255; uint16, whose white is the source's; or floats in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.data.batch import DataInfo
from ssl_zoo.sides import Side

PIXELS = 32  # larger views are averaged down to so many a side, or classifiers would have 150,000 inputs


class ImageSource:
    """Base of sources whose samples are ``[C, H, W]``.

    ``white``, the value of uint16 that is white, is 65,535 where a source does not say otherwise. A source whose files
    say where they have no data has ``masked(index)``: an image, and ``[C, H, W]`` bool or None.
    """

    channels: int
    image_size: Side | None  # None: images differ

    baseline_name = "raw pixels"

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"image_size": self.image_size, "channels": self.channels}

    def collate(self, samples: Sequence[Tensor]) -> Tensor:
        """Images of one size ``[C, H, W]`` as ``[B, C, H, W]``."""
        return torch.stack(list(samples))

    def baseline(self, view: Tensor) -> Tensor:
        """``[B, C, H, W]`` -> ``[B, C * h * w]`` with h, w of at most 32."""
        small = F.adaptive_avg_pool2d(view, (min(view.shape[-2], PIXELS), min(view.shape[-1], PIXELS)))
        return small.flatten(1)


def image_info(samples: int, classes: int | None, image_size: Side, channels: int, batch_size: int) -> DataInfo:
    """What methods know of data of images."""
    return DataInfo(samples, classes, batch_size, {"image_size": image_size, "channels": channels})
