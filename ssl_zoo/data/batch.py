"""What travels from the data to a method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.errors import ConfigError


@dataclass(frozen=True)
class DataInfo:
    """What a method may need to know of its data; injected as ``data_info`` and saved in the checkpoint."""

    samples: int  # training samples, after data.subset
    classes: int | None  # None: unlabelled
    image_size: int | tuple[int, int]  # side of a square, or height and width
    channels: int
    batch_size: int  # rows of one micro-batch over all devices

    @property
    def side(self) -> int:
        """Of square images; a ConfigError for others."""
        if isinstance(self.image_size, int):
            return self.image_size
        raise ConfigError(f"this method works on square images, and data.image_size is {list(self.image_size)}; "
                          f"set data.image_size={max(self.image_size)}")


def sealed(images: Any) -> Any:
    """Floating-point images, or a list of them, as their bits; others as they are.

    With ``trainer.precision=16-true`` Lightning converts what is floating in a batch before its views are made, which
    would leave images with the 8 bits of bfloat16.
    """
    if isinstance(images, list):
        return [sealed(x) for x in images]
    return images.view(torch.int32) if images.dtype == torch.float32 else images


def opened(images: Any) -> Any:
    """What :func:`sealed` was given."""
    if isinstance(images, list):
        return [opened(x) for x in images]
    return images.view(torch.float32) if images.dtype == torch.int32 else images


@dataclass
class RawBatch:
    """A batch as the loader gives it, before the views are made.

    ``images`` is ``[B, C, H, W]`` of uint8, uint16, or float in [0, 1]; or a list with one tensor per view where
    workers cropped the views, or made the whole of them. Floats that are no finished views are :func:`sealed`.
    """

    images: Any
    index: Tensor
    label: Tensor | None
    slot: int  # of the first row: its position in the epoch's global order; the other rows follow it
    epoch: int
    micro: int
    reports: dict[str, Tensor] = field(default_factory=dict)  # what operations in workers said of the views
    finished: bool = False  # whether ``images`` are whole views


@dataclass
class Batch:
    """A batch as a method sees it: normalised views, global ones first."""

    views: list[Any]
    index: Tensor  # [B] position in the (subset of the) training set
    label: Tensor | None  # [B], or soft [B, C]; -1 = none
    rng: Any  # BatchRNG: sample(name) one draw per row, shared(name) one for the whole global batch
    extra: dict[str, Any] = field(default_factory=dict)
