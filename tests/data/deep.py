"""Images as instruments give them: more than 8 bits, other bands than colour, no data in places."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile

GDAL_NODATA = (42113, "s", 0, "-9999", True)


def scene(i: int, size: int = 48) -> np.ndarray:
    """``[size, size]`` in [0, 1]: a bright disc somewhere on a slope, with some texture."""
    rng = np.random.RandomState(i)
    y, x = np.mgrid[:size, :size] / size
    cx, cy, radius = rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7), rng.uniform(0.12, 0.25)
    disc = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
    return np.clip(0.15 + 0.4 * x + 0.4 * disc + 0.03 * rng.randn(size, size), 0, 1)


def bands(i: int, count: int) -> np.ndarray:
    """``[count, size, size]``: the scene at other brightnesses."""
    return np.stack([scene(i) * (0.3 + 0.7 * (b + 1) / count) for b in range(count)])


def deep_png(pixels: np.ndarray) -> bytes:
    """``uint16 [H, W, C]`` as a PNG file, which Pillow cannot write in colour."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _tiff(pixels: np.ndarray, **options: object) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path.with_suffix(".tif"), pixels, **options)


def _grey12(i: int) -> Callable[[Path], None]:
    return lambda path: path.with_suffix(".png").write_bytes(deep_png((scene(i) * 4095).astype(np.uint16)[..., None]))


def _reflectance(i: int) -> Callable[[Path], None]:
    return _tiff((scene(i) * 3000).astype(np.uint16))


def _float_with_nodata(i: int) -> Callable[[Path], None]:
    pixels = scene(i).astype(np.float32)
    pixels[:6] = -9999
    pixels[20, 20] = 1.02 if i == 0 else pixels[20, 20]
    return _tiff(pixels, extratags=[GDAL_NODATA])


def _five(i: int) -> Callable[[Path], None]:
    planes = (bands(i, 5) * 10000).astype(np.uint16)
    return _tiff(planes, photometric="minisblack", planarconfig="separate", compression="deflate")


def _thirteen(i: int) -> Callable[[Path], None]:
    pixels = np.ascontiguousarray(np.moveaxis((bands(i, 13) * 10000).astype(np.uint16), 0, -1))
    return _tiff(pixels, photometric="minisblack", planarconfig="contig", compression="deflate", predictor=True)


def _nine(i: int) -> Callable[[Path], None]:
    return lambda path: np.save(path.with_suffix(".npy"), bands(i, 9).astype(np.float32) * 40 - 5)


# Name -> (bands, what writes image number i to a path without suffix).
KINDS: dict[str, tuple[int, Callable[[int], Callable[[Path], None]]]] = {
    "12-bit PNG": (1, _grey12),
    "reflectance": (1, _reflectance),
    "float with nodata": (1, _float_with_nodata),
    "float -1 to 1": (1, lambda i: _tiff((scene(i) * 2 - 1).astype(np.float32))),
    "Hounsfield": (1, lambda i: _tiff((scene(i) * 3000 - 1000).astype(np.int16))),
    "5 bands": (5, _five),
    "13 bands": (13, _thirteen),
    "9 bands of npy": (9, _nine),
}


def images(root: Path, kind: str, count: int = 16, classes: int = 0) -> Path:
    """``count`` images of a kind below ``root``, in so many class folders (0: in none)."""
    for i in range(count):
        folder = root / f"class{i % classes}" if classes else root
        folder.mkdir(parents=True, exist_ok=True)
        KINDS[kind][1](i)(folder / f"{i:03d}")
    return root
