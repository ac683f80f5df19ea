"""Which folder trains, which validates, what is a class: for trees as people have them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_zoo.data.image.folder import folder
from ssl_zoo.data.image.pack import Options, pack, parse
from ssl_zoo.data.image.packed import packed
from ssl_zoo.data.source import Splits
from ssl_zoo.data.split_names import split_of
from ssl_zoo.errors import ConfigError
from tests.data.helpers import pictures


def made(root: Path, folders: Sequence[str], n: int = 2) -> Path:
    for name in folders:
        pictures(root / name, n)
    return root


def opened(root: Path | list[str], **options: Any) -> Splits:
    return folder([str(one) for one in root] if isinstance(root, list) else str(root), 3, 16, cache=False, **options)


def lines(root: Path | list[str], **options: Any) -> list[str]:
    return opened(root, **options).train.decisions


def refused(root: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as error:
        opened(root, **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"), ("Train", "train"), ("TRAINING", "train"), ("train_set", "train"), ("trainset", "train"),
        ("Training Data", "train"), ("train2017", "train"), ("train-images", "train"), ("val", "val"), ("Valid", "val"),
        ("VALIDATION", "val"), ("val2012", "val"), ("test", "test"), ("Testing", "test"), ("testset", "test"),
        ("cat", None), ("trains", None), ("test_tube", None), ("train1", None), ("", None), ("data", None),
    ],
)  # fmt: skip
def test_names_of_parts(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("train", "val", "remark"),
    [
        ("train", "val", ""),
        ("Train", "Val", ""),
        ("training", "validation", ""),
        ("TRAIN", "valid", ""),
        ("train_set", "Testing", "; there is no other validation set"),
        ("train", "test", "; there is no other validation set"),
    ],
)
def test_parts_are_known_by_name_in_any_case_and_said(tmp_path: Path, train: str, val: str, remark: str) -> None:
    made(tmp_path, [f"{part}/{name}" for part in (train, val) for name in ("cat", "dog")])
    found = opened(tmp_path)
    assert (found.train.classes, len(found.train), len(found.val)) == (["cat", "dog"], 4, 4)
    assert found.train.path(0) == str(tmp_path / train / "cat" / "000.png")
    assert found.val.path(0) == str(tmp_path / val / "cat" / "000.png")
    assert found.train.decisions == [
        f"training set: {train}/ (4 images in 2 classes); validation set: {val}/ (4 images{remark})"
    ]


def test_what_lies_beside_the_parts_is_named_and_not_read(tmp_path: Path) -> None:
    made(tmp_path, ["train/cat", "train/dog", "val/cat", "test/cat", "raw", "."])
    assert lines(tmp_path) == [
        "training set: train/ (4 images in 2 classes); validation set: val/ (2 images); "
        f"not read: raw/, test/, 2 images in {tmp_path.name}/"
    ]


def test_a_part_beside_class_folders_is_no_class(tmp_path: Path) -> None:
    made(tmp_path, ["cat", "dog", "Test/cat", "Test/dog"])
    found = opened(tmp_path)
    assert (found.train.classes, len(found.train), len(found.val)) == (["cat", "dog"], 4, 4)
    assert found.train.decisions[0].startswith(f"training set: {tmp_path.name}/ without Test/ (4 images in 2 classes)")
    assert opened(tmp_path, val_folder="none").val is None
    everything = opened(tmp_path, train_folder=".")
    assert (everything.train.classes, len(everything.train), everything.val) == (["Test", "cat", "dog"], 8, None)


def test_a_test_set_without_labels_is_left_out_and_named(tmp_path: Path) -> None:
    found = opened(made(tmp_path, ["train/cat", "train/dog", "test"]))
    assert found.val is None and len(found.train) == 4
    assert found.train.decisions == [
        "training set: train/ (4 images in 2 classes); no validation set (test/ is not used: 000.png lies in no class "
        "folder of the training set)"
    ]


def test_a_validation_set_without_its_classes_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    made(tmp_path, ["train/cat", "train/dog", "val/bird"])
    text = refused(tmp_path)
    assert "train/ has no class 'bird'" in text and "data.source.val_folder=none leaves val/ out" in text
    assert opened(tmp_path, val_folder="none").val is None


def test_parts_alone_are_refused_with_the_line_that_trains_on_one(tmp_path: Path) -> None:
    text = refused(made(tmp_path, ["test/cat", "val/cat"]))
    assert text.endswith(f"found val/, test/ and no folder of training images; call it train, or train on one of these:"
                         f" data.root={tmp_path}/val")  # fmt: skip


@pytest.mark.parametrize(("names", "kind"), [(("Train", "training"), "train"), (("val", "Validation"), "val")])
def test_two_folders_for_one_part_are_refused(tmp_path: Path, names: tuple[str, str], kind: str) -> None:
    made(tmp_path, ["train/cat", "train/dog"] if kind == "val" else [])
    made(tmp_path, [f"{name}/cat" for name in names])
    first = sorted(names)[0]
    assert f"choose one with data.source.{kind}_folder={first}" in refused(tmp_path)
    assert opened(tmp_path, **{f"{kind}_folder": first}) is not None


def test_parts_may_be_called_anything(tmp_path: Path) -> None:
    made(tmp_path, ["2019/cat", "2019/dog", "2020/cat", "2020/dog", "2020/deep/x"])
    (tmp_path / "2020" / "deep" / "x" / "000.png").rename(tmp_path / "2020" / "cat" / "more.png")
    (tmp_path / "2020" / "deep" / "x" / "001.png").unlink()
    found = opened(tmp_path, train_folder="2019", val_folder="2020")
    assert (len(found.train), len(found.val), found.val.labels.tolist()) == (4, 5, [0, 0, 0, 1, 1])
    assert "there is no such folder in" in refused(tmp_path, train_folder="2021")
    assert "data.source.val_folder=2021" in refused(tmp_path, train_folder="2019", val_folder="2021")


def test_a_data_set_one_folder_further_down_is_found(tmp_path: Path) -> None:
    made(tmp_path, ["images/train/cat", "images/train/dog", "images/val/cat", "images/val/dog"])
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0 0 1 1")
    found = opened(tmp_path)
    assert (len(found.train), len(found.val), found.train.decisions[0]) == (4, 4, "the data set lies in images/")


def test_data_sets_beside_one_another_are_not_read_as_classes(tmp_path: Path) -> None:
    made(tmp_path, ["bottle/train/good", "bottle/test/bad", "my cable/train/good", "my cable/test/bad"])
    text = refused(tmp_path)
    assert "bottle/, my cable/ have training and other images apart" in text
    assert f"choose one with data.root={tmp_path}/bottle, " in text
    assert f"read several with 'data.root=[{tmp_path}/bottle,{tmp_path}/my cable]'" in text
    assert len(opened(tmp_path, train_folder=".").train) == 8


@pytest.mark.parametrize(
    ("folders", "why"),
    [
        (["."], "there are no class folders"),
        (["cat"], "there is one class folder, cat/"),
        (["cat", "."], "there is one class folder, cat/"),
        (["cat", "dog", "."], "000.png and 1 more lie beside the class folders cat/, dog/; move them into one"),
    ],
)
def test_why_there_are_no_labels_is_said(tmp_path: Path, folders: list[str], why: str) -> None:
    found = opened(made(tmp_path, folders))
    assert found.train.labels is None and found.train.decisions[1:] == [f"no labels: {why}"]
    assert len(opened(tmp_path, labels="none").train.decisions) == 1


def test_one_stray_image_is_named(tmp_path: Path) -> None:
    made(tmp_path, ["train/cat", "train/dog", "val/cat"])
    pictures(tmp_path / "train", 1)
    assert lines(tmp_path) == [
        "training set: train/ (5 images); no validation set (val/ is not used, for there are no labels)",
        "no labels: 000.png lies beside the class folders cat/, dog/; move it into one",
    ]


def test_what_systems_leave_behind_is_no_data(tmp_path: Path) -> None:
    made(tmp_path, ["cat", "dog", "@eaDir", "__MACOSX/cat", ".hidden", "cat/@eaDir", "$RECYCLE.BIN", "lost+found"])
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._000.png"):
        (tmp_path / "cat" / name).write_text("x")
    found = opened(tmp_path)
    assert (found.train.classes, len(found.train), len(found.train.decisions)) == (["cat", "dog"], 4, 1)


def test_what_is_skipped_is_counted_by_kind_and_no_class_goes_without_a_word(tmp_path: Path) -> None:
    made(tmp_path, ["train/cat", "train/dog", "val/cat"])
    (tmp_path / "train" / "bird").mkdir()
    for i in range(3):
        (tmp_path / "train" / "bird" / f"{i}.xyz").write_text("x")
    for name in ("train/cat/LICENSE", "train/cat/a.eps", "val/cat/a.XYZ"):
        (tmp_path / name).write_text("x")
    (tmp_path / "train" / "none").mkdir()
    assert lines(tmp_path)[1:] == [
        "no class: bird/, none/ (they hold no image)",
        "skipped: 4 .xyz, 1 without a suffix, 1 .eps; .eps: Pillow would start another program",
    ]


def test_a_folder_of_other_files_says_what_was_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("x")
    assert refused(tmp_path).endswith("more kinds, in all sub-folders; skipped: 1 .xyz)")


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, ["cat", "dog"])
    real = os.scandir

    def scandir(folder: Path) -> Any:
        if folder == tmp_path / "dog":
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr("ssl_zoo.data.image.listing.os.scandir", scandir)
    told = f"{tmp_path / 'dog'}: cannot be looked into (Permission denied); allow it (chmod), or move it away"
    assert refused(tmp_path) == told


# Several roots


def test_several_roots_are_one_data_set_with_the_classes_of_all(tmp_path: Path) -> None:
    a = made(tmp_path / "a", ["train/cat", "train/dog", "val/cat"])
    b = made(tmp_path / "b", ["bird", "cat"], 3)
    c = made(tmp_path / "c", ["."], 1)
    found = opened([str(a), str(b), str(c)])
    assert found.train.classes == found.val.classes == ["bird", "cat", "dog"]
    assert found.train.labels.tolist() == [1, 1, 2, 2, 0, 0, 0, 1, 1, 1, -1] and found.val.labels.tolist() == [1, 1]
    assert found.train.path(3) == str(a / "train" / "dog" / "001.png")
    assert found.train.path(4) == str(b / "bird" / "000.png") and found.train.path(10) == str(c / "000.png")
    parts = "training set: train/ (4 images in 2 classes); validation set: val/ (2 images)"
    assert found.train.decisions[0] == f"{a}: {parts}"
    assert found.train.decisions[-1] == f"{c}: no labels: there are no class folders"


def test_roots_are_known_wherever_they_lie_and_by_their_order(tmp_path: Path) -> None:
    for place in ("here", "there"):
        made(tmp_path / place / "a", ["cat", "dog"])
        made(tmp_path / place / "b", ["cat", "dog"], 3)
    here = [str(tmp_path / "here" / name) for name in "ab"]
    there = [str(tmp_path / "there" / name) for name in "ab"]
    assert opened(here).train.fingerprint() == opened(there).train.fingerprint()
    assert opened(here).train.fingerprint() != opened(here[::-1]).train.fingerprint()
    assert opened([here[0]]).train.fingerprint() == opened(Path(here[0])).train.fingerprint()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shares": [0.5]}, "data.source.shares=[0.5]: wanted a number above 0 for each of the 2 roots"),
        ({"shares": [1, 0]}, "data.source.shares=[1, 0]: wanted a number above 0"),
        ({"files": "list.txt"}, "data.source.files=list.txt goes with one root, and there are 2"),
        ({"table": "t.csv"}, "data.source.table=t.csv goes with one root, and there are 2"),
    ],
)
def test_settings_that_do_not_go_with_several_roots(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    roots = [str(made(tmp_path / name, ["cat", "dog"])) for name in "ab"]
    with pytest.raises(ConfigError) as error:
        opened(roots, **options)
    assert words in str(error.value)


def test_one_root_has_no_shares_and_no_root_is_none(tmp_path: Path) -> None:
    assert "of the 1 roots" in refused(made(tmp_path, ["cat", "dog"]), shares=[1.0])
    with pytest.raises(ConfigError, match=r"data.root=\[\]: wanted the folder"):
        opened([])


def test_several_roots_and_tables_are_packed_as_one_data_set(tmp_path: Path) -> None:
    made(tmp_path / "in" / "a", ["cat", "dog"])
    made(tmp_path / "in" / "b", ["images"], 3)
    rows = [f"images/00{i}.png,dog,{'val' if i == 2 else 'train'}" for i in range(3)]
    (tmp_path / "in" / "b" / "list.csv").write_text("\n".join(rows))
    roots = [str(tmp_path / "in" / "a"), str(tmp_path / "in" / "b" / "list.csv")]
    pack(opened(roots), Options(str(tmp_path / "out.pack"), workers=0), "folder", roots)
    train, val = packed(str(tmp_path / "out.pack"), 3, 16)
    assert (train.classes, train.labels.tolist(), val.labels.tolist()) == (["cat", "dog"], [0, 0, 1, 1, 1, 1], [1])
    for i, name in {0: "a/cat/000.png", 3: "a/dog/001.png", 4: "b/images/000.png", 6: "b/images/002.png"}.items():
        assert train.file.name(i).endswith(f"out.pack: sample {i} ({name})")
    assert torch.equal(train.load(4), opened(roots).train.load(4))


def test_shares_belong_to_the_run_and_not_to_a_pack() -> None:
    with pytest.raises(ConfigError, match="data.source.shares=.*: a pack holds all samples; give it to the run"):
        parse(["data=folder", "data.root=[a,b]", "data.source.shares=[1,2]", "out=x.pack"])
