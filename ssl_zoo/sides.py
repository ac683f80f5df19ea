"""Sizes of images: one number for a square, or height and width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssl_zoo.errors import ConfigError
from ssl_zoo.ranges import Size
from ssl_zoo.signatures import fits

Side = Size | tuple[Size, Size]
WORDS = "a whole number of at least 1, or [height, width]"  # of what is wanted


def height_width(side: int | Sequence[int]) -> tuple[int, int]:
    """Pixels down and across."""
    height, width = (side, side) if isinstance(side, int) else side
    return int(height), int(width)


def plain_side(side: Any) -> Any:
    """One number for a square, a pair for another rectangle, whichever container it was in; else what was given."""
    if isinstance(side, int) or not is_side(side):
        return side
    height, width = height_width(side)
    return height if height == width else (height, width)


def square(info: Any) -> int:
    """The side of the square images that ``info``, a :class:`ssl_zoo.data.batch.DataInfo`, tells of.

    Raises:
        ConfigError: If they are no squares.
    """
    if isinstance(info.image_size, int):
        return info.image_size
    raise ConfigError(f"this method works on square images, and data.image_size is {list(info.image_size)}; "
                      f"set data.image_size={max(info.image_size)}")


def is_side(side: Any) -> bool:
    return fits(list(side) if isinstance(side, Sequence) and not isinstance(side, str) else side, Side)
