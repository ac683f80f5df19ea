"""Files with more bits than Pillow keeps are read with all of them, or refused with a sentence."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pytest

from ssl_zoo.data.image import formats
from ssl_zoo.data.image.decode import Reader
from ssl_zoo.data.source import DamagedFile


def pixels(bits: int, *shape: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 2**bits, shape).astype(np.uint16)


def jpeg2000(values: np.ndarray, bits: int, kind: str = "jp2") -> bytes:
    codecs = pytest.importorskip("imagecodecs")
    found: bytes = codecs.jpeg2k_encode(values, level=0, reversible=True, codecformat=kind, bitspersample=bits)
    return found


@pytest.mark.parametrize(("kind", "bits", "bands"), [("jp2", 16, 3), ("j2k", 12, 3), ("jp2", 10, 4), ("jp2", 9, 3)])
def test_colours_of_jpeg_2000_keep_all_bits(kind: str, bits: int, bands: int) -> None:
    values = pixels(bits, 33, 21, bands)
    content = jpeg2000(values, bits, kind)
    header = formats.header(content, bands, f"x.{kind}")
    assert (header.dtype, header.bands, header.pillow) == (np.dtype(np.uint16), bands, False)
    found = formats.read(content, bands, name=f"x.{kind}")
    assert found.values.dtype == np.uint16 and np.array_equal(found.values, values)


def test_eight_bits_of_jpeg_2000_are_pillows() -> None:
    codecs = pytest.importorskip("imagecodecs")
    values = pixels(8, 33, 21, 3).astype(np.uint8)
    content = codecs.jpeg2k_encode(values, level=0, reversible=True, codecformat="jp2")
    assert formats.header(content, 3, "x.jp2").pillow
    assert np.array_equal(formats.read(content, 3, name="x.jp2").values, values)


def test_without_the_package_the_reason_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    content = jpeg2000(pixels(12, 8, 8, 3), 12)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(DamagedFile) as caught:
        Reader(3)(content, "x.jp2")
    assert str(caught.value) == ("x.jp2: its colours have 12 bits, of which Pillow keeps 8; imagecodecs reads them; "
                                 "pip install ssl_zoo[images] brings it")  # fmt: skip


def sgi(bytes_of_a_pixel: int) -> bytes:
    head = struct.pack(">hBBHHHH", 474, 0, bytes_of_a_pixel, 3, 4, 4, 3).ljust(512, b"\0")
    return head + bytes(4 * 4 * 3 * bytes_of_a_pixel)


def test_sgi_files_of_16_bits_are_refused_and_others_read() -> None:
    assert Reader(3)(sgi(1), "x.sgi").shape == (3, 4, 4)
    with pytest.raises(DamagedFile) as caught:
        Reader(3)(sgi(2), "x.sgi")
    wanted = "x.sgi: it is an SGI file of 16 bits, of which Pillow keeps 8; write it as TIFF or PNG"
    assert str(caught.value) == wanted
