"""Which files are read: all that the installed libraries read as images, and nothing that starts a program."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_zoo.data.image import suffixes
from ssl_zoo.data.image.decode import Reader
from ssl_zoo.data.image.folder import folder
from ssl_zoo.data.source import DamagedFile
from ssl_zoo.errors import ConfigError
from tests.data.helpers import files, pictures

# Formats that Pillow writes, with a suffix of each, and how far the pixels may be from what was written.
WRITTEN = {
    ".avif": 40, ".bmp": 0, ".dib": 0, ".dds": 0, ".gif": 60, ".ico": 0, ".jfif": 60, ".jpe": 60, ".jp2": 0,
    ".j2k": 0, ".pcx": 0, ".png": 0, ".apng": 0, ".pnm": 0, ".ppm": 0, ".qoi": 0, ".sgi": 0, ".rgb": 0, ".tga": 0,
    ".tif": 0, ".webp": 60,
}  # fmt: skip


def smooth() -> np.ndarray:
    """``[32, 32, 3]``: what coders keep nearly as it is."""
    y, x = np.mgrid[:32, :32].astype(np.uint8)
    return np.stack([y * 7, x * 7, (y + x) * 3], axis=2)


def writable() -> list[str]:
    Image.init()
    known = Image.registered_extensions()
    return [ending for ending in WRITTEN if known.get(ending) in Image.SAVE and ending in suffixes.readable()]


def test_what_pillow_writes_is_read_under_its_own_suffix_in_capitals_too(tmp_path: Path) -> None:
    pixels, endings = smooth(), writable()
    assert {".jp2", ".jfif", ".tga", ".pnm"} <= set(endings)  # of every Pillow
    for ending in endings:
        Image.fromarray(pixels).save(tmp_path / f"small{ending}", format=Image.registered_extensions()[ending])
        (tmp_path / f"small{ending}").rename(tmp_path / f"x{ending.upper()}")
    train = folder(str(tmp_path), 3, 32, cache=False).train
    assert len(train) == len(endings)
    for i in range(len(train)):
        image = train.load(i).permute(1, 2, 0).numpy().astype(int)
        ending = Path(train.path(i)).suffix.lower()
        assert image.shape == (32, 32, 3), ending
        assert np.abs(image - pixels).mean() <= WRITTEN[ending] / 10, ending


def test_photographs_of_telephones_where_the_package_is_installed(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(smooth())).save(tmp_path / "a.HEIC", quality=90)
    image = folder(str(tmp_path), 3, 32, cache=False).train.load(0)
    assert image.shape == (3, 32, 32) and (image.permute(1, 2, 0).float() - torch.tensor(smooth())).abs().mean() < 4


def test_what_would_start_a_program_or_open_others_files_is_refused(tmp_path: Path) -> None:
    left_out = {".eps", ".ps", ".iim", ".mpg", ".mpeg", ".wmf", ".emf", ".h5", ".hdf", ".grib", ".bufr", ".fits"}
    assert not left_out & set(suffixes.readable())
    content = io.BytesIO()
    Image.fromarray(smooth()).save(content, "EPS")
    for name in ("a.eps", "a.jpg", "a.xyz", ""):  # also under another name, or under none
        with pytest.raises(DamagedFile, match="it is no image of a format that is read"):
            Reader(3)(content.getvalue(), name)
        assert not {"EPS", "IPTC", "MPEG", "WMF", "HDF5"} & set(suffixes.formats(name))


def test_weak_signatures_are_believed_under_their_own_suffix_only(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(smooth()).save(content, "TGA")  # it begins like many other things
    assert Reader(3)(content.getvalue(), "a.tga").shape == (3, 32, 32)
    assert Reader(3)(content.getvalue(), "chunk-0.bin, sample 3").shape == (3, 32, 32)  # nothing else is known of it
    with pytest.raises(DamagedFile):
        Reader(3)(content.getvalue(), "a.png")
    Image.fromarray(smooth()).save(tmp_path / "jpeg.tga", "JPEG")  # a name may still be wrong
    assert Reader(3)(str(tmp_path / "jpeg.tga")).shape == (3, 32, 32)


def test_kinds_of_skipped_files_are_one_line_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert suffixes.skipped({}) is None
    assert suffixes.skipped({".xyz": 30, "": 2}) == "skipped: 30 .xyz, 2 without a suffix"
    many = {f".{name}": 9 - i for i, name in enumerate("abcdefgh")} | {".z": 1200}
    assert suffixes.skipped(many) == "skipped: 1,200 .z, 9 .a, 8 .b, 7 .c, 6 .d, 5 .e, 9 of 3 other kinds"
    assert suffixes.skipped({".heic": 3}) == 'skipped: 3 .heic; pip install "ssl_zoo[images]" reads .heic'
    assert suffixes.skipped({".fits": 1}) == (
        "skipped: 1 .fits; .fits: Pillow leaves out their scaling; convert them to .npy or TIFF"
    )


def test_a_list_that_was_kept_before_a_reader_was_installed_is_not_used(tmp_path: Path, monkeypatch) -> None:
    pictures(tmp_path / "data", 2)
    (tmp_path / "data" / "a.heix").write_text("x")
    cache = str(tmp_path / "kept")
    assert len(folder(str(tmp_path / "data"), 3, 16, cache=cache).train) == 2
    known = suffixes.readable()
    monkeypatch.setattr("ssl_zoo.data.image.listing.readable", lambda: {**known, ".heix": "HEIF"})
    assert len(folder(str(tmp_path / "data"), 3, 16, cache=cache).train) == 3


# Orientation


def turned(tmp_path: Path, orientation: int, ending: str = ".jpg") -> Path:
    """A photograph whose file is turned as the tag says, so that it shows :func:`smooth` on its side."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"{orientation}{ending}"
    Image.fromarray(smooth()[:24]).save(path, exif=exif, quality=95)
    return path


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_tag_says(tmp_path: Path, orientation: int, ending: str) -> None:
    path = str(turned(tmp_path, orientation, ending))
    stored, shown = Reader(3)(path), Reader(3, exif=True)(path)
    by_hand = {
        1: stored, 2: stored.flip(2), 3: stored.flip(1, 2), 4: stored.flip(1), 5: stored.transpose(1, 2),
        6: stored.transpose(1, 2).flip(2), 7: stored.transpose(1, 2).flip(1, 2), 8: stored.transpose(1, 2).flip(1),
    }  # fmt: skip
    assert torch.equal(shown, by_hand[orientation])


def test_a_draft_is_asked_for_in_the_sizes_of_the_turned_image(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    def shrink(height: int, width: int) -> int:
        asked.append((height, width))
        return 2

    path = str(turned(tmp_path, 6))
    assert Reader(3, exif=True)(path, shrink=shrink).shape == (3, 16, 12)
    assert Reader(3)(path, shrink=shrink).shape == (3, 12, 16)
    assert asked == [(32, 24), (24, 32)]


def test_folders_are_turned_and_imagenet_is_not(tmp_path: Path) -> None:
    from ssl_zoo import config

    assert config.load(["data=folder"]).data.source.exif is True
    assert config.load(["data=imagenet"]).data.source.exif is False
    turned(tmp_path, 6)
    assert folder(str(tmp_path), 3, 16, cache=False, exif=True).train.load(0).shape == (3, 32, 24)
    assert folder(str(tmp_path), 3, 16, cache=False).train.load(0).shape == (3, 24, 32)


# Large scans


@pytest.mark.slow
def test_a_large_image_is_damaged_until_the_option_reads_it(tmp_path: Path) -> None:
    Image.new("L", (20_000, 10_000)).save(tmp_path / "scan.png")
    with pytest.raises(DamagedFile) as error:
        folder(str(tmp_path), 1, 16, cache=False).train.load(0)
    reason = "it has 200,000,000 pixels, more than 178,956,970; data.source.max_pixels=200000000 reads it"
    assert error.value.reason == reason
    assert folder(str(tmp_path), 1, 16, cache=False, max_pixels=200_000_000).train.load(0).shape == (1, 10_000, 20_000)
    with pytest.raises(DamagedFile):  # the option of one data set is not the next one's
        folder(str(tmp_path), 1, 16, cache=False).train.load(0)


@pytest.mark.parametrize("ending", [".png", ".tif", ".npy", ".jpg"])
def test_the_limit_may_be_lower_and_is_one_for_all_formats(tmp_path: Path, ending: str) -> None:
    pixels = np.zeros((20, 30), np.uint8)
    if ending == ".npy":
        np.save(tmp_path / "a.npy", pixels)
    else:
        Image.fromarray(pixels).save(tmp_path / f"a{ending}")
    train = folder(str(tmp_path), 1, 16, cache=False, max_pixels=599).train
    with pytest.raises(DamagedFile, match="it has 600 pixels, more than 599; data.source.max_pixels=600 reads it"):
        train.load(0)
    assert folder(str(tmp_path), 1, 16, cache=False, max_pixels=600).train.load(0).shape == (1, 20, 30)


@pytest.mark.parametrize("limit", [0, -1, 2.5, True, "all"])
def test_a_limit_that_is_no_number_of_pixels(tmp_path: Path, limit: object) -> None:
    pictures(tmp_path, 1)
    with pytest.raises(ConfigError, match=f"data.source.max_pixels={limit}: wanted the most pixels"):
        files(tmp_path, batch_size=1, source={"max_pixels": limit})
