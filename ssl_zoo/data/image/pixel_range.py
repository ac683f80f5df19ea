"""One range of pixel values for a data set: what is black and what is white in files of any type.

``data.source.range: auto`` is decided once, on a fixed sample of files, and kept with the run: unsigned integers go
from 0 to the largest value that was found, rounded up to 8, 10, 12, 14 or 16 bits; floating-point values within [0, 1]
stay as they are; all others go from the percentile 0.1 to the percentile 99.9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ssl_zoo.data.fingerprint import spread
from ssl_zoo.data.image import formats
from ssl_zoo.data.image.formats import Header, Pixels
from ssl_zoo.errors import ConfigError

DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners have
PERCENTILES = (0.1, 99.9)
FILES = 1024  # that a decision looks into
VALUES = 1 << 14  # of a file that go into the percentiles, evenly spread over its pixels
THREADS = 8  # decoders let go of Python's lock
STRANGE = 0.9  # share of a file's pixels above the range from which on it is of another scale


@dataclass(frozen=True)
class Range:
    """Values that become 0 and 1.

    Args:
        low, high: In the numbers of the files; what lies outside is cut.
        whole: The files hold integers.
    """

    low: float = 0
    high: float = 255
    whole: bool = True

    @property
    def white(self) -> int:
        """What ``high`` is in images of integers as they travel (:func:`carried`)."""
        return int(self.high - self.low)

    @property
    def dtype(self) -> type:
        """Of the images as they travel: a byte for 256 steps, 16 bits for more, else floats in [0, 1]."""
        if not self.whole or not float(self.low).is_integer() or not float(self.high).is_integer():
            return np.float32
        return np.uint8 if self.white == 255 else np.uint16 if 255 < self.white < 65536 else np.float32

    def plain(self) -> list[int] | list[float]:
        """``[low, high]`` for a record: whole numbers where they are."""
        pair = (self.low, self.high)
        return [int(x) for x in pair] if all(float(x).is_integer() for x in pair) else [float(x) for x in pair]

    def kept(self) -> dict[str, Any]:
        """In plain containers, for :meth:`of`."""
        return {"range": self.plain(), "whole": self.whole}

    @classmethod
    def of(cls, kept: Any, where: str) -> Range:
        """What :meth:`kept` gave, out of the file ``where``; a ConfigError for anything else."""
        if not isinstance(kept, dict) or not isinstance(kept.get("whole"), bool):
            raise ConfigError(f"{where}: what it says of its pixels makes no sense ({kept}); write it again")
        try:
            return parse(kept.get("range"), kept["whole"])
        except ConfigError:
            raise ConfigError(f"{where}: its range of pixels makes no sense ({kept}); write it again") from None


BYTES = Range()


def parse(value: Any, whole: bool) -> Range:
    """``[low, high]`` as it was typed.

    Raises:
        ConfigError: For anything else.
    """
    pair = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x) for x in pair)
    if len(pair) != 2 or not numbers or not pair[0] < pair[1]:
        raise ConfigError(
            f"data.source.range={value}: wanted auto, or [low, high], the values that become black and white "
            "(data.source.range=[0,4095] for 12 bits)"
        )
    return Range(pair[0], pair[1], whole)


def carried(pixels: Pixels, range: Range) -> np.ndarray:
    """``[H, W, C]`` as images travel to the device: ``range.dtype``, of which ``range.white`` or 1.0 is white.

    No data becomes black.

    Raises:
        ValueError: For a file on another scale: floats among integers, or nearly all pixels above the range.
    """
    x, missing = pixels.values, pixels.missing
    if x.dtype == np.uint8 and range == BYTES and missing is None:
        return x
    if range.whole and x.dtype.kind == "f":
        raise ValueError(f"it holds {x.dtype} pixels, and the range {range.plain()} was decided for integers")
    if x.dtype != np.uint8:
        _check_scale(x, missing, range)
    if range.dtype is np.float32:
        work = x if x.dtype.kind == "f" and x.dtype.itemsize > 2 else x.astype(np.float64)
        found = ((work - range.low) / (range.high - range.low)).clip(0, 1).astype(np.float32)
    else:
        limits = np.iinfo(x.dtype)
        low, high = (min(max(int(end), limits.min), limits.max) for end in (range.low, range.high))
        found = x.clip(low, high)
        found = (found if range.low == 0 else found.astype(np.int64) - int(range.low)).astype(range.dtype)
    if missing is not None:
        found = np.where(missing, found.dtype.type(0), found)
    return found


def _check_scale(x: np.ndarray, missing: np.ndarray | None, range: Range) -> None:
    above = np.count_nonzero(x > range.high if missing is None else (x > range.high) & ~missing)
    if above > STRANGE * x.size:
        raise ValueError(
            f"{above / x.size:.0%} of its {x.dtype} pixels lie above the range {range.plain()} of this data set; set "
            "data.source.range=[low,high] to values that suit all files, or take it out"
        )


def sampled(n: int) -> list[int]:
    """Which of ``n`` files a decision looks into, evenly spread; the same ones at all times."""
    return spread(n, FILES).tolist()


class Files(NamedTuple):
    """What a decision looks at: files, or their contents, and what to call them."""

    files: Sequence[str | bytes]
    names: Sequence[str]


def decide(found: Files, headers: Sequence[Header], channels: int, nodata: float | None) -> tuple[Range, str]:
    """The range of ``auto``, and why in a few words.

    Args:
        found: The sample.
        headers: Of its readable files.

    Raises:
        ConfigError: If no file has a value, or all have the same.
    """
    kinds = {header.dtype.kind for header in headers}
    if all(header.dtype in (np.uint8, np.bool_) for header in headers):
        return BYTES, "8 bits"
    if kinds <= {"u", "b"}:
        largest = max((int(values.max()) for values in _values(found, channels, nodata, whole=True)), default=0)
        depth = next((bits for bits in DEPTHS if largest < 1 << bits), None)
        if depth is not None:
            return Range(0, (1 << depth) - 1), f"{depth} bits: the largest value found is {largest}"
    whole = "f" not in kinds
    sample = list(_values(found, channels, nodata, whole=False))
    values = np.concatenate(sample) if sample else np.empty(0)
    if not len(values):
        raise ConfigError(f"data.source.range=auto: no pixel of {len(found.files)} files has a value; set it to "
                          "[low, high], or data.source.nodata to null")  # fmt: skip
    if not whole and min(part.min() for part in sample) >= 0 and max(part.max() for part in sample) <= 1:
        return Range(0.0, 1.0, whole=False), "floats within [0, 1], as they are"
    low, high = (float(f"{x:.6g}") for x in np.percentile(values, PERCENTILES))
    if low == high:
        low, high = float(values.min()), float(values.max())
    if low == high:
        raise ConfigError(f"data.source.range=auto: all pixels of {len(found.files)} files are {low:g}; set it to "
                          "[low, high]")  # fmt: skip
    if whole:
        low, high = math.floor(low), math.ceil(high)
    return Range(low, high, whole), "percentiles 0.1 and 99.9"


def _values(found: Files, channels: int, nodata: float | None, whole: bool) -> list[np.ndarray]:
    """Data of each readable file, ``[n]``: its largest value of integers, else a part that is evenly spread."""

    def of(file: str | bytes) -> np.ndarray:
        try:
            pixels = formats.read(file, channels, nodata=nodata)
        except formats.UNREADABLE:
            return np.empty(0)  # named when its turn comes
        values = pixels.values[..., : pixels.values.shape[2] - pixels.alpha]
        values = values.ravel() if pixels.missing is None else values[~pixels.missing[..., : values.shape[2]]]
        if not len(values):
            return values
        return values.max(keepdims=True) if whole else _spread(values).astype(np.float64)

    with ThreadPoolExecutor(THREADS) as pool:
        return [values for values in pool.map(of, found.files) if len(values)]


def _spread(values: np.ndarray) -> np.ndarray:
    """All of few values; of many a part, and the extremes, which say whether all lie within [0, 1]."""
    if len(values) <= VALUES:
        return values
    part = values[:: -(-len(values) // VALUES)]
    return np.concatenate([part, values.min(keepdims=True), values.max(keepdims=True)])
