"""One image file to ``uint8 [C, H, W]``: every mode that Pillow knows, and one kind of error."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_zoo.data.source import DamagedFile

# What these files may be, whatever their names say: others of Pillow's formats start programs (EPS) or fetch files.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# What Pillow raises for files that are cut short, of another kind than their name says, or too large to be honest.
PILLOW = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error,
    TypeError, KeyError, AttributeError, OverflowError, MemoryError,  # tags of a TIFF file that are of another kind
)  # fmt: skip
UNREADABLE = (*PILLOW, Image.DecompressionBombError)


Shrink = Callable[[int, int], int]  # (height, width) of a file -> how many times smaller it may be decoded


def decode(file: str | bytes, channels: int, name: str | None = None, shrink: Shrink | None = None) -> Tensor:
    """Read an image file as grey (1) or colour (3): ``uint8 [C, H, W]``.

    Transparency is dropped, CMYK and palettes are converted, sixteen bits are divided by 257; orientation tags are
    ignored, as torchvision's folders do.

    Args:
        file: Its path, or its content.
        channels: 1 or 3.
        name: For messages, where ``file`` is no path.
        shrink: Asked for JPEG files: libjpeg then computes fewer pixels of every block of 8 x 8 (1/2, 1/4 or 1/8 of
            each side, rounded up), for a fraction of the time. Other formats are always decoded whole.

    Raises:
        DamagedFile: With the name and what Pillow says.
    """
    known = name or (file if isinstance(file, str) else "an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks about odd but readable files
            with Image.open(file if isinstance(file, str) else io.BytesIO(file), formats=FORMATS) as image:
                if shrink is not None and image.format == "JPEG":
                    width, height = image.size
                    factor = shrink(height, width)
                    image.draft(None, (max(width // factor, 1), max(height // factor, 1)))
                image.load()
                pixels = np.array(_eight_bits(image).convert("L" if channels == 1 else "RGB"))
    except UNREADABLE as error:
        reason = re.sub(r"<_io.BytesIO object at 0x\w+>", "it", str(error).replace(repr(file), "the file"))
        raise DamagedFile(known, reason or type(error).__name__) from None
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
