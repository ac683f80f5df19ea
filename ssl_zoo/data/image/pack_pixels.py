"""What ``ssl-zoo pack`` does to the pixels of a sample, and what a pack says of them."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_zoo.augmentations.image.sampling import resize
from ssl_zoo.data.image.decode import Reader, range_of
from ssl_zoo.data.image.pixel_range import BYTES
from ssl_zoo.data.source import Source
from ssl_zoo.errors import ConfigError


def check_encoding(source: Any, encoding: str) -> None:
    """Refuse ``jpeg`` for what such files cannot hold: more than bytes of grey or colour."""
    if encoding != "jpeg":
        return
    kind = np.dtype(range_of(source).dtype)
    if kind != np.uint8 or source.channels not in (1, 3):
        raise ConfigError(
            f"encoding=jpeg keeps 8 bits of grey or colour, and these are images of {kind} with {source.channels} "
            "bands; use encoding=decoded, or original for the files as they are"
        )


def pixels(source: Source, encoding: str) -> dict[str, Any]:
    """What the pack must say of its pixels; nothing of bytes."""
    if encoding == "decoded":
        found = range_of(source)
        return {} if found == BYTES else {"pixels": found.kept()}
    reader = getattr(source, "reader", None)
    if reader is None:
        return {}
    usual = Reader(reader.channels)
    # Re-encoded images have their range and nothing to be turned by; JPEG files that are kept as they are have.
    kept = replace(usual, exif=reader.exif).kept() if encoding == "jpeg" else reader.kept()
    return {} if kept == usual.kept() else {"reading": kept}


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy())


def resized(image: Tensor, size: int) -> Tensor:
    """``[C, H, W]`` with its shorter side at ``size``: bicubic, antialiased."""
    height, width = image.shape[1:]
    scale = size / min(height, width)
    if image.dtype != torch.uint8 or len(image) not in (1, 3):
        return resize(image[None], round(height * scale), round(width * scale), "bicubic")[0]
    picture = _picture(image).resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    pixels = np.array(picture)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], len(image))).permute(2, 0, 1).contiguous()


def jpeg(image: Tensor, quality: int) -> bytes:
    """``uint8 [C, H, W]`` as a JPEG file."""
    out = io.BytesIO()
    _picture(image).save(out, "JPEG", quality=quality)
    return out.getvalue()
