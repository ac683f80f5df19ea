import errno
import json
import pickle
import re
import resource
import struct
import subprocess
import sys
import time
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_zoo import cli, config
from ssl_zoo.build import build_data
from ssl_zoo.data.image import pack_writer, packed
from ssl_zoo.data.image.datamodule import ImageData
from ssl_zoo.data.image.folder import folder
from ssl_zoo.data.image.pack import HELP, Options, pack
from ssl_zoo.data.image.packed import HEAD, PackFile
from ssl_zoo.data.image.packed import packed as read
from ssl_zoo.data.image.synthetic import synthetic
from ssl_zoo.data.source import DamagedFile, Splits
from ssl_zoo.errors import ConfigError
from tests.data.helpers import augmentation, batches, files, pictures
from tests.data.test_folder import labelled

ORIGIN = "ssl_zoo.data.image.folder.folder"


def tree(root: Path, size: tuple[int, int] = (20, 24)) -> Path:
    """Two classes, 2 x 21 training images (more than one block) and 2 x 3 validation images."""
    for c, name in enumerate(("cat", "dog")):
        pictures(root / "train" / name, 21, size, seed=c)
        pictures(root / "val" / name, 3, size, seed=2 + c)
    return root


def packed_tree(root: Path, out: Path, channels: int = 3, **options) -> Path:
    splits = folder(str(root), channels, 16, cache=False)
    pack(splits, Options(str(out), workers=0, **options), ORIGIN, str(root))
    return out


def module(file: Path, where: str = "auto", **source) -> ImageData:
    built = partial(read, **source)
    return ImageData(built, 8, 16, 3, augmentation(where=where), root=str(file), workers=0)


def reseal(content: bytearray) -> bytes:
    """The head's own checksum set right, so that only what was changed on purpose is wrong."""
    content[HEAD.size - 4 : HEAD.size] = zlib.crc32(bytes(content[: HEAD.size - 4])).to_bytes(4, "little")
    return bytes(content)


@pytest.mark.parametrize("encoding", ["decoded", "original"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_labels_classes_and_splits_are_those_of_the_folder(tmp_path, encoding, channels):
    tree(tmp_path / "data")
    pictures(tmp_path / "data" / "train" / "dog" / "tall", 2, (31, 9))  # images of different sizes
    before = folder(str(tmp_path / "data"), channels, 16, cache=False)
    after = read(str(packed_tree(tmp_path / "data", tmp_path / "x.pack", channels, encoding=encoding)), channels, 16)
    for one, other in zip(before, after, strict=True):
        assert len(one) == len(other) and one.classes == other.classes == ["cat", "dog"]
        assert one.labels.tolist() == other.labels.tolist()
        assert all(torch.equal(one.load(i), other.load(i)) for i in range(len(one)))
    assert (len(after.train), len(after.val), after.train.in_memory, after.train.image_size) == (44, 6, False, None)


def test_jpeg_resizes_larger_images_and_keeps_small_jpeg_files_as_they_are(tmp_path):
    folder_ = tmp_path / "data"
    folder_.mkdir()
    ramp = np.linspace(0, 255, 60 * 90).reshape(60, 90).astype(np.uint8)
    Image.fromarray(ramp).convert("RGB").save(folder_ / "a.png")
    Image.fromarray(ramp).convert("RGB").save(folder_ / "b.jpg", quality=30)
    Image.fromarray(ramp[:10, :15]).convert("RGB").save(folder_ / "c.jpg", quality=30)
    Image.fromarray(ramp[:10, :15]).convert("RGB").save(folder_ / "d.png")
    packed_tree(folder_, tmp_path / "x.pack", encoding="jpeg", size=20)
    file = PackFile(tmp_path / "x.pack")
    assert (file.heights.tolist(), file.widths.tolist()) == ([20, 20, 10, 10], [30, 30, 15, 15])  # never enlarged
    assert file.content(2).tobytes() == (folder_ / "c.jpg").read_bytes()
    train = read(str(tmp_path / "x.pack"), 3, 16).train
    assert [tuple(train.load(i).shape) for i in range(4)] == [(3, 20, 30)] * 2 + [(3, 10, 15)] * 2
    exact = np.asarray(Image.fromarray(ramp).resize((30, 20), Image.Resampling.BICUBIC), np.int64)
    assert int(np.abs(train.load(0)[0].numpy() - exact).max()) <= 4  # quality 95
    assert train.load(0, shrink=lambda height, width: 2).shape == (3, 10, 15)
    assert read(str(tmp_path / "x.pack"), 3, 16, draft=False).train.load(0, lambda h, w: 2).shape == (3, 20, 30)


def test_squares_of_one_size_are_one_array(tmp_path):
    packed_tree(tree(tmp_path / "data", (20, 20)), tmp_path / "x.pack")
    train, val = read(str(tmp_path / "x.pack"), 3, 16)
    assert (train.in_memory, train.image_size, val.in_memory) == (True, 20, True)
    rows = torch.tensor([5, 0, 41])
    assert torch.equal(train.fetch(rows), torch.stack([train.load(int(i)) for i in rows]))
    assert torch.equal(val.fetch(torch.tensor([1]))[0], val.load(1))
    moved = val.to(torch.device("cpu"))
    assert torch.equal(moved.images, torch.stack([val.load(i) for i in range(6)]))
    assert moved.labels.tolist() == [0] * 3 + [1] * 3
    grey = read(str(tmp_path / "x.pack"), 1, 16).train
    assert torch.equal(grey.fetch(rows)[1], folder(str(tmp_path / "data"), 1, 16, cache=False).train.load(0))


def test_an_array_larger_than_half_of_the_memory_is_left_to_workers(tmp_path, monkeypatch):
    packed_tree(tree(tmp_path / "data", (20, 20)), tmp_path / "x.pack")
    monkeypatch.setattr(packed.machine, "memory", lambda: 2 * 48 * 1200 - 1)
    splits = read(str(tmp_path / "x.pack"), 3, 16)
    assert not splits.train.in_memory and splits.train.load(0).shape == (3, 20, 20)
    with pytest.raises(TypeError, match="read with load"):
        splits.train.fetch(torch.tensor([0]))
    assert read(str(tmp_path / "x.pack"), 3, 16, in_memory=True).train.in_memory


@pytest.mark.parametrize(("encoding", "size"), [("original", (20, 24)), ("decoded", (20, 24)), ("decoded", (20, 20))])
@pytest.mark.parametrize("where", ["device", "worker"])
def test_training_batches_are_those_of_the_folder_to_the_bit(tmp_path, encoding, size, where):
    tree(tmp_path / "data", size)
    packed_tree(tmp_path / "data", tmp_path / "x.pack", encoding=encoding)
    # Views of an array are made in batches, which agrees with views of single files to 2/255 only.
    pair = (files(tmp_path / "data", where=where), module(tmp_path / "x.pack", where, in_memory=False))
    for one, other in zip(*map(batches, pair), strict=True):
        assert one.index.tolist() == other.index.tolist() and one.label.tolist() == other.label.tolist()
        assert all(torch.equal(a, b) for a, b in zip(one.views, other.views, strict=True))
    one, other = (list(data.val_loader()) for data in pair)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(one, other, strict=True)) and len(one) == 1


def test_batches_of_an_array_are_those_of_the_same_images_in_memory(tmp_path):
    source = partial(synthetic, samples=30, val_samples=10)
    pack(source(image_size=16, channels=3), Options(str(tmp_path / "x.pack"), workers=0), "synthetic")
    memory = ImageData(source, 8, 16, 3, augmentation())
    for one, other in zip(batches(memory), batches(module(tmp_path / "x.pack")), strict=True):
        assert torch.equal(one.views[0], other.views[0]) and one.label.tolist() == other.label.tolist()


def test_an_unlabelled_folder_and_labels_none(tmp_path):
    pictures(tmp_path / "data", 3)
    train, val = read(str(packed_tree(tmp_path / "data", tmp_path / "x.pack")), 3, 16)
    assert (train.labels, train.classes, val, len(train)) == (None, None, None, 3)
    train, val = read(str(packed_tree(tree(tmp_path / "tree"), tmp_path / "y.pack")), 3, 16, labels="none")
    assert (train.labels, train.classes, val, len(train)) == (None, None, None, 42)


class Stop(Exception):
    """What ends a packing in the middle."""


def stop_at(samples: int):
    def report(text: str) -> None:
        if int(text.split()[0]) >= samples:
            raise Stop

    return report


@pytest.mark.parametrize("lose", [0, 1, 700])
def test_an_interrupted_packing_continues_to_the_same_bytes(tmp_path, lose):
    tree(tmp_path / "data")
    (tmp_path / "data" / "train" / "cat" / "003.png").write_text("broken")
    whole, out = tmp_path / "whole.pack", tmp_path / "x.pack"
    with pytest.warns(UserWarning, match="damaged files: 1 of 48, left out of the pack: .*003.png: "):
        packed_tree(tmp_path / "data", whole)
    splits, options = folder(str(tmp_path / "data"), 3, 16, cache=False), Options(str(out), workers=0)
    with pytest.raises(Stop):
        pack(splits, options, ORIGIN, str(tmp_path / "data"), stop_at(1))
    part = out.with_name("x.pack.part")
    assert not out.exists() and part.stat().st_size == packed.DATA + 31 * 20 * 24 * 3
    with part.open("r+b") as file:  # a torn end of the file, as a power cut leaves it
        file.truncate(part.stat().st_size - lose)
    seen = []
    with pytest.warns(UserWarning, match="left out"):
        pack(splits, options, ORIGIN, str(tmp_path / "data"), seen.append)
    assert len(seen) == (1 if lose == 0 else 2)  # blocks that were done now
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "whole.pack", "x.pack"]


def test_a_torn_journal_costs_its_last_block_only(tmp_path):
    root, out = tree(tmp_path / "data"), tmp_path / "x.pack"
    splits, options = folder(str(root), 3, 16, cache=False), Options(str(out), workers=0)
    with pytest.raises(Stop):
        pack(splits, options, ORIGIN, str(root), stop_at(48))
    journal = tmp_path / "x.pack.journal"
    journal.write_bytes(journal.read_bytes()[:-5])
    seen = []
    pack(splits, options, ORIGIN, str(root), seen.append)
    assert [text.split()[0] for text in seen] == ["48"]
    assert out.read_bytes() == packed_tree(root, tmp_path / "whole.pack").read_bytes()


def test_another_packing_is_not_continued(tmp_path):
    root, out = tree(tmp_path / "data"), tmp_path / "x.pack"
    splits = folder(str(root), 3, 16, cache=False)
    with pytest.raises(Stop):
        pack(splits, Options(str(out), workers=0), ORIGIN, str(root), stop_at(1))
    with pytest.raises(ConfigError, match=r"with encoding=decoded \(now original\); repeat .*remove .*x.pack.part"):
        pack(splits, Options(str(out), "original", workers=0), ORIGIN, str(root))
    pictures(root / "train" / "dog", 22)
    with pytest.raises(ConfigError, match=r"begun with samples=\[42, 6\] \(now \[43, 6\]\)"):
        packed_tree(root, out)
    out.with_name("x.pack.part").unlink()
    assert packed_tree(root, out).read_bytes() == packed_tree(root, tmp_path / "whole.pack").read_bytes()


def test_two_processes_do_not_write_one_file(tmp_path):
    root, out = tree(tmp_path / "data"), tmp_path / "x.pack"
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path / "x.pack.journal")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ConfigError, match="x.pack.part: another process is writing it; wait for it"):
            packed_tree(root, out)
        other.communicate(b"\n")
    packed_tree(root, out)


def test_the_number_of_workers_does_not_change_the_file(tmp_path):
    root = tree(tmp_path / "data")
    alone = packed_tree(root, tmp_path / "a.pack", size=12).read_bytes()
    splits = folder(str(root), 3, 16, cache=False)
    pack(splits, Options(str(tmp_path / "b.pack"), size=12, workers=2), ORIGIN, str(root))
    assert (tmp_path / "b.pack").read_bytes() == alone


def test_damaged_images_are_left_out_and_recorded(tmp_path):
    root = labelled(tmp_path / "data")
    for name in ("train/cat/001.png", "val/dog/005.png"):
        (root / name).write_text("broken")
    with pytest.warns(UserWarning, match="left out of the pack"):
        packed_tree(root, tmp_path / "x.pack")
    train, val = read(str(tmp_path / "x.pack"), 3, 16)
    assert train.labels.tolist() == [0] * 5 + [1] * 6 and val.labels.tolist() == [0] * 6 + [1] * 5
    assert [name for name, _ in train.file.text["damaged"]] == ["train/cat/001.png", "val/dog/005.png"]
    assert train.file.name(1) == f"{tmp_path / 'x.pack'}: sample 1 (train/cat/002.png)"


@pytest.mark.filterwarnings("ignore:damaged file")
def test_too_many_damaged_images_end_the_packing(tmp_path):
    for path in pictures(tmp_path / "data", 6)[:3]:
        path.write_text("broken")
    splits = folder(str(tmp_path / "data"), 3, 16, max_damaged=2, cache=False)
    with pytest.raises(ConfigError, match="3 of 6 samples cannot be read, and data.source.max_damaged allows 2"):
        pack(splits, Options(str(tmp_path / "x.pack"), workers=0), "folder")
    splits = folder(str(tmp_path / "data"), 3, 16, max_damaged=3, cache=False)  # what the message offers
    assert "3 train images, decoded, " in pack(splits, Options(str(tmp_path / "x.pack"), workers=0), "folder")


def test_a_damaged_sample_is_named_and_replaced_by_the_rules(tmp_path):
    out = packed_tree(tree(tmp_path / "data", (20, 20)), tmp_path / "x.pack")
    content = bytearray(out.read_bytes())
    content[packed.DATA + 3 * 1200 + 7] ^= 1  # one bit of sample 3
    out.write_bytes(content)
    train = read(str(out), 3, 16, in_memory=False).train
    assert train.load(2).shape == train.load(4).shape
    with pytest.raises(DamagedFile, match=r"x.pack: sample 3 \(train/cat/003.png\): its checksum is \w{8}, \w{8} was"):
        train.load(3)
    with pytest.warns(UserWarning, match="damaged files: 1 of 42, the next .* take their places: .*sample 3 "):
        batches(module(out, in_memory=False))
    with pytest.raises(ConfigError, match=r"sample 3 .*data.source.in_memory=false"):
        read(str(out), 3, 16).train.fetch(torch.tensor([0, 3]))


def spoilt(change: str, content: bytes) -> bytes:
    body = bytearray(content)
    if change == "version":
        struct.pack_into("<I", body, 8, 3)
        return reseal(body)
    if change in ("head", "index"):
        body[20 if change == "head" else -3] ^= 1
        return bytes(body)
    return {"cut": content[:-10], "short": content[:30], "longer": content + b"x", "other": b"PK\3\4" + content[4:],
            "empty": b""}[change]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("version", ["a pack of version 3", "reads versions 1 and 2", "update ssl_zoo"]),
        ("head", ["its head is damaged", "copy the file again"]),
        ("index", ["its index is damaged", "copy the file again"]),
        ("cut", ["is cut short: ", " bytes, wanted ", "copy it again"]),
        ("short", ["is cut short: 30 bytes"]),
        ("longer", ["has something appended"]),
        ("other", ["is no pack: it begins with b'PK", "ssl-zoo pack data=folder"]),
        ("empty", ["is no pack: it begins with b''"]),
    ],
)
def test_files_that_cannot_be_opened(tmp_path, change, words):
    pictures(tmp_path / "data", 2)
    out = packed_tree(tmp_path / "data", tmp_path / "x.pack")
    out.write_bytes(spoilt(change, out.read_bytes()))
    with pytest.raises(ConfigError) as error:
        read(str(out), 3, 16)
    assert all(word in str(error.value) for word in [str(out), *words]), error.value


def test_roots_and_options_that_cannot_be_used(tmp_path):
    pictures(tmp_path / "data", 2, (20, 24))
    out = str(packed_tree(tmp_path / "data", tmp_path / "x.pack"))
    (tmp_path / "half.pack.part").write_text("")
    for root, options, words in [
        (None, {}, "data.root is not set"),
        (str(tmp_path / "data"), {}, "is a folder, data=packed wants a file; train on it with data=folder"),
        (str(tmp_path / "absent.pack"), {}, "there is no such file .* write it with ssl-zoo pack"),
        (str(tmp_path / "half.pack"), {}, r"interrupted \(half.pack.part\): the same ssl-zoo pack command finishes it"),
        (out, {"download": True}, "data.download=true"),
        (out, {"labels": "folder"}, "data.source.labels=folder: wanted auto or none"),
        (out, {"in_memory": True}, "in_memory=true: wanted decoded square .* holds decoded images of 20x24"),
        (out, {"in_memory": "yes"}, "wanted auto, true or false"),
    ]:
        with pytest.raises(ConfigError, match=words):
            read(root, 3, 16, **options)


def test_a_source_can_be_sent_to_another_process(tmp_path):
    out = packed_tree(tree(tmp_path / "data"), tmp_path / "x.pack")
    val = read(str(out), 3, 16).val
    sent = pickle.dumps(val)
    assert len(sent) < 3000 and torch.equal(pickle.loads(sent).load(4), val.load(4))
    out.unlink()
    packed_tree(tmp_path / "data", out, encoding="original")
    with pytest.raises(ConfigError, match="has been replaced since this run opened it"):
        pickle.loads(sent)


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    root, out = tree(tmp_path / "data"), tmp_path / "x.pack"
    written = 0
    really = pack_writer._write

    def write(file, content):
        nonlocal written
        written += len(content)
        if written > 50_000:  # in the second block, of which a part still fits
            file.write(content[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")
        really(file, content)

    monkeypatch.setattr(pack_writer, "_write", write)
    with pytest.raises(ConfigError) as error:
        packed_tree(root, out)
    words = ["No space left on device after 32 of 48 images (0.1 MB)", "MB more needed", "the same command continues"]
    assert all(word in str(error.value) for word in words), error.value
    assert not out.exists()
    monkeypatch.undo()
    packed_tree(root, out)
    assert out.read_bytes() == packed_tree(root, tmp_path / "whole.pack").read_bytes()


def test_the_kernel_refuses_to_write_more(tmp_path, capsys):
    root, out = tree(tmp_path / "data"), tmp_path / "x.pack"
    words = ["pack", "data=folder", f"data.root={root}", "data.source.cache=false", f"out={out}", "workers=0"]
    held = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, held[1]))
    try:
        assert cli.entry(words) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, held)
    told = capsys.readouterr().err
    assert "File too large after 32 of 48 images" in told and not out.exists()
    assert (tmp_path / "x.pack.part").stat().st_size == 60_000  # the last block did not fit
    assert cli.entry(words) == 0
    assert out.read_bytes() == packed_tree(root, tmp_path / "whole.pack").read_bytes()


@pytest.mark.parametrize("encoding", ["decoded", "original"])
def test_a_disk_that_is_too_small_is_noticed_beforehand(tmp_path, monkeypatch, encoding):
    root = tree(tmp_path / "data")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 20_000}))
    with pytest.raises(ConfigError, match="x.pack: about 0.1 MB needed and 0.0 MB free on that disk; free some"):
        packed_tree(root, tmp_path / "x.pack", encoding=encoding)
    with pytest.raises(ConfigError, match="x.pack: 0.3 MB needed"):  # 356 x 768 bytes: known, so not "about"
        pack(synthetic(16, 3, 100), Options(str(tmp_path / "x.pack"), workers=0), "synthetic")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=folder"], "out=FILE.pack is missing"),
        (["data=folder", "out=x", "encodng=jpeg"], "has no option 'encodng'; did you mean 'encoding'?"),
        (["data=folder", "out=x", "encoding=jpg"], "encoding=jpg: did you mean 'jpeg'?"),
        (["data=folder", "out=x", "data.rot=y"], "data has no 'rot'; did you mean 'root'?"),
        (["data=foldr", "out=x"], "did you mean 'folder'?"),
        (["data=folder", "out=x", "size=large"], "size=large: wanted a whole number"),
        (["data=folder", "out=x", "size=0"], "size=0: wanted at least 1 pixel"),
        (["data=folder", "out=x", "encoding=original", "size=256"], "size=256: wanted .* encoding=jpeg or decoded"),
        (["data=folder", "out=x", "quality=80"], "quality=80: wanted 1 to 100, with encoding=jpeg"),
        (["data=folder", "out=x", "workers=-1"], "workers=-1: wanted auto"),
        (["data=digits", "out=x", "data.subset=5"], "data.subset=5: a pack holds all samples"),
        (["data=digits", "out={tmp}/x", "encoding=original"], "has no image files to copy; use encoding=decoded"),
        (["data=folder", "out={tmp}/x", "data.root={tmp}"], "no image below"),
        (["data=digits", "out={tmp}"], "exists already; remove it, or choose another name"),
    ],
)
def test_commands_that_cannot_be_carried_out(tmp_path, capsys, words, message):
    assert cli.entry(["pack", *(word.replace("{tmp}", str(tmp_path)) for word in words)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ") and re.search(message, told), told
    assert list(tmp_path.iterdir()) == []


def test_the_command_packs_what_the_configuration_reads(tmp_path, capsys):
    assert cli.entry(["pack"]) == 0 and capsys.readouterr().out.strip() == HELP
    out = tmp_path / "deeper" / "digits.pack"
    assert cli.entry(["pack", "data=digits", f"out={out}", "workers=0"]) == 0
    told = capsys.readouterr()
    assert "1,438 train and 359 val images, decoded, " in told.out and f"data=packed data.root={out}" in told.out
    assert "of 1,797 images, " in told.err and " left" in told.err
    data = build_data(config.load(["data=packed", f"data.root={out}", "data.image_size=32", "data.batch_size=64"]))
    assert (data.info.samples, data.info.classes, data.train.in_memory) == (1438, 10, True)
    made = PackFile(out).text["made"]
    assert made["origin"] == "ssl_zoo.data.image.arrays.digits" and made["encoding"] == "decoded"


def test_a_pack_without_a_training_image_is_not_written(tmp_path):
    for path in pictures(tmp_path / "data", 1):
        path.write_text("broken")
    train = folder(str(tmp_path / "data"), 3, 16, cache=False).train
    with pytest.warns(UserWarning), pytest.raises(ConfigError, match="no training image can be read"):
        pack(Splits(train, synthetic(16, 3).train), Options(str(tmp_path / "x.pack"), workers=0), "both")


def test_an_index_of_imagenet_opens_in_a_second(tmp_path, monkeypatch):
    n = 1_281_167
    monkeypatch.setattr(pack_writer, "flush_folder", lambda folder: None)
    writer = pack_writer.Writer(tmp_path / "x.pack", {})
    # The samples are empty: what is timed is the index, 36 bytes and a name each.
    for column, value in ((writer.ends, packed.DATA), (writer.crcs, 0), (writer.heights, 256), (writer.widths, 256)):
        column.extend(np.full(n, value).tolist())
    names = [b"train/n01440764/n01440764_%06d.JPEG" % i for i in range(n)]
    text = {"encoding": "jpeg", "channels": 3, "splits": [{"name": "train", "samples": n, "labelled": True}],
            "classes": [str(i) for i in range(1000)], "uniform": None, "damaged": [], "made": {}}  # fmt: skip
    writer.finish(np.arange(n) % 1000, names, text)
    began = time.process_time()
    train = read(str(tmp_path / "x.pack"), 3, 224).train
    seconds = time.process_time() - began
    assert (len(train), int(train.labels[-1]), seconds < 1.0) == (n, (n - 1) % 1000, True), seconds
    assert train.file.name(7).endswith("sample 7 (train/n01440764/n01440764_000007.JPEG)")


def test_the_layout_is_as_documented(tmp_path):
    out = packed_tree(labelled(tmp_path / "data", 1), tmp_path / "x.pack")
    content = out.read_bytes()
    magic, version, _, n, index, text, size, crc, own = struct.unpack_from("<8sIIQQQQII", content)
    assert (magic, version, n, size) == (b"\x93SSLPACK", 1, 4, len(content)) and index % 8 == 0
    assert (zlib.crc32(content[:52]), zlib.crc32(content[index:])) == (own, crc)
    ends = np.frombuffer(content, "<u8", n, index)
    assert ends.tolist() == [4096 + 1440 * (i + 1) for i in range(4)]
    crcs = np.frombuffer(content, "<u4", n, index + 24 * n)
    assert crcs[0] == zlib.crc32(content[4096 : ends[0]])
    assert np.frombuffer(content, "<i8", n, index + 16 * n).tolist() == [0, 1, 0, 1]
    assert np.frombuffer(content, "<u4", 2 * n, index + 28 * n).tolist() == [20] * 4 + [24] * 4
    told = json.loads(content[text:])
    assert told["splits"] == [{"name": name, "samples": 2, "labelled": True} for name in ("train", "val")]
    assert told["uniform"] == [20, 24] and told["made"]["samples"] == [2, 2]
