"""Numbers and damage in files: bounded before memory is asked for, and noticed by the byte."""

from __future__ import annotations

import json
import shutil
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ssl_zoo import archives, build, config, runs
from ssl_zoo.data.image.packed import DATA, HEAD, PackFile
from ssl_zoo.errors import ConfigError
from tests import helpers
from tests.test_trust import DINO, FIXTURES, SIMCLR, Payload, content, written

# Numbers


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        (SIMCLR, {"method__projector__hidden": [10**9]}),
        (SIMCLR, {"method__projector__hidden": [-3]}),
        (SIMCLR, {"method__projector__hidden": ["many"]}),
        (SIMCLR, {"method__projector__hidden": [1] * 3_000}),
        (SIMCLR, {"method__projector__out_features": 2.5}),
        (SIMCLR, {"method__backbone__width": 10**6}),
        (SIMCLR, {"method__backbone__width": -1}),
        (SIMCLR, {"method__backbone__in_channels": 10**9}),
        (SIMCLR, {"method__temperature": "hot"}),
        (SIMCLR, {"batch_norm": {"group": -1}}),
        (SIMCLR, {"seed": 10**15 * 10**5}),
        (SIMCLR, {"data__image_size": 10**9}),
        (SIMCLR, {"data__image_size": "large"}),
        (SIMCLR, {"data": None}),
        (SIMCLR, {"method": None}),
        (SIMCLR, {"trainer__clip": {"mode": 3}}),
        (DINO, {"method__backbone__depth": 10**9}),
        (DINO, {"method__backbone__embed_dim": 10**9}),
        (DINO, {"method__backbone__image_size": 10**9}),
        (DINO, {"method__projector__out_features": 10**9}),
        (FIXTURES / "moco_v2/checkpoints/last.ckpt", {"method__queue_size": 10**12}),
        (FIXTURES / "deepcluster_v2/checkpoints/last.ckpt", {"method__prototypes": [10**9]}),
    ],
)
def test_numbers_that_no_file_can_fill_end_in_a_sentence_at_once(
    file: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    import resource

    path = written(tmp_path / "x.ckpt", file=file, **settings)
    peak, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ConfigError, match=str(path)):
        build.load_method(path)
    assert time.process_time() - began < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 700 * 1024  # KiB


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"samples": 10**12}, "asks for a tensor of"),
        ({"samples": -1}, "data_info.samples is '-1', wanted a whole number"),
        ({"classes": 2.5}, "data_info.classes is '2.5'"),
        ({"image_size": 10**9}, "data_info.image_size is 1000000000, and a file may ask for at most 4096"),
        ({"more": 1}, "does not say of which data it is"),
    ],
)
def test_what_a_file_says_of_its_data_is_bounded_too(info: dict[str, Any], words: str, tmp_path: Path) -> None:
    found = content(FIXTURES / "deepcluster_v2/checkpoints/last.ckpt")
    found["ssl_zoo"]["data_info"] |= info
    torch.save(found, tmp_path / "x.ckpt")
    with pytest.raises(ConfigError, match=words):
        build.load_method(tmp_path / "x.ckpt")


@pytest.mark.parametrize(("samples", "size"), [(10**12, 16), (10**7, 4096)])
def test_drawn_images_that_exceed_this_machine_are_refused_before_they_are_drawn(samples: int, size: int) -> None:
    cfg = config.load(["method=simclr", "data=synthetic", f"data.source.samples={samples}", f"data.image_size={size}"])
    with pytest.raises(ConfigError, match=rf"images of {size} x {size} pixels are .* GiB, and this machine has"):
        build.build_data(cfg)


def test_pseudo_labels_with_absurd_copies_are_refused(tmp_path: Path) -> None:
    from ssl_zoo.data.pseudo import PseudoLabels
    from ssl_zoo.data.splits import split

    cfg = config.load(["method=simclr", *helpers.TINY])
    part, _ = split(build.build_data(cfg)._splits.train, None, None, None)
    n, file = len(part), tmp_path / "p.safetensors"
    good = {"probabilities": torch.full((n, 4), 0.25), "copies": torch.ones(n, dtype=torch.int64),
            "positions": part.positions.clone()}  # fmt: skip
    save_file(good, file)
    assert len(PseudoLabels.read(str(file), part).rows(None)) == n
    for change, words in (
        ({"copies": torch.full((n,), 2**40)}, "an epoch has .* rows, wanted 0 to 1,073,741,824"),
        ({"copies": torch.full((n,), -1)}, "an epoch has -"),
        ({"copies": torch.ones(n)}, "wanted float32, int64, int64"),
        ({"probabilities": torch.ones(n)}, "other shapes than pseudo-labels"),
    ):
        save_file({**good, **change}, file)
        with pytest.raises(ConfigError, match=words):
            PseudoLabels.read(str(file), part)
    file.write_bytes((2**60).to_bytes(8, "little") + b"{}")  # a header larger than any file
    with pytest.raises(ConfigError, match="holds no pseudo-labels"):
        PseudoLabels.read(str(file), part)


# Damage


def test_a_bit_inside_of_a_tensor_is_noticed_once_and_named(tmp_path: Path) -> None:
    damaged = bytearray(SIMCLR.read_bytes())
    at = len(damaged) // 2
    damaged[at] ^= 1
    (tmp_path / "x.ckpt").write_bytes(damaged)
    assert torch.load(tmp_path / "x.ckpt", weights_only=True)  # PyTorch itself does not look
    with pytest.raises(ConfigError, match=r"x.ckpt: cannot be read as a checkpoint \(Bad CRC-32 for file "):
        runs.read_checkpoint(tmp_path / "x.ckpt")


def test_a_file_is_verified_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = shutil.copy(SIMCLR, tmp_path / "x.ckpt")
    archives.verify(file)
    monkeypatch.setattr(archives.zipfile, "ZipFile", lambda path: 1 / 0)
    archives.verify(file)
    file.touch()
    with pytest.raises(ZeroDivisionError):
        archives.verify(file)


def test_an_archive_that_claims_another_disk_is_damaged_weights_too(tmp_path: Path) -> None:
    from ssl_zoo.backbones.weights import _content

    torch.save({"a": torch.ones(2)}, tmp_path / "w.pt")
    data = bytearray((tmp_path / "w.pt").read_bytes())
    locator = data.rindex(b"PK\x06\x07")  # of the zip64 directory; its last field counts the disks
    data[locator + 16] = 9
    (tmp_path / "w.pt").write_bytes(data)
    with pytest.raises(ConfigError, match="could not be read .zipfiles that span multiple disks"):
        _content(tmp_path / "w.pt", "w.pt")


def test_weights_that_are_damaged_or_code_are_refused_by_each_suffix(tmp_path: Path) -> None:
    from ssl_zoo.backbones.weights import _content

    marker = tmp_path / "marker"
    for suffix in (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".tar", ""):
        path = tmp_path / f"w{suffix}"
        for zipped in (True, False):
            torch.save({"a": Payload(marker)}, path, _use_new_zipfile_serialization=zipped)
            with pytest.raises(ConfigError, match=f"weights={path} could not be read"):
                _content(path, str(path))
        path.write_bytes((2**60).to_bytes(8, "little") + b"{}")
        with pytest.raises(ConfigError, match="could not be read"):
            _content(path, str(path))
    assert not marker.exists()
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(_content(tmp_path / "old.pth", "old.pth")["a"], torch.ones(2))  # of before zip archives


# Packs and streams


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    from ssl_zoo.data.image.pack import Options, pack

    cfg = config.load(["method=simclr", *helpers.TINY])
    pack(build.build_data(cfg)._splits, Options(tmp_path / "x.pack"), "tests")
    return tmp_path / "x.pack"


def repacked(file: Path, samples: int | None = None, index: int | None = None, **text: Any) -> None:
    """Say something else in a pack, with checksums that are right, as a person with bad intent would."""
    data = bytearray(file.read_bytes())
    magic, version, zero, n, begin, words, _, _, _ = HEAD.unpack(data[: HEAD.size])
    said = {**json.loads(data[words:]), **text}
    data[words:] = json.dumps(said).encode()
    n, start = n if samples is None else samples, begin if index is None else index
    crc = zlib.crc32(data[start:]) if start < len(data) else 0
    head = HEAD.pack(magic, version, zero, n, start, words, len(data), crc, 0)[:-4]
    data[: HEAD.size] = head + struct.pack("<I", zlib.crc32(head))
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": 2**60}, "its index cannot hold the 1,152,921,504,606,846,976 samples of its head"),
        ({"index": 2**50}, "its index cannot hold|checksum"),
        ({"index": DATA - 8}, "its index cannot hold"),
        ({"splits": [{"name": "train", "samples": 10**12, "labelled": True}]}, "parts of .1000000000000. samples"),
        ({"splits": [{"name": "train", "samples": -1, "labelled": True}]}, "parts of .-1. samples"),
        ({"splits": 3}, "makes no sense .TypeError"),
        ({"channels": 10**9}, "decoded with 1000000000 channels"),
        ({"uniform": [10**9, 10**9]}, r"too small for 1280 images of \[1000000000, 1000000000\]"),
        ({"uniform": [0, 16]}, r"images of \[0, 16\]"),
        ({"classes": ["one"]}, "labels beyond its 1 classes"),
    ],
)
def test_a_pack_with_absurd_counts_is_refused(change: dict[str, Any], words: str, packed: Path) -> None:
    assert len(PackFile(packed)) == 1280
    repacked(packed, **change)
    with pytest.raises(ConfigError, match=words):
        PackFile(packed).array()


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        ({"chunk_size": 10**15}, "it counts more samples than its chunks have room for"),
        ({"chunk_size": -5}, "counts more samples|the store is empty"),
        ({"chunk_size": 10**30}, "is no index of a litdata store .OverflowError"),
        ({"chunk_size": []}, "is no index of a litdata store .TypeError"),
    ],
)
def test_a_stream_with_absurd_counts_is_refused(chunk: dict[str, Any], words: str) -> None:
    from ssl_zoo.data.image.chunks import Index

    stored = {"filename": "chunk-0-0.bin", "chunk_bytes": 4000, "chunk_size": 10}
    config_of = {"data_format": ["bytes"]}
    assert len(Index("x", json.dumps({"chunks": [stored], "config": config_of}).encode())) == 10
    with pytest.raises(ConfigError, match=words):
        Index("x", json.dumps({"chunks": [stored | chunk], "config": config_of}).encode())
