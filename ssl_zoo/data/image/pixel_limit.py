"""How many pixels an image may have: files that claim more are damaged, or meant to fill the memory."""

from __future__ import annotations

import re

from PIL import Image

from ssl_zoo.errors import ConfigError

PILLOWS = Image.MAX_IMAGE_PIXELS  # at which Pillow warns; it refuses twice as many
LARGEST = 2**34  # bytes that one image may take: of a file that claims more, a tag is damaged


def check(limit: int | None) -> None:
    """Raise for a value of ``data.source.max_pixels`` that is no number of pixels."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"data.source.max_pixels={limit}: wanted the most pixels that an image may have, or null")


def use(limit: int | None) -> None:
    """Read images of at most ``limit`` pixels from here on, in this process; None: Pillow's 178,956,970."""
    Image.MAX_IMAGE_PIXELS = PILLOWS if limit is None else limit / 2  # type: ignore[assignment]


def reason(error: Image.DecompressionBombError) -> str:
    """What is wrong with a larger image, and the option that reads it."""
    found = re.search(r"\((\d+) pixels\)", str(error))
    if found is None:
        return "it has more pixels than data.source.max_pixels"
    most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    return f"it has {int(found[1]):,} pixels, more than {most:,.0f}; data.source.max_pixels={found[1]} reads it"


def check_size(height: int, width: int, of_pixel: int) -> None:
    """Raise for an image that would fill the memory; Pillow's own limit, for the readers that have none."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > 2 * limit:
        raise Image.DecompressionBombError(
            f"Image size ({height * width} pixels) exceeds limit of {2 * limit} pixels, could be decompression bomb "
            "DOS attack."
        )
    if height * width * of_pixel > LARGEST:
        raise ValueError(f"{height} x {width} pixels of {of_pixel} bytes are {height * width * of_pixel >> 30} GiB")
