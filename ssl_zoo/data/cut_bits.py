"""Files with more than 8 bits of which Pillow would keep 8: colours in JPEG 2000, which imagecodecs reads, and SGI."""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

import numpy as np

MAGIC_SGI = b"\x01\xda"
CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000: its start, and the segment of sizes
SEARCHED = 1 << 20  # bytes before it: boxes with colour profiles and remarks


def refuse_sgi(head: bytes) -> None:
    """Raise for an SGI file of 16 bits, by its first bytes."""
    if head.startswith(MAGIC_SGI) and len(head) > 3 and head[3] > 1:
        raise ValueError("it is an SGI file of 16 bits, of which Pillow keeps 8; write it as TIFF or PNG")


def bits_that_pillow_cuts(stream: BinaryIO, image: Any) -> int | None:
    """How many bits the colours of an opened JPEG 2000 file have; None: Pillow keeps all that there are.

    Args:
        stream: Of the file; it stays where it is.
        image: Pillow's, which keeps up to 16 bits of grey.
    """
    if image.format != "JPEG2000" or image.mode.startswith("I"):
        return None
    place = stream.tell()
    stream.seek(0)
    head = stream.read(SEARCHED)
    stream.seek(place)
    start = head.find(CODESTREAM)
    if start < 0:
        return None
    # Length and capabilities (2 bytes each), eight sizes of 4 bytes, the number of components, three bytes for each.
    sizes = start + len(CODESTREAM) + 36
    (count,) = struct.unpack_from(">H", head, sizes)
    depths = [(byte & 0x7F) + 1 for byte in head[sizes + 2 : sizes + 2 + 3 * count : 3]]
    return max(depths) if max(depths) > 8 else None


def decode(stream: BinaryIO, bits: int) -> np.ndarray:
    """``[H, W, C]`` of a JPEG 2000 file with all its bits.

    Raises:
        ImportError: If imagecodecs is not installed.
    """
    try:
        from imagecodecs import jpeg2k_decode
    except ImportError:
        raise ImportError(f"its colours have {bits} bits, of which Pillow keeps 8; imagecodecs reads them") from None
    stream.seek(0)
    values: np.ndarray = jpeg2k_decode(stream.read())
    return values if values.ndim == 3 else values[..., None]
