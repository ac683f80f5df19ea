"""One image file to ``uint8 [C, H, W]``: every mode that Pillow knows, and one kind of error."""

from __future__ import annotations

import struct
import warnings
import zlib
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_zoo.data.source import DamagedFile

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# What Pillow raises for files that are cut short, of another kind than their name says, or too large to be honest.
PILLOW = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
UNREADABLE = (*PILLOW, Image.DecompressionBombError)


def decode(path: str, channels: int) -> Tensor:
    """Read an image file as grey (1) or colour (3): ``uint8 [C, H, W]``.

    Transparency is dropped, CMYK and palettes are converted, sixteen bits are divided by 257; orientation tags are
    ignored, as torchvision's folders do.

    Raises:
        DamagedFile: With the path and what Pillow says.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks about odd but readable files
            with Image.open(path) as image:
                image.load()
                pixels = np.array(_eight_bits(image).convert("L" if channels == 1 else "RGB"))
    except UNREADABLE as error:
        raise DamagedFile(path, str(error).replace(repr(path), "the file") or type(error).__name__) from None
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1).contiguous()


def _eight_bits(image: Any) -> Any:
    """Modes that Pillow would clip to 255, scaled instead; palettes with transparency through RGBA."""
    if image.mode.startswith("I;16") or image.mode == "I":
        wide = np.asarray(image, np.int64).clip(0, 65535)  # Pillow opens 16-bit PNG files as I in older versions
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        return Image.fromarray(_stretched(np.nan_to_num(np.asarray(image, np.float64))))
    return image.convert("RGBA") if image.mode in ("P", "PA", "LA", "La", "RGBa") else image


def _stretched(x: np.ndarray) -> np.ndarray:
    """Floating-point pixels have no agreed range: those within [0, 1] are scaled, others are taken as 0 .. 255."""
    scale = 255.0 if x.size and x.min() >= 0 and x.max() <= 1 else 1.0
    return (x * scale).round().clip(0, 255).astype(np.uint8)
