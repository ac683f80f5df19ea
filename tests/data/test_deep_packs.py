"""Packs and stores of images with more than 8 bits and other bands than colour."""

from functools import partial

import numpy as np
import pytest
import torch

from ssl_zoo.data.image.arrays import Arrays
from ssl_zoo.data.image.folder import folder
from ssl_zoo.data.image.pack import Options, pack
from ssl_zoo.data.image.packed import packed
from ssl_zoo.data.source import Splits
from ssl_zoo.errors import ConfigError
from tests.data.deep import KINDS, images


def tree(root, kind):
    splits = folder(str(images(root, kind, count=12, classes=2)), KINDS[kind][0], 48, cache=False)
    return Splits(splits.train, None)


def same(source, other):
    assert (len(source), source.channels, source.white) == (len(other), other.channels, other.white)
    for i in range(len(source)):
        assert torch.equal(source.load(i), other.load(i)), i


@pytest.mark.parametrize("kind", ["12-bit PNG", "float with nodata", "Hounsfield", "5 bands", "9 bands of npy"])
@pytest.mark.parametrize("encoding", ["decoded", "original"])
def test_a_pack_gives_the_images_of_its_folder(tmp_path, kind, encoding):
    splits = tree(tmp_path / "tree", kind)
    out = tmp_path / "images.pack"
    pack(splits, Options(str(out), encoding, workers=0), "a folder")
    source = packed(str(out), splits.train.channels, 48).train
    same(source, splits.train)
    assert source.resolved["range"] == splits.train.resolved["range"] and source.in_memory == (encoding == "decoded")
    (line,) = [line for line in source.decisions if line.startswith("pixel values")]
    assert ("as it was packed" if encoding == "decoded" else "as the store says") in line
    if encoding == "decoded":
        rows = torch.tensor([3, 0, 11])
        assert torch.equal(source.fetch(rows), torch.stack([source.load(i) for i in rows.tolist()]))
        assert source.to(torch.device("meta")).white == source.white
    assert out.read_bytes()[8] == (2 if encoding == "decoded" else 1)  # older programs refuse what they cannot read


def test_a_pack_of_eight_bits_is_what_it_was(tmp_path):
    stored = torch.randint(0, 256, (4, 3, 6, 6), dtype=torch.uint8)
    pack(Splits(Arrays(stored, None, None), None), Options(str(tmp_path / "x.pack"), workers=0), "arrays")
    content = (tmp_path / "x.pack").read_bytes()
    assert content[8] == 1 and b'"pixels"' not in content and b'"reading"' not in content
    assert torch.equal(packed(str(tmp_path / "x.pack"), 3, 6).train.fetch(torch.arange(4)), stored)


@pytest.mark.parametrize("white", [4095, None])
def test_arrays_of_floats_and_sixteen_bits_are_packed(tmp_path, white):
    stored = torch.rand(5, 7, 6, 6) if white is None else torch.randint(0, white, (5, 7, 6, 6)).to(torch.uint16)
    source = Arrays(stored, None, None) if white is None else Arrays(stored, None, None, white=white)
    pack(Splits(source, None), Options(str(tmp_path / "x.pack"), workers=0), "arrays")
    found = packed(str(tmp_path / "x.pack"), 7, 6).train
    assert torch.equal(found.fetch(torch.arange(5)), stored) and (white is None or found.white == white)


def test_what_a_pack_cannot_hold_or_give_is_refused(tmp_path):
    splits = tree(tmp_path / "tree", "5 bands")
    with pytest.raises(ConfigError, match="keeps 8 bits of grey or colour, and these are images of uint16"):
        pack(splits, Options(str(tmp_path / "x.pack"), "jpeg", workers=0), "a folder")
    pack(splits, Options(str(tmp_path / "x.pack"), workers=0), "a folder")
    with pytest.raises(ConfigError, match="data.channels=3: .* has 5 bands; set data.channels=5"):
        packed(str(tmp_path / "x.pack"), 3, 48)
    with pytest.raises(ConfigError, match=r"was decoded with the range \[0, 16383\]; set auto"):
        packed(str(tmp_path / "x.pack"), 5, 48, range=(0, 100))


def test_a_smaller_pack_keeps_its_bits(tmp_path):
    splits = tree(tmp_path / "tree", "13 bands")
    pack(splits, Options(str(tmp_path / "x.pack"), size=24, workers=0), "a folder")
    found = packed(str(tmp_path / "x.pack"), 13, 24).train.load(0)
    assert found.shape == (13, 24, 24) and found.dtype == torch.uint16 and found.unique().numel() > 1000
    whole = torch.nn.functional.avg_pool2d(splits.train.load(0).float(), 2)
    assert (found.float() - whole).abs().mean() < 0.05 * whole.mean()


@pytest.mark.parametrize("kind", ["float with nodata", "5 bands", "9 bands of npy"])
def test_a_store_gives_the_images_of_its_folder(tmp_path, kind):
    pytest.importorskip("litdata")
    from ssl_zoo.data.image.stream import stream, write_stream

    source = tree(tmp_path / "tree", kind).train
    write_stream(source, tmp_path / "store", "64KB")
    found = stream(str(tmp_path / "store"), source.channels, 48).train
    order = np.random.RandomState(0).permutation(12)
    assert all(torch.equal(found.load(i), source.load(int(row))) for i, row in enumerate(order))
    assert found.resolved == source.resolved and found.white == source.white


@pytest.mark.parametrize("kind", ["uint16", "float", "bytes of four bands"])
def test_a_store_of_what_lies_in_memory(tmp_path, kind):
    pytest.importorskip("litdata")
    from ssl_zoo.data.image.stream import stream, write_stream

    made = {
        "uint16": partial(Arrays, torch.randint(0, 4096, (6, 2, 8, 8)).to(torch.uint16), white=4095),
        "float": partial(Arrays, torch.rand(6, 1, 8, 8)),
        "bytes of four bands": partial(Arrays, torch.randint(0, 256, (6, 4, 8, 8), dtype=torch.uint8)),
    }  # fmt: skip
    source = made[kind](labels=None, classes=None)
    write_stream(source, tmp_path / "store")
    found = stream(str(tmp_path / "store"), source.channels, 8).train
    order = np.random.RandomState(0).permutation(6)
    assert all(torch.equal(found.load(i), source.load(int(row))) for i, row in enumerate(order))
