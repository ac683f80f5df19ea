"""Tables that say which images there are: header or not, any delimiter, labels, parts; errors name the row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssl_zoo.data.image.folder import folder
from ssl_zoo.data.source import Splits
from ssl_zoo.errors import ConfigError
from tests.data.helpers import pictures


@pytest.fixture()
def images(tmp_path: Path) -> Path:
    pictures(tmp_path / "images", 6)
    return tmp_path


def opened(file: Path, text: str, **options: Any) -> Splits:
    file.write_text(text, encoding="utf-8")
    return folder(str(file), 3, 16, cache=False, **options)


def names(source: Any) -> list[str]:
    return [Path(source.path(i)).name for i in range(len(source))]


def test_a_header_names_the_columns_in_any_order(images: Path) -> None:
    rows = ["split,label,path,camera", "train,dog,images/003.png,1", "val,dog,images/001.png,2",
            "Training,cat,images/000.png,1", ",,images/002.png,1", "test,cat,images/004.png,3"]  # fmt: skip
    train, val = opened(images / "list.csv", "\n".join(rows) + "\n\n")
    assert (train.classes, train.labels.tolist(), names(train)) == (
        ["cat", "dog"], [1, 0, -1], ["003.png", "000.png", "002.png"],
    )  # fmt: skip
    assert (val.labels.tolist(), names(val)) == ([1], ["001.png"])
    assert train.decisions == [
        "training set: 3 rows of list.csv in 2 classes, 1 of them without a label; validation set: 1 row (val); not "
        "read: 1 row (test)",
        "columns that are not read: camera",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "images/000.png,1\nimages/001.png,10\nimages/002.png,2\n"),
        ("a.csv", "images/000.png;1\nimages/001.png;10\nimages/002.png;2\n"),
        ("a.TSV", "images/000.png\t1\nimages/001.png\t10\nimages/002.png\t2\n"),
        ("a.csv", '\ufeffFile,Class\r\n"images/000.png",1\r\nimages/001.png, 10\r\nimages\\002.png,2\r\n'),
    ],
)
def test_without_a_header_and_with_other_signs(images: Path, name: str, text: str) -> None:
    train, val = opened(images / name, text)
    assert (train.classes, train.labels.tolist(), val) == (["1", "2", "10"], [0, 2, 1], None)


def test_paths_alone_are_an_unlabelled_set_in_the_order_of_the_file(images: Path) -> None:
    train, val = opened(images / "a.csv", "images/003.png\nimages/001.png\n")
    assert (names(train), train.labels, val) == (["003.png", "001.png"], None, None)
    assert train.decisions == ["training set: 2 rows of a.csv; no validation set", "no labels: it has no column label"]
    train, val = opened(images / "a.csv", "images/003.png,x,train\nimages/001.png,y,val\n", labels="none")
    assert (train.labels, val, len(train.decisions)) == (None, None, 1)


def test_test_rows_validate_where_no_others_do(images: Path) -> None:
    train, val = opened(images / "a.csv", "images/000.png,a,train\nimages/001.png,a,test\n")
    assert (len(train), len(val)) == (1, 1) and "validation set: 1 row (test)" in train.decisions[0]


def test_paths_may_be_relative_to_the_root_or_absolute(images: Path) -> None:
    (images / "lists").mkdir()
    table = images / "lists" / "a.csv"
    table.write_text(f"000.png,a\n{images}/images/001.png,b\n")
    train = folder(str(images / "images"), 3, 16, cache=False, table=str(table)).train
    assert names(train) == ["000.png", "001.png"]
    table.write_text("000.png,a\n001.png,b\n")
    relative = folder(str(images / "images"), 3, 16, cache=False, table=str(table)).train
    assert relative.fingerprint() == train.fingerprint()


def test_labels_and_order_are_what_a_table_is_known_by(images: Path) -> None:
    first = opened(images / "a.csv", "images/000.png,a\nimages/001.png,b\n").train.fingerprint()
    assert opened(images / "b.csv", "path,label\nimages/000.png,a\nimages/001.png,b\n").train.fingerprint() == first
    assert opened(images / "b.csv", "images/000.png,b\nimages/001.png,a\n").train.fingerprint() != first
    assert opened(images / "b.csv", "images/001.png,b\nimages/000.png,a\n").train.fingerprint() != first


def test_rows_of_one_file_are_counted(images: Path) -> None:
    train = opened(images / "a.csv", "images/000.png,a\n./images/000.png,a\nimages/001.png,b\n").train
    assert len(train) == 3 and train.decisions[-1] == "1 row of a file that another row names too"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it has no row; wanted rows of path,label[,split]"),
        ("path,label\n", "it has a header and no row"),
        ("images/000.png,a\nimages/009.png,a\n", "row 2 names images/009.png, which is not there (looked at "),
        ("name,label\nimages/000.png,a\n", "row 1 names name, which is not there"),
        ("images/000.png,a\nimages/001.png\n", "row 2 has 1 cell, the first row 2"),
        ("images/000.png,a\n,b\n", "row 2 names no file"),
        ("images/000.png,a,b,c\n", "its rows have 4 cells and no header; wanted path,label[,split]"),
        ("path,image,label\nimages/000.png,x,a\n", "row 1 has the columns path, image, all of which may be the path"),
        ("images/000.png,a,holdout\n", "row 1 (images/000.png) is of the split 'holdout'; wanted train, val or test"),
        ("images/000.png,a,val\n", "no row is of the training set; call it train in the column split"),
        ("images/000.png,a,train\nimages/001.png,b,val\n", "row 2 (images/001.png) has the label 'b', which no"),
        ("images/000.png,a,train\nimages/000.png,a,val\n",
         "rows 1 and 2 name the same file, images/000.png, as a (train) and as a (val)"),
        ("images/000.png,a\nimages/000.png,b\n",
         "rows 1 and 2 name the same file, images/000.png, as a (train) and as b (train)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_the_row(images: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        opened(images / "a.csv", text)
    assert words in str(error.value) and str(error.value).startswith(f"data.root={images / 'a.csv'}: ")


def test_a_file_that_is_no_text_is_refused(images: Path) -> None:
    (images / "a.csv").write_bytes(b"images/\xff\xfe.png,a\n")
    with pytest.raises(ConfigError, match=r"cannot be read \(it is no text in UTF-8\)"):
        folder(str(images / "a.csv"), 3, 16)
    with pytest.raises(ConfigError, match="data.source.table=.*none.csv: cannot be read .No such file or directory"):
        folder(str(images), 3, 16, table=str(images / "none.csv"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": "folder"}, "a.csv says the labels itself; wanted auto or none"),
        ({"files": "list.txt"}, "data.source.files=list.txt goes with a folder"),
        ({"train_folder": "x"}, "data.source.train_folder=x goes with a folder"),
    ],
)
def test_settings_that_do_not_go_with_a_table(images: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        opened(images / "a.csv", "images/000.png,a\n", **options)
    assert words in str(error.value)


def test_a_root_that_is_another_file_is_refused(images: Path) -> None:
    with pytest.raises(ConfigError, match="000.png is a file; wanted a folder, or a .csv or .tsv file"):
        folder(str(images / "images" / "000.png"), 3, 16)
