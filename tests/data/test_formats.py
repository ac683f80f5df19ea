"""Files of every type, with any number of bands, as they are stored; and the range that is decided for them."""

import io

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from ssl_zoo.data.image import formats
from ssl_zoo.data.image.decode import Reader, reader
from ssl_zoo.data.image.pixel_range import Range, sampled
from ssl_zoo.data.source import DamagedFile
from ssl_zoo.errors import ConfigError
from tests.data.deep import GDAL_NODATA, deep_png

NODATA = [GDAL_NODATA]


def tiff(pixels: np.ndarray, **options) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, pixels, **options)
    return out.getvalue()


def npy(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, pixels)
    return out.getvalue()


def noise(dtype: str, *shape: int) -> np.ndarray:
    kind, rng = np.dtype(dtype), np.random.RandomState(0)
    if kind.kind == "f":
        return rng.uniform(-2, 2, shape).astype(kind)
    limits = np.iinfo(kind)
    return rng.randint(max(limits.min, -(2**40)), min(limits.max, 2**40), shape, dtype=np.int64).astype(kind)


TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bands", [1, 4, 13])
def test_every_type_and_number_of_bands_comes_as_it_is_stored(dtype, bands):
    pixels = noise(dtype, 6, 7, bands)
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    flat = pixels[..., 0] if bands == 1 else pixels
    plain = {"photometric": "minisblack", **({} if bands == 1 else {"planarconfig": "contig"})}
    files = {
        "interleaved": tiff(flat, **plain), "deflated": tiff(flat, compression="deflate", **plain),
        "tiles": tiff(flat, tile=(16, 16), **plain), "swapped": tiff(flat, byteorder=">", **plain),
        "pages": tiff(planes, photometric="minisblack"),
        "last": npy(pixels), "first": npy(planes), "fortran": npy(np.asfortranarray(pixels)),
    }  # fmt: skip
    if bands > 1:
        files["planar"] = tiff(planes, photometric="minisblack", planarconfig="separate")
    for name, content in files.items():
        found = formats.read(content, bands)
        assert found.values.dtype == pixels.dtype and found.missing is None, name
        np.testing.assert_array_equal(found.values, pixels, err_msg=name)
        assert formats.header(content, bands)[:2] == (pixels.dtype, bands), name


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_png_of_sixteen_bits_keeps_them_in_every_kind(bands):
    pixels = noise("uint16", 6, 7, bands)
    found = formats.read(deep_png(pixels), bands)
    np.testing.assert_array_equal(found.values, pixels)
    alpha = bands in (2, 4)
    assert formats.header(deep_png(pixels), bands)[:3] == (np.uint16, bands, alpha) and found.alpha == alpha


@pytest.mark.parametrize("kind", [b"P5", b"P6"])
def test_netpbm_of_sixteen_bits_keeps_its_numbers(kind):
    bands = 1 if kind == b"P5" else 3
    pixels = noise("uint16", 6, 7, bands) % 4096
    content = kind + b"\n# a camera\n7 6\n4095\n" + pixels.astype(">u2").tobytes()
    assert np.array_equal(formats.read(content, bands).values, pixels)
    assert formats.header(content, bands)[:3] == (np.uint16, bands, False)
    with pytest.raises(DamagedFile, match="x.ppm"):
        Reader(bands)(content[:-5], "x.ppm")


def test_compressed_tiff_of_the_usual_tools(tmp_path):
    pytest.importorskip("imagecodecs")
    pixels = noise("uint16", 16, 16, 5)
    for compression in ("lzw", "zstd", "packbits"):
        content = tiff(pixels, planarconfig="contig", photometric="minisblack", compression=compression)
        np.testing.assert_array_equal(formats.read(content, 5).values, pixels, err_msg=compression)


def test_without_imagecodecs_pillow_reads_what_it_need_not_cut(monkeypatch):
    pixels = noise("uint16", 16, 16)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "TIFF", compression="tiff_lzw")
    series = "tifffile.TiffPageSeries.asarray"
    missing = ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    def fails(*_, **__):
        raise missing

    monkeypatch.setattr(series, fails)
    found = formats.read(content.getvalue(), 1)
    assert found.values.dtype == np.uint16 and np.array_equal(found.values[..., 0], pixels)
    with pytest.raises(DamagedFile, match=r"imagecodecs' package; pip install ssl_zoo\[images\] brings it"):
        Reader(3)(tiff(noise("uint16", 16, 16, 3), photometric="rgb"), "colour.tif")


def test_no_data_is_the_tag_the_setting_and_what_is_not_finite():
    pixels = np.array([[0.0, -9999.0, np.nan], [np.inf, 7.0, 1.0]], np.float32)
    found = formats.read(tiff(pixels, extratags=NODATA), 1, nodata=7.0)
    assert found.missing[..., 0].tolist() == [[False, True, True], [True, True, False]]
    assert formats.read(tiff(np.zeros((2, 2), np.uint16), extratags=NODATA), 1).missing is None  # cannot be -9999
    colour = np.array([[[255, 0, 0], [255, 255, 255]]], np.uint8)
    white = formats.read(tiff(colour, photometric="rgb", extratags=[(42113, "s", 0, "255", True)]), 3)
    assert white.missing[..., 0].tolist() == [[False, True]]  # a red pixel is data


def test_several_images_in_a_file_are_refused():
    with pytest.raises(DamagedFile, match="4 x 3 planes"):
        Reader(3)(tiff(noise("uint8", 4, 6, 7, 3), photometric="rgb", metadata={"axes": "TYXS"})[:-1] + b"\0", "x.tif")


def decided(contents, channels=1, **options):
    return reader(contents, channels, names=[f"{i}.tif" for i in range(len(contents))], **options)


@pytest.mark.parametrize(
    ("largest", "high"), [(200, 255), (256, 1023), (1023, 1023), (3000, 4095), (16000, 16383), (40000, 65535)]
)
def test_unsigned_integers_go_to_the_next_usual_depth(largest, high):
    pixels = np.array([[0, largest // 2, largest]], np.uint16)
    read = decided([tiff(pixels // 2), tiff(pixels)])
    assert read.range == Range(0, high) and read.resolved == {"range": [0, high]}
    image = read(tiff(pixels))
    assert image.tolist() == [pixels.tolist()] and image.dtype == (torch.uint8 if high == 255 else torch.uint16)


def test_eight_bits_are_not_measured(monkeypatch):
    monkeypatch.setattr(formats, "read", lambda *_: pytest.fail("pixels were read"))
    assert decided([tiff(np.full((4, 4), 3, np.uint8))] * 3).decisions == ()
    assert reader(["a.jpg", "b.JPEG"], 3).range == Range(0, 255)  # not even opened: they do not exist


def test_other_values_go_from_one_percentile_to_the_other():
    pixels = np.arange(-1000, 1001, dtype=np.int16).reshape(3, 667)
    read = decided([tiff(pixels)])
    assert read.range == Range(-998, 998)
    image = read(tiff(pixels))
    assert image.dtype == torch.uint16 and read.range.white == 1996
    assert image.flatten().numpy()[[0, 1, 2, 1000, -1]].tolist() == [0, 0, 0, 998, 1996]
    (line,) = read.decisions
    told = "pixel values -998 to 998 are black to white (percentiles 0.1 and 99.9; 1 files)"
    assert line == f"{told}; what lies outside is cut"


def test_floats_within_zero_and_one_stay_as_they_are():
    pixels = np.linspace(0, 1, 40, dtype=np.float64).reshape(5, 8)
    read = decided([tiff(pixels)])
    assert read.range == Range(0.0, 1.0, whole=False) and read.decisions == (
        "pixel values 0 to 1 are black to white (floats within [0, 1], as they are; 1 files)",
    )
    np.testing.assert_array_equal(read(tiff(pixels))[0].numpy(), pixels.astype(np.float32))


def test_one_pixel_above_and_no_data_leave_the_range_alone():
    pixels = np.tile(np.linspace(0, 1, 5000, dtype=np.float32), 2).reshape(100, 100)
    pixels[0, :50], pixels[1, 1] = -9999, 1.02
    read = decided([tiff(pixels, extratags=NODATA)])
    assert 0 <= read.range.low < 0.01 and 0.99 < read.range.high <= 1.0
    image = read(tiff(pixels, extratags=NODATA))[0]
    assert image[0, :50].eq(0).all() and image[1, 1] == 1 and image.unique().numel() > 4000
    kept, missing = read.masked(tiff(pixels, extratags=NODATA))
    assert torch.equal(kept[0], image) and int(missing.sum()) == 50


def test_a_range_that_is_set_is_taken():
    pixels = np.array([[0, 50, 100, 300]], np.float32)
    read = decided([tiff(pixels)], range=[0, 100])
    assert read(tiff(pixels)).flatten().tolist() == [0, 0.5, 1, 1] and read.resolved == {"range": [0, 100]}
    assert "as it is set" in read.decisions[0]
    whole = decided([tiff(pixels.astype(np.uint8))], range=[0, 100])
    assert whole(tiff(np.array([[50]], np.uint8))).tolist() == [[[0.5]]]


def test_a_file_on_another_scale_is_named_and_not_cut():
    read = decided([tiff(np.full((4, 4), 3, np.uint8))])
    with pytest.raises(DamagedFile, match=r"100% of its uint16 pixels lie above the range \[0, 255\]"):
        read(tiff(np.full((4, 4), 9000, np.uint16)), "x.tif")
    with pytest.raises(DamagedFile, match="float32 pixels, and the range .* was decided for integers"):
        read(tiff(np.full((4, 4), 0.5, np.float32)), "x.tif")


@pytest.mark.parametrize(
    ("pixels", "options", "words"),
    [
        (np.zeros((4, 4, 13), np.uint16), {"channels": 3}, "the files have 13 bands (0.tif); set data.channels=13"),
        (np.zeros((4, 4, 4), np.uint8), {"channels": 3}, "the files have 4 bands (0.tif); set data.channels=4"),
        (np.zeros((4, 4), np.uint8), {"channels": 4}, "the files have 1 band (0.tif); set data.channels=1"),
        (np.full((4, 4), 2.5, np.float32), {}, "all pixels of 1 files are 2.5"),
        (np.full((4, 4), np.nan, np.float32), {}, "no pixel of 1 files has a value"),
        (np.zeros((4, 4), np.uint8), {"range": [5, 5]}, "wanted auto, or [low, high]"),
        (np.zeros((4, 4), np.uint8), {"range": "all"}, "data.source.range=all"),
        (np.zeros((4, 4), np.uint8), {"nodata": "none"}, "data.source.nodata=none"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(pixels, options, words):
    bands = pixels.shape[2] if pixels.ndim == 3 else 1
    content = tiff(pixels, photometric="minisblack", planarconfig="contig") if bands != 4 else tiff(
        pixels, photometric="rgb", extrasamples=["unspecified"])  # fmt: skip
    with pytest.raises(ConfigError) as error:
        decided([content], **{"channels": 1, **options})
    assert words in str(error.value)


def test_files_that_differ_in_bands_are_counted():
    plain = {"photometric": "minisblack", "planarconfig": "contig"}
    contents = [tiff(np.zeros((4, 4, n), np.uint16), **plain) for n in (5, 5, 4)]
    with pytest.raises(ConfigError, match=r"of 3 that were looked into 2 have 5 \(0.tif\), 1 have 4 \(2.tif\)"):
        decided(contents, channels=3)
    read = decided(contents[:1], channels=5)
    with pytest.raises(DamagedFile, match="it has 4 bands, and data.channels=5"):
        read(contents[2], "late.tif")


def test_transparency_and_mixed_types_are_told():
    alpha, out = np.zeros((4, 4, 4), np.uint8), io.BytesIO()
    Image.fromarray(alpha).save(out, "PNG")
    told = reader([out.getvalue(), tiff(np.zeros((4, 4), np.uint16))], 3, names=["a.png", "b.tif"]).decisions
    assert told == (
        "transparency is left out (1 of 2 files that were looked into have it; data.channels=4 keeps a fourth band)",
        "files have pixels of several types (1 uint8, 1 uint16), all read on one scale",
    )
    assert reader([out.getvalue()], 4, names=["a.png"])(out.getvalue()).shape == (4, 4, 4)


def test_the_sample_of_files_is_fixed():
    assert sampled(3) == [0, 1, 2] and len(sampled(10**6)) == 1024 == len(set(sampled(10**6)))
