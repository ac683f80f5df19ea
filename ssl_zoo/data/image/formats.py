"""Image files as their pixels are stored: any integer or floating type, any number of bands.

Pillow reads what has 8 bits; tifffile TIFF files with more bits, other bands or several pages; NumPy ``.npy`` files;
:mod:`ssl_zoo.data.image.cut_bits` what Pillow would cut to 8 bits.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from ssl_zoo.data.image import cut_bits, pixel_limit, suffixes

EIGHT_BITS = ("JPEG", "MPO", "BMP", "DIB", "PCX")  # never more, and no transparency
NPY, TIFF = "NPY", "TIFF"  # formats that are not only Pillow's
MAGIC_NPY = b"\x93NUMPY"
MAGIC_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
GDAL_NODATA, EXTRA_SAMPLES, BITS, SAMPLE_FORMAT = 42113, 338, 258, 339  # tags of TIFF
ORIENTATION, LYING = 274, (5, 6, 7, 8)  # of EXIF: rows of the file are columns of the image
ALPHA = (1, 2)  # kinds of extra samples that are transparency
LOOK = 256  # bytes of a file's beginning
# What the libraries raise for files that are cut short, of another kind than their name says, or of absurd sizes.
UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error, TypeError, KeyError,
    AttributeError, OverflowError, MemoryError, RuntimeError, ImportError, ArithmeticError, AssertionError,
    Image.DecompressionBombError,
)  # fmt: skip

Shrink = Callable[[int, int], int]  # (height, width) of a file -> how many times smaller it may be decoded


class Header(NamedTuple):
    """What a file says of its pixels before they are read."""

    dtype: np.dtype
    bands: int  # transparency included
    alpha: bool  # the last band is transparency
    pillow: bool  # 8 bits that Pillow converts to grey or colour by its own rules (palettes, CMYK, YCbCr)


class Pixels(NamedTuple):
    """An image as it is stored."""

    values: np.ndarray  # [H, W, C], of the type of the file
    missing: np.ndarray | None  # [H, W, C] bool: no data there; None: all is data
    alpha: bool  # the last band is transparency


@cache
def eight_bit_extensions() -> frozenset[str]:
    """Endings of formats that hold 8 bits and colour or grey at most, so that nobody need look into the files."""
    return frozenset(ending for ending, kind in suffixes.readable().items() if kind in EIGHT_BITS)


def header(file: str | bytes, channels: int, name: str = "") -> Header:
    """Type and bands of a file, of which ``channels`` are expected; one of ``UNREADABLE`` if it has none."""
    with warnings.catch_warnings(), _opened(file) as stream:
        warnings.simplefilter("ignore")  # remarks about odd but readable files
        head, kind = _look(stream)
        if kind == NPY:
            shape, dtype = _npy_header(stream)
            return Header(np.dtype(np.uint8) if dtype.kind == "b" else dtype, _bands(shape, channels), False, False)
        if kind == TIFF:
            found = _tiff_header(stream)
            if found is not None:
                return found
        deep = cut_bits.of_head(head)
        if deep is None:
            with Image.open(stream, formats=suffixes.formats(name)) as image:
                deep = cut_bits.of_jpeg_2000(stream, image)
                if deep is None:
                    return _pillow_header(image)
        return Header(np.dtype(np.uint16), deep.bands, deep.alpha, False)


def read(
    file: str | bytes,
    channels: int,
    shrink: Shrink | None = None,
    nodata: float | None = None,
    exif: bool = False,
    name: str = "",
) -> Pixels:
    """The pixels of a file.

    Args:
        file: Its path, or its content.
        channels: 1 and 3: 8-bit images of whatever kind become grey or colour, as Pillow converts them; others are
            read as they are stored. Bands of a ``.npy`` file come first or last, where so many are.
        shrink: Asked for JPEG files, as :class:`ssl_zoo.data.image.decode.Reader` says.
        nodata: A value that stands for no data, beside that of the file's tag, NaN and infinities.
        exif: Turn images as their orientation tag says.
        name: Of the file, where it is content: some formats are known by their suffixes only.

    Raises:
        One of ``UNREADABLE``.
    """
    with warnings.catch_warnings(), _opened(file) as stream:
        warnings.simplefilter("ignore")
        head, kind = _look(stream)
        tag = None
        if kind == NPY:
            values, alpha = _npy(stream, channels), False
        elif kind == TIFF and (found := _tiff(stream)) is not None:
            values, alpha, tag = found
        elif (deep := cut_bits.of_head(head)) is not None:
            values, alpha = deep.read(stream), deep.alpha
        else:
            values, alpha, tag = _pillow(stream, channels, shrink, exif, file if isinstance(file, str) else name)
    return Pixels(values, _missing(values, (tag, nodata)), alpha)


def _opened(file: str | bytes) -> BinaryIO:
    return open(file, "rb") if isinstance(file, str) else io.BytesIO(file)


def _look(stream: BinaryIO) -> tuple[bytes, str | None]:
    """How a file begins, and whether it is of the formats that are not only Pillow's."""
    head = stream.read(LOOK)
    stream.seek(0)
    return head, NPY if head.startswith(MAGIC_NPY) else TIFF if head[:4] in MAGIC_TIFF else None


def _missing(values: np.ndarray, marks: tuple[float | None, ...]) -> np.ndarray | None:
    masks = [values == mark for mark in marks if mark is not None and _holds(values.dtype, mark)]
    if values.dtype == np.uint8 and values.shape[2] in (3, 4):  # a red of 255 is no gap, white may be one
        masks = [np.broadcast_to(mask.all(axis=2, keepdims=True), mask.shape) for mask in masks]
    if values.dtype.kind == "f":
        masks.append(~np.isfinite(values))
    found = None if not masks else np.logical_or.reduce(masks)
    return found if found is not None and found.any() else None


def _holds(dtype: np.dtype, value: float) -> bool:
    """Whether pixels of a type can have a value: -9999 marks nothing in unsigned files."""
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return float(value).is_integer() and limits.min <= value <= limits.max


# NumPy


def _npy_header(stream: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(stream)
    if dtype.kind not in "iufb" or len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"it holds {dtype} {list(shape)}, wanted numbers [H, W], [H, W, bands] or [bands, H, W]")
    return shape, dtype


def _bands(shape: tuple[int, ...], channels: int) -> int:
    """Bands lie last or first, where so many are as are expected, else along the shorter of both axes."""
    return 1 if len(shape) == 2 else channels if channels in (shape[0], shape[-1]) else min(shape[0], shape[-1])


def _npy(stream: BinaryIO, channels: int) -> np.ndarray:
    shape, dtype = _npy_header(stream)
    there = stream.seek(0, os.SEEK_END) - _end_of_header(stream)
    if int(np.prod(shape, dtype=np.int64)) * dtype.itemsize != there:
        raise ValueError(f"it holds {there} bytes, wanted {dtype} {list(shape)}")
    last = len(shape) == 2 or shape[-1] == _bands(shape, channels)
    height, width = shape[:2] if last else shape[1:]
    pixel_limit.check_size(height, width, there // (height * width))
    stream.seek(0)
    values = np.lib.format.read_array(stream, allow_pickle=False)
    values = values.astype(np.uint8) * 255 if dtype.kind == "b" else values.astype(dtype.newbyteorder("="), copy=False)
    if values.ndim == 2:
        return values[..., None]
    return values if last else np.moveaxis(values, 0, -1)


def _end_of_header(stream: BinaryIO) -> int:
    stream.seek(0)
    _npy_header(stream)
    return stream.tell()


# TIFF


@cache
def _tifffile() -> Any:
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it remarks about a file is raised by its decoder
    return tifffile


def _tiff_header(stream: BinaryIO) -> Header | None:
    """None: a file for Pillow."""
    if _plain_tiff(stream):
        return None
    with _tifffile().TiffFile(stream) as tiff:
        series = tiff.series[0]
        _, bands = _layout(series)
        return Header(np.dtype(series.dtype), bands, _has_alpha(series.keyframe), False)


def _tiff(stream: BinaryIO) -> tuple[np.ndarray, bool, float | None] | None:
    """Values ``[H, W, C]``, whether the last band is transparency, and the value of no data; None: one for Pillow."""
    if _plain_tiff(stream):
        return None
    with _tifffile().TiffFile(stream) as tiff:
        series, page = tiff.series[0], tiff.series[0].keyframe
        axes, bands = _layout(series)
        shape = dict(zip(series.axes, series.shape, strict=True))
        pixel_limit.check_size(shape["Y"], shape["X"], bands * np.dtype(series.dtype).itemsize)
        try:
            values = series.asarray(maxworkers=1).transpose(axes).reshape(shape["Y"], shape["X"], bands)
        except UNREADABLE as error:
            if "imagecodecs" in str(error) and _keeps_bits(stream):
                return None
            raise
        tag = page.tags.get(GDAL_NODATA)
        if page.photometric == 0 and values.dtype.kind == "u":  # white is zero
            values = np.iinfo(values.dtype).max - values
        return values, _has_alpha(page), None if tag is None else _number(tag.value)


def _plain_tiff(stream: BinaryIO) -> bool:
    """Whether it is one page of 8 bits that are grey, colour or a palette: Pillow knows all their kinds."""
    logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # it prints what it cannot read
    try:
        with Image.open(stream, formats=("TIFF",)) as image:
            tags: Any = image.tag_v2  # type: ignore[attr-defined]
            bits, signs = tags.get(BITS, (1,)), tags.get(SAMPLE_FORMAT, (1,))
            extra = tags.get(EXTRA_SAMPLES, ())
            extra = extra if isinstance(extra, tuple) else (extra,)
            one = getattr(image, "n_frames", 1) == 1
            return one and max(bits) <= 8 and set(signs) == {1} and all(kind in ALPHA for kind in extra)
    except UNREADABLE:
        return False
    finally:
        stream.seek(0)


def _keeps_bits(stream: BinaryIO) -> bool:
    """Whether Pillow, which has libtiff's compressions, opens a TIFF file without cutting it to 8 bits."""
    stream.seek(0)
    try:
        with Image.open(stream, formats=("TIFF",)) as image:
            return image.mode.startswith("I;16") or image.mode == "F"
    except UNREADABLE:
        return False
    finally:
        stream.seek(0)


def _layout(series: Any) -> tuple[list[int], int]:
    """The order of a series' axes that puts rows and columns first, and how many bands the others are."""
    axes, shape = series.axes, series.shape
    if "Y" not in axes or "X" not in axes:
        raise ValueError(f"it holds {axes} {list(shape)}, which is no image")
    others = [i for i, name in enumerate(axes) if name not in "YX"]
    several = [i for i in others if shape[i] > 1]
    if len(several) > 1:
        told = " x ".join(str(shape[i]) for i in several)
        raise ValueError(f"it holds {told} planes, wanted the bands of one image; write one file for each")
    bands = int(np.prod([shape[i] for i in others], dtype=np.int64))
    return [axes.index("Y"), axes.index("X"), *others], bands


def _has_alpha(page: Any) -> bool:
    extra = tuple(page.extrasamples or ())
    return len(extra) == 1 and int(extra[0]) in ALPHA


def _number(text: Any) -> float | None:
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return None


# Pillow


def _pillow_header(image: Any) -> Header:
    wide = _wide(image.mode)
    if wide is not None:
        return Header(wide, 1, False, False)
    bands = len(_stored(image))
    return Header(np.dtype(np.uint8), bands, bands in (2, 4), True)


def _stored(image: Any) -> str:
    """The mode of 8 bits that loses nothing of an image's own: palettes and CMYK are colour."""
    if image.mode == "P":
        return "RGBA" if "transparency" in image.info else "RGB"
    return {"1": "L", "L": "L", "LA": "LA", "La": "LA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA"}.get(
        image.mode, "RGB"
    )


def _wide(mode: str) -> np.dtype | None:
    """The type of pixels with more than 8 bits; older versions of Pillow open 16 bits as I."""
    if mode.startswith("I"):
        return np.dtype(np.uint16)
    return np.dtype(np.float32) if mode == "F" else None


def _pillow(
    stream: BinaryIO, channels: int, shrink: Shrink | None, exif: bool, name: str
) -> tuple[np.ndarray, bool, float | None]:
    with Image.open(stream, formats=suffixes.formats(name)) as image:
        deep = cut_bits.of_jpeg_2000(stream, image)
        if deep is not None:
            return deep.read(stream), deep.alpha, None
        if shrink is not None and image.format == "JPEG":
            width, height = image.size
            lies = exif and image.getexif().get(ORIENTATION) in LYING
            factor = shrink(width, height) if lies else shrink(height, width)
            image.draft(None, (max(width // factor, 1), max(height // factor, 1)))
        image.load()
        tag = _number(image.tag_v2.get(GDAL_NODATA)) if image.format == "TIFF" else None  # type: ignore[attr-defined]
        if exif:
            ImageOps.exif_transpose(image, in_place=True)
        wide = _wide(image.mode)
        if wide is not None:
            values = np.asarray(image)
            return values.clip(0, 65535).astype(wide)[..., None] if image.mode == "I" else values[..., None], False, tag
        if image.mode.startswith("P"):
            tag = None  # of numbers of colours
        if channels not in (1, 3):
            mode = _stored(image)
            values = np.array(image.convert(mode))
            return values.reshape(*values.shape[:2], -1), mode.endswith("A"), tag
        plain = image.convert("RGBA") if image.mode in ("P", "PA", "LA", "La", "RGBa") else image
        values = np.array(plain.convert("L" if channels == 1 else "RGB"))
        return values.reshape(*values.shape[:2], -1), False, tag
