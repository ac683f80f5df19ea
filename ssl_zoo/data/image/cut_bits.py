"""Files with more bits than the 8 that Pillow would keep of them, by other readers.

torchvision reads PNG files of 16-bit colours, imagecodecs colours of more than 8 bits in JPEG 2000; ``.pgm`` and
``.ppm`` files are read here. SGI files of 16 bits are refused.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch

from ssl_zoo.data.image.pixel_limit import check_size

MAGIC_PNG, MAGIC_SGI = b"\x89PNG\r\n\x1a\n", b"\x01\xda"
PNG_BANDS = {2: 3, 4: 2, 6: 4}  # by the type of colour; 0 is grey, which Pillow keeps
# Kind, width, height and largest value of a .pgm or .ppm file.
NETPBM = re.compile(rb"P([56])" + 3 * rb"(?:\s|#[^\n]*\n)+(\d+)" + rb"\s")
CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000: its start, and the segment of sizes
SEARCHED = 1 << 20  # bytes before it: boxes with colour profiles and remarks


class Deep(NamedTuple):
    """How a file of 9 to 16 bits is read."""

    bands: int  # transparency included
    alpha: bool  # the last band is transparency
    read: Callable[[BinaryIO], np.ndarray]  # [H, W, C] uint16


def of_head(head: bytes) -> Deep | None:
    """Of a PNG, ``.pgm`` or ``.ppm`` file, by its first bytes; None: another file, or one of 8 bits.

    Raises:
        ValueError: For an SGI file of 16 bits.
    """
    if head.startswith(MAGIC_SGI) and len(head) > 3 and head[3] > 1:
        raise ValueError("it is an SGI file of 16 bits, of which Pillow keeps 8; write it as TIFF or PNG")
    if len(head) > 25 and head.startswith(MAGIC_PNG) and head[24] == 16 and head[25] in PNG_BANDS:
        bands = PNG_BANDS[head[25]]
        return Deep(bands, bands in (2, 4), _png)
    found = NETPBM.match(head) if head[:2] in (b"P5", b"P6") else None
    if found is None or not 255 < int(found[4]) < 65536:
        return None
    bands = 1 if found[1] == b"5" else 3
    return Deep(bands, False, partial(_netpbm, int(found[3]), int(found[2]), bands, found.end()))


def of_jpeg_2000(stream: BinaryIO, image: Any) -> Deep | None:
    """Of a file that Pillow has opened; None: another format, or Pillow keeps all bits that there are.

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
    bits = max((byte & 0x7F) + 1 for byte in head[sizes + 2 : sizes + 2 + 3 * count : 3])
    if bits <= 8:
        return None
    bands = len(image.getbands())
    return Deep(bands, image.mode.endswith("A"), partial(_jpeg_2000, image.height, image.width, bands, bits))


def _png(stream: BinaryIO) -> np.ndarray:
    from torchvision.io import ImageReadMode, decode_png

    content = bytearray(stream.read())
    width, height = struct.unpack(">II", content[16:24])
    check_size(height, width, 8)
    image = decode_png(torch.frombuffer(content, dtype=torch.uint8), ImageReadMode.UNCHANGED)
    return image.permute(1, 2, 0).numpy()


def _netpbm(height: int, width: int, bands: int, begin: int, stream: BinaryIO) -> np.ndarray:
    check_size(height, width, 2 * bands)
    return np.frombuffer(stream.read(), ">u2", height * width * bands, begin).reshape(height, width, bands)


def _jpeg_2000(height: int, width: int, bands: int, bits: int, stream: BinaryIO) -> np.ndarray:
    check_size(height, width, 2 * bands)
    try:
        from imagecodecs import jpeg2k_decode
    except ImportError:
        raise ImportError(f"its colours have {bits} bits, of which Pillow keeps 8; imagecodecs reads them") from None
    stream.seek(0)
    values: np.ndarray = jpeg2k_decode(stream.read())
    return values if values.ndim == 3 else values[..., None]
