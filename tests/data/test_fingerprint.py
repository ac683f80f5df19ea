"""The data fingerprint: what it sees, what it does not, and that it costs next to nothing."""

import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_zoo.data import fingerprint
from ssl_zoo.data.fingerprint import changed, chosen, digest, numbers, of, spread
from ssl_zoo.data.image import arrays, stream
from ssl_zoo.data.image.decode import Reader
from ssl_zoo.data.image.folder import Folder, folder
from ssl_zoo.data.image.pack import Options, pack
from ssl_zoo.data.image.packed import packed
from ssl_zoo.data.image.synthetic import synthetic
from ssl_zoo.data.source import Part, Splits
from tests.data.helpers import files, memory, pictures

IMAGENET = 1_281_167


def classes(root: Path, n: int = 3) -> Path:
    for seed, name in enumerate(("a", "b")):
        pictures(root / "train" / name, n, seed=seed)
        pictures(root / "val" / name, 1, seed=seed)
    return root


def opened(root: Path, **options: Any) -> Splits:
    return folder(str(root), 3, 16, cache=False, **options)


def train(root: Path) -> str:
    return opened(root).train.fingerprint()


# Digests


def test_a_digest_is_the_same_for_ever():
    # blake2b of 16 bytes over "3 as uint64, abc, 8 as uint64, 1 as int64", all little endian.
    assert digest("abc", np.array([1], "<i8")) == "b81a5ba92a6a8a447e6c935a08a5d699"


def test_parts_do_not_run_into_each_other():
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")
    assert digest("a", np.empty(0, np.uint8)) != digest("a")
    assert digest(numbers(None)) != digest(numbers(torch.empty(0, dtype=torch.int64)))


def test_labels_are_the_same_numbers_whatever_holds_them():
    assert digest(numbers(torch.tensor([0, 255], dtype=torch.uint8))) == digest(numbers(torch.tensor([0, 255])))


@pytest.mark.slow
def test_another_process_finds_the_same():
    # Python's own hash() differs from process to process.
    code = (
        "from ssl_zoo.data.fingerprint import of; from ssl_zoo.data.image.arrays import digits; "
        "from ssl_zoo.data.image.synthetic import synthetic; "
        "print(of(digits(16, 1).train), of(digits(16, 1).val), of(synthetic(16, 3).train))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True)
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout
    assert runs[0].stdout.decode().split() == [
        "c411b75306c54425da229d2f642b10f2",
        "27dfaa0b56f55d6cbdd855bb99e1f07f",
        "c192587585f5ba6b97865fc78b3dc9c5",
    ]


# Folders


def test_a_folder_elsewhere_is_the_same_data(tmp_path: Path):
    root = classes(tmp_path / "here")
    copy = tmp_path / "there" / "of another depth"
    shutil.copytree(root, copy)
    os.utime(copy / "train" / "a" / "000.png", (0, 0))
    assert [of(source) for source in opened(root)] == [of(source) for source in opened(copy)]
    assert of(opened(root).train) != of(opened(root).val)


def _add(root: Path) -> None:
    pictures(root / "train" / "a", 4)


def _remove(root: Path) -> None:
    (root / "train" / "b" / "002.png").unlink()


def _rename(root: Path) -> None:
    (root / "train" / "a" / "000.png").rename(root / "train" / "a" / "00_.png")


def _other_class(root: Path) -> None:
    (root / "train" / "a" / "002.png").rename(root / "train" / "b" / "003.png")


def _grow(root: Path) -> None:
    with (root / "train" / "a" / "001.png").open("ab") as file:
        file.write(b"\0")


@pytest.mark.parametrize("change", [_add, _remove, _rename, _other_class, _grow])
def test_a_folder_that_changed_has_another_fingerprint(tmp_path: Path, change: Any):
    root = classes(tmp_path)
    before, held_out = train(root), opened(root).val.fingerprint()
    change(root)
    assert train(root) != before
    assert opened(root).val.fingerprint() == held_out


def test_labels_belong_to_a_folders_fingerprint(tmp_path: Path):
    root = classes(tmp_path)
    assert opened(root, labels="none").train.fingerprint() != train(root)


def test_an_edit_that_leaves_the_size_is_seen_in_32_files_only(tmp_path: Path):
    # Documented: of the others only the size is read.
    pictures(tmp_path, 64)
    before, seen = train(tmp_path), 0
    for path in sorted(tmp_path.glob("*.png")):
        content = path.read_bytes()
        path.write_bytes(bytes(len(content)))
        seen += train(tmp_path) != before
        path.write_bytes(content)
    assert seen == 32 and train(tmp_path) == before


def test_other_images_of_the_same_names_and_sizes_are_other_data(tmp_path: Path):
    for seed, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        for i in range(100):
            (tmp_path / name / f"{i:03}.bmp").write_bytes(bytes([seed]) * 900)
    assert train(tmp_path / "one") != train(tmp_path / "two")


def test_sizes_are_read_at_each_call_and_a_file_that_is_gone_counts_as_changed(tmp_path: Path):
    source = opened(classes(tmp_path)).train
    found = [source.fingerprint()]
    with (tmp_path / "train" / "a" / "001.png").open("ab") as file:
        file.write(b"\0")
    found.append(source.fingerprint())
    (tmp_path / "train" / "a" / "001.png").unlink()
    found.append(source.fingerprint())
    shutil.rmtree(tmp_path / "train")
    found.append(source.fingerprint())
    assert len(set(found)) == 4
    assert source.fingerprint() == found[3]


def test_names_that_are_no_text_count_too(tmp_path: Path):
    (path,) = pictures(tmp_path, 1)
    os.rename(path, os.fsencode(tmp_path) + b"/\xff.png")
    first = opened(tmp_path).train.fingerprint()
    os.rename(os.fsencode(tmp_path) + b"/\xff.png", os.fsencode(tmp_path) + b"/\xfe.png")
    assert opened(tmp_path).train.fingerprint() != first


def names(n: int) -> list[str]:
    """Names as ImageNet has them."""
    return [f"n{i * 1000 // n:08d}/n{i * 1000 // n:08d}_{i}.JPEG" for i in range(n)]


def test_1024_files_are_asked_for_and_the_names_are_one_block(monkeypatch: pytest.MonkeyPatch):
    asked, hashed = [], []
    stat, real = os.stat, fingerprint.blake2b

    def counted(path: str) -> Any:
        asked.append(path)
        return stat(path)

    class Watched:
        def __init__(self, **options: Any) -> None:
            self.real = real(**options)

        def update(self, block: Any) -> None:
            hashed.append(memoryview(block).nbytes)
            self.real.update(block)

        def hexdigest(self) -> str:
            return self.real.hexdigest()

    listed = names(50_000)
    source = Folder(Path("nowhere"), listed, torch.zeros(50_000, dtype=torch.int64), ["a"], Reader(3), 0)
    monkeypatch.setattr(fingerprint, "blake2b", Watched)
    monkeypatch.setattr("ssl_zoo.data.image.folder.os.stat", counted)
    found = source.fingerprint()
    monkeypatch.undo()
    assert found == source.fingerprint()
    assert len(asked) == len(set(asked)) == 1024
    assert sum(map(len, listed)) in hashed and len(hashed) == 14  # seven parts, each with its length


def test_the_files_follow_from_the_names_and_lie_anywhere():
    assert chosen("0" * 32, 1024) == list(range(1024))
    rows = chosen("89abcdef" + "0" * 24, IMAGENET)
    assert rows == sorted(set(rows)) and len(rows) == 1024
    assert rows == chosen("89abcdef" + "1" * 24, IMAGENET) != chosen("89abcdee" + "0" * 24, IMAGENET)
    assert np.mean(rows) == pytest.approx(IMAGENET / 2, rel=0.05)  # standard error: 1.8 %


@pytest.mark.slow
def test_a_folder_of_the_size_of_imagenet_takes_less_than_a_second(tmp_path: Path):
    labels = torch.arange(IMAGENET) * 1000 // IMAGENET
    source = Folder(tmp_path, names(IMAGENET), labels, None, Reader(3), 0)
    start = time.process_time()
    source.fingerprint()
    taken = time.process_time() - start
    print(f"{IMAGENET:,} names: {taken:.2f} s")
    assert taken < 1.0


# Packs and stores


def test_a_pack_is_known_by_its_samples_not_by_its_place_or_its_names(tmp_path: Path):
    root = classes(tmp_path / "here")
    shutil.copytree(root, tmp_path / "there")
    (tmp_path / "there" / "train" / "a" / "000.png").rename(tmp_path / "there" / "train" / "a" / "00.png")
    for name in ("here", "there"):
        pack(opened(tmp_path / name), Options(str(tmp_path / f"{name}.pack")), "folder", str(tmp_path / name))
    here, there = (packed(str(tmp_path / f"{name}.pack"), 3, 16) for name in ("here", "there"))
    assert [of(source) for source in here] == [of(source) for source in there]
    assert of(here.train) != of(here.val)
    assert of(packed(str(tmp_path / "here.pack"), 3, 16, labels="none").train) != of(here.train)
    assert of(packed(str(tmp_path / "here.pack"), 1, 16).train) == of(here.train)


def test_a_pack_of_one_pixel_more_is_another(tmp_path: Path):
    root = classes(tmp_path / "images")
    pack(opened(root), Options(str(tmp_path / "one.pack")), "folder")
    source = opened(root)
    load = source.train.load
    source.train.load = lambda index, shrink=None: load(index).bitwise_xor(index == 5)  # type: ignore[method-assign]
    pack(source, Options(str(tmp_path / "two.pack"), workers=0), "folder")
    one, two = (packed(str(tmp_path / f"{name}.pack"), 3, 16) for name in ("one", "two"))
    assert of(one.train) != of(two.train) and of(one.val) == of(two.val)


def test_a_store_is_known_by_its_index_and_its_labels(tmp_path: Path):
    pytest.importorskip("litdata")
    splits = synthetic(16, 3, samples=12, val_samples=4)
    stream.write_splits(splits, tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    opened = partial(stream.stream, channels=3, image_size=16)
    first = [of(source) for source in opened(str(tmp_path / "here"))]
    assert [of(source) for source in opened(str(tmp_path / "there"))] == first and first[0] != first[1]
    assert of(opened(str(tmp_path / "here"), labels="none").train) != first[0]
    np.save(tmp_path / "there" / "train" / "labels.npy", np.roll(splits.train.labels.numpy(), 1))
    relabelled = [of(source) for source in opened(str(tmp_path / "there"))]
    assert relabelled[0] != first[0] and relabelled[1] == first[1]
    stream.write_splits(synthetic(16, 3, samples=13, val_samples=4), tmp_path / "more")
    assert of(opened(str(tmp_path / "more")).train) != first[0]


# Arrays


def image_set(n: int = 6) -> arrays.Arrays:
    pixels = torch.arange(n * 3 * 4 * 4).reshape(n, 3, 4, 4).remainder(251).to(torch.uint8)
    return arrays.Arrays(pixels, torch.arange(n) % 2, ["even", "odd"])


def test_one_pixel_or_one_label_makes_another_array():
    base, pixel, label = image_set(), image_set(), image_set()
    pixel.images[5, 2, 3, 3] += 1
    label.labels[3] = 0
    found = {of(base), of(pixel), of(label), of(image_set(5)), of(arrays.Arrays(base.images, None, None))}
    assert len(found) == 5
    assert of(base) == of(image_set()) == of(base.to(torch.device("cpu")))


def test_of_a_large_array_4096_rows_are_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fingerprint, "WHOLE", 1000)
    images = torch.zeros(10_000, 1, 2, 2, dtype=torch.uint8)
    source, rows = arrays.Arrays(images, None, None), spread(10_000)
    assert len(rows) == 4096 and rows[:3].tolist() == [0, 2, 4] and rows[-1] == 9997
    first = of(source)
    images[1] = 1  # no row of the sample
    assert of(source) == first
    images[9997] = 1
    assert of(source) != first


def test_pixels_that_were_computed_do_not_count():
    # Resizing rounds otherwise on another processor; the stored images are the same on all.
    assert [of(source) for source in arrays.digits(8, 1)] == [of(source) for source in arrays.digits(16, 3)]
    resized = arrays.digits(16, 1).train
    before = of(resized)
    resized.images[0] += 1
    assert of(resized) == before
    stored = arrays.digits(8, 1).train
    stored.images[0] += 1
    assert of(stored) != before


def test_stored_images_are_not_kept_twice():
    assert arrays.digits(8, 1).train.origin is None
    assert arrays.digits(16, 1).train.origin.shape == (1438, 1, 8, 8)


@pytest.mark.parametrize(
    "options", [{"seed": 1}, {"noise": 0.2}, {"classes": 3}, {"classes": None}, {"samples": 21}, {"image_size": 12}]
)
def test_drawn_images_are_known_by_what_they_are_drawn_from(options: dict[str, Any]):
    usual = {"image_size": 16, "channels": 3, "samples": 20, "val_samples": 4}
    first, other = synthetic(**usual), synthetic(**{**usual, **options})
    assert of(first.train) != of(other.train) and of(first.train) != of(first.val)
    assert of(first.train) == of(synthetic(**usual).train)
    assert of(synthetic(**usual, noise=0).train) == of(synthetic(**usual, noise=0.0).train)


# Sources of users, and parts


class Bare:
    """A source that knows of no fingerprint."""

    classes, channels, image_size, damage_limit = None, 3, 4, 0

    def __init__(self, in_memory: bool, n: int = 5, value: int = 0, labels: torch.Tensor | None = None) -> None:
        self.in_memory, self.n, self.value, self.labels = in_memory, n, value, labels

    def __len__(self) -> int:
        return self.n

    def fetch(self, index: torch.Tensor) -> torch.Tensor:
        assert self.in_memory and len(index) <= 4096
        return torch.full((len(index), 3, 4, 4), self.value, dtype=torch.uint8)


def test_a_source_without_a_fingerprint_gets_one():
    labels = torch.tensor([0, 1, 0, 1, 0])
    kinds = [Bare(True), Bare(True, 6), Bare(True, value=1), Bare(True, labels=labels), Bare(True, 100_000)]
    assert len({of(source) for source in kinds}) == 5
    assert of(Bare(True)) == of(Bare(True))
    files = [Bare(False), Bare(False, 6), Bare(False, labels=labels), Bare(False, labels=1 - labels), Bare(True, 0)]
    assert len({of(source) for source in files}) == 5
    assert of(Bare(False, value=1)) == of(Bare(False))  # documented: files without names go unseen


def test_a_part_is_known_by_its_source_its_positions_and_its_labels():
    base, rows = image_set(), torch.tensor([1, 4])
    other = image_set()
    other.images[0] += 1
    parts = [Part(base, rows), Part(base, rows.flip(0)), Part(base, rows, torch.tensor([-1, -1])), Part(other, rows)]
    assert len({of(part) for part in parts}) == 4
    assert of(Part(image_set(), rows)) == of(parts[0])
    assert len(of(Part(Bare(False), rows))) == 32


# The data module, and what differs


def test_the_module_tells_of_the_whole_data(tmp_path: Path):
    root = classes(tmp_path)
    found = files(root, batch_size=2).fingerprint()
    splits = opened(root)
    assert found == {
        "train": {"samples": 6, "digest": of(splits.train)},
        "val": {"samples": 2, "digest": of(splits.val)},
        "root": str(tmp_path),
    }
    assert files(root, batch_size=2, subset=4, val_fraction=0.2, labels=0.5).fingerprint() == found


def test_the_root_is_absolute_and_a_url_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    found = [memory(root=root) for root in (None, "data/../x", "~/x", "s3://bucket/../x")]
    monkeypatch.chdir("/")  # hydra.job.chdir: the root is that of the start
    assert [data.fingerprint()["root"] for data in found] == [None, f"{tmp_path}/x", "/home/me/x", "s3://bucket/../x"]
    assert found[0].fingerprint()["val"]["samples"] == 10


def test_data_without_validation_samples_says_none(tmp_path: Path):
    pictures(tmp_path, 8)
    assert files(tmp_path).fingerprint()["val"] is None


def test_accepting_changes_is_an_option_of_the_data():
    assert memory(changed="accept").fingerprint() == memory().fingerprint()


def told(n: int | None, digest: str = "a") -> dict[str, Any] | None:
    return None if n is None else {"samples": n, "digest": digest}


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ((told(1000), told(10)), (told(1000), told(10)), None),
        ((told(1000), None), (told(1000), None), None),
        (
            (told(1000), None),
            (told(1010, "b"), None),
            "1,000 training images at the start of the run, 1,010 now",
        ),
        (
            (told(1000), None),
            (told(1000, "b"), None),
            "1,000 training images as before, but others (names, labels or sizes differ)",
        ),
        ((told(9), told(1)), (told(9), None), "1 validation image at the start of the run, none now"),
        ((told(9), None), (told(9), told(1)), "no validation images at the start of the run, 1 now"),
        (
            (told(9), told(1)),
            (told(8), told(1, "b")),
            "9 training images at the start of the run, 8 now; "
            "1 validation image as before, but others (names, labels or sizes differ)",
        ),
    ],
)
def test_what_differs_is_a_part_of_a_sentence(old: Any, new: Any, sentence: str | None):
    before, now = ({"train": t, "val": v, "root": root} for (t, v), root in ((old, "/a"), (new, "/b")))
    assert changed(before, now) == sentence
