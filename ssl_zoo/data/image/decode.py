"""One image file to ``[C, H, W]``: any type of pixels, any number of bands, one range, and one kind of error."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ssl_zoo.data.image import formats, pixel_limit, pixel_range
from ssl_zoo.data.image.formats import Header, Shrink
from ssl_zoo.data.image.pixel_range import BYTES, Files, Range
from ssl_zoo.data.source import DamagedFile
from ssl_zoo.errors import ConfigError

KEPT: dict[str, Any] = {
    "range": list, "whole": bool, "nodata": (int, float, type(None)), "exif": bool, "channels": int,
}  # fmt: skip
LUMINANCE = (19595, 38470, 7471)  # ITU-R 601-2 in 1/65536, as Pillow's convert("L")


@dataclass(frozen=True)
class Reader:
    """How the files of a data set become images.

    Args:
        channels: Bands of the images. Colour becomes grey, and grey colour, where 1 or 3 are asked for; no other band
            is made up or left out.
        range: What is black and what is white.
        nodata: A value of pixels without data, beside that of the files' own tags, NaN and infinities.
        draft: Whether large JPEG files may be decoded smaller.
        exif: Whether images are turned as their orientation tag says.
        max_pixels: Larger images are damaged ones; None: Pillow's limit, 178,956,970.
        decisions: What was decided about the files, a line each.
    """

    channels: int
    range: Range = BYTES
    nodata: float | None = None
    draft: bool = True
    exif: bool = False
    max_pixels: int | None = None
    decisions: tuple[str, ...] = field(default=(), compare=False)

    def __call__(self, file: str | bytes, name: str | None = None, shrink: Shrink | None = None) -> Tensor:
        """Read an image file: ``[C, H, W]`` of ``range.dtype``.

        For grey (1) and colour (3) transparency is dropped, CMYK and palettes are converted.

        Args:
            file: Its path, or its content.
            name: For messages, where ``file`` is no path.
            shrink: Asked for JPEG files: libjpeg then computes fewer pixels of every block of 8 x 8 (1/2, 1/4 or 1/8 of
                each side, rounded up), for a fraction of the time. Other formats are always decoded whole.

        Raises:
            DamagedFile: With the name and what the decoder says.
        """
        return self.masked(file, name, shrink)[0]

    def masked(
        self, file: str | bytes, name: str | None = None, shrink: Shrink | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The image, and ``[C, H, W]`` bool where it has no data; None: it has data everywhere."""
        known = name or (file if isinstance(file, str) else "an image")
        pixel_limit.use(self.max_pixels)
        try:
            pixels = formats.read(file, self.channels, shrink if self.draft else None, self.nodata, self.exif, known)
            values = _tensor(pixel_range.carried(pixels, self.range))
        except formats.UNREADABLE as error:
            raise DamagedFile(known, _reason(error, file)) from None
        missing = None if pixels.missing is None else _tensor(pixels.missing)
        image = self._fitted(values, pixels.alpha, known)
        same = missing is None or missing.shape == image.shape
        return image, missing if same else missing.any(0, keepdim=True).expand_as(image)  # type: ignore[union-attr]

    def _fitted(self, image: Tensor, alpha: bool, name: str) -> Tensor:
        bands = len(image)
        if bands == self.channels:
            return image
        if alpha and self.channels in (1, 3):
            image = image[:-1]
        if len(image) in (1, 3) and self.channels in (1, 3):
            return converted(image, self.channels)
        raise DamagedFile(name, f"it has {bands} bands, and data.channels={self.channels}")

    def kept(self) -> dict[str, Any]:
        """What a store of these files holds beside them, in plain containers."""
        return {**self.range.kept(), "nodata": self.nodata, "exif": self.exif, "channels": self.channels}

    @property
    def resolved(self) -> dict[str, Any]:
        """What ``auto`` became, by the name of the setting in ``data.source``."""
        return {"range": self.range.plain()}


def reader(
    files: Sequence[str | bytes],
    channels: int,
    range: Any = "auto",
    nodata: float | None = None,
    draft: bool = True,
    names: Sequence[str] | None = None,
    exif: bool = False,
    max_pixels: int | None = None,
    kept: dict[str, Any] | None = None,
) -> Reader:
    """The reader of a data set: types, bands and range are looked up once, in a sample of its files.

    Args:
        files: Paths or contents of those to look into (:func:`ssl_zoo.data.image.pixel_range.sampled`). Formats that
            always have 8 bits are not opened where grey or colour is asked for.
        channels, nodata, draft, exif, max_pixels: As in :class:`Reader`.
        range: ``auto``, or ``[low, high]``.
        names: Of the files, for messages; None: the paths.
        kept: What a store of them holds (:meth:`Reader.kept`), which stands for ``auto`` and for settings not given.

    Raises:
        ConfigError: If the files have another number of bands, or ``range`` or ``nodata`` make no sense.
    """
    _check_nodata(nodata)
    pixel_limit.check(max_pixels)
    pixel_limit.use(max_pixels)
    names = [str(file) for file in files] if names is None else names
    if kept is not None:
        _check_store(kept, channels)
    pairs = [pair for pair in zip(files, names, strict=True) if not _is_plain(pair[1], channels)]
    sample = Files([file for file, _ in pairs], [name for _, name in pairs])
    headers = _headers(sample, channels)
    plain = len(files) - len(pairs)
    decisions = [*_check_bands(headers, channels, plain), *_mixture([header for _, header in headers], plain)]
    kinds = [header for _, header in headers] + ([Header(np.dtype(np.uint8), 3, False, True)] if plain else [])
    if kept is not None:
        nodata, exif = kept["nodata"] if nodata is None else nodata, exif or kept["exif"]
    if range != "auto":
        whole = kept["whole"] if kept is not None else all(header.dtype.kind != "f" for header in kinds)
        found, why = pixel_range.parse(range, whole), "as it is set"
    elif kept is not None:
        found, why = Range.of(kept, "the store"), "as the store says"
    else:
        found, why = pixel_range.decide(sample, kinds, channels, nodata) if kinds else (BYTES, "8 bits")
        why = f"{why}; {len(files):,} files"
    decisions += told(found, why)
    if nodata is not None:
        decisions.append(f"pixels of {nodata:g} are no data, and black")
    return Reader(channels, found, nodata, draft, exif, max_pixels, tuple(decisions))


def _check_nodata(nodata: Any) -> None:
    if nodata is not None and (isinstance(nodata, bool) or not isinstance(nodata, (int, float))):
        raise ConfigError(f"data.source.nodata={nodata}: wanted a number that stands for no data, or null")


def _check_store(kept: Any, channels: int) -> None:
    if not isinstance(kept, dict) or any(not isinstance(kept.get(key), kind) for key, kind in KEPT.items()):
        raise ConfigError(f"what the store says of its pixels makes no sense ({kept}); write it again")
    have = kept["channels"]
    if have != channels and not {have, channels} <= {1, 3}:
        raise ConfigError(f"data.channels={channels}: the store has images of {have} bands; set data.channels={have}")


def told(range: Range, why: str) -> list[str]:
    """The line about a range that is not that of bytes."""
    low, high = range.plain()
    cut = "" if "as they are" in why else "; what lies outside is cut"
    return [] if range == BYTES else [f"pixel values {low:g} to {high:g} are black to white ({why}){cut}"]


def range_of(source: Any) -> Range:
    """That of a source's images as they travel: its reader's, or what their type says."""
    own = getattr(source, "reader", None)
    if own is not None:
        return own.range
    kind = source.load(0).dtype
    return BYTES if kind == torch.uint8 else Range(0, source.white) if kind == torch.uint16 else Range(0.0, 1.0, False)


def _is_plain(name: str, channels: int) -> bool:
    return channels in (1, 3) and Path(name).suffix.lower() in formats.eight_bit_extensions()


def _headers(found: Files, channels: int) -> list[tuple[str, Header]]:
    headers = []
    for file, name in zip(found.files, found.names, strict=True):
        try:
            headers.append((name, formats.header(file, channels, name)))
        except formats.UNREADABLE:
            continue  # named when its turn comes
    return headers


def _check_bands(headers: list[tuple[str, Header]], channels: int, plain: int) -> list[str]:
    """Refuse files of another number of bands; the line about transparency that is dropped."""
    alpha = 0
    counts: Counter[int] = Counter()
    examples: dict[int, str] = {}
    for name, header in headers:
        colours = header.bands - header.alpha
        if header.bands == channels or channels in (1, 3) and (colours in (1, 3) or header.pillow):
            alpha += header.alpha and header.bands != channels
            continue
        counts[header.bands] += 1
        examples.setdefault(header.bands, name)
    if counts:
        bands = counts.most_common(1)[0][0]
        if counts[bands] == len(headers) and not plain:
            raise ConfigError(f"data.channels={channels}: the files have {bands} band{'s' * (bands > 1)} "
                              f"({examples[bands]}); set data.channels={bands}")  # fmt: skip
        told = ", ".join(f"{n:,} have {bands} ({examples[bands]})" for bands, n in counts.most_common())
        raise ConfigError(f"data.channels={channels}: the files differ in bands: of {len(headers) + plain:,} that were "
                          f"looked into {told}; write all files with the same bands, or take these out")  # fmt: skip
    if not alpha:
        return []
    return [f"transparency is left out ({alpha:,} of {len(headers) + plain:,} files that were looked into have it; "
            "data.channels=4 keeps a fourth band)"]  # fmt: skip


def _mixture(headers: list[Header], plain: int) -> list[str]:
    kinds = Counter(str(header.dtype) for header in headers)
    kinds["uint8"] += plain
    kinds = +kinds
    if len(kinds) < 2:
        return []
    told = ", ".join(f"{n:,} {kind}" for kind, n in kinds.most_common())
    return [f"files have pixels of several types ({told}), all read on one scale"]


def _reason(error: BaseException, file: str | bytes) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return pixel_limit.reason(error)
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a format that is read"
    text = str(error) if isinstance(file, bytes) else str(error).replace(repr(file), "the file")
    text = re.sub(r"<_io\.\w+ (object at|name=)[^>]*>", "it" if isinstance(file, bytes) else "the file", text)
    if "imagecodecs" in text:
        text = f"{text}; pip install ssl_zoo[images] brings it"
    return text or type(error).__name__


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).permute(2, 0, 1).contiguous()


def converted(images: Tensor, channels: int) -> Tensor:
    """``[..., C, H, W]`` with 1 or 3 channels; grey exactly as Pillow makes it of a colour file."""
    have = images.shape[-3]
    if have == channels:
        return images
    if have == 1:
        return images.expand(*images.shape[:-3], channels, *images.shape[-2:]).contiguous()
    if images.is_floating_point():
        weights = images.new_tensor(LUMINANCE) / 65536
        return (images * weights[:, None, None]).sum(-3, keepdim=True)
    kind = torch.int32 if images.dtype == torch.uint8 else torch.int64
    weighted = images.to(kind) * torch.tensor(LUMINANCE, dtype=kind)[:, None, None]
    return ((weighted.sum(-3, keepdim=True) + 32768) >> 16).to(images.dtype)
