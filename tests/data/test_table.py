"""Tables of the user's own: what is read, what is fitted, and what is said of files that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_zoo.data.source import Splits
from ssl_zoo.data.table.encoding import Column, from_json
from ssl_zoo.data.table.sets import scikit_learn, synthetic
from ssl_zoo.data.table.table import table
from ssl_zoo.errors import ConfigError

HEAD = "age,city,income,label"
ROWS = ["20,Rome,10,yes", "40,Oslo,?,no", "60,Rome,30,no", ",Oslo,20,yes"]


def write(folder: Path, name: str, lines: list[str], head: str = HEAD) -> Path:
    file = folder / name
    file.write_text("\n".join([head, *lines]) + "\n")
    return file


def many(lines: list[str], times: int = 60) -> list[str]:
    return lines * times


def read(file: Path, **options: Any) -> Splits:
    return table(str(file), **options)


def test_numbers_are_standardised_categories_counted_and_missing_cells_kept(tmp_path: Path) -> None:
    train = read(write(tmp_path, "a.csv", ROWS)).train
    age, city, income = train.columns
    assert age == Column("age", None, 40.0, pytest.approx((800 / 3) ** 0.5))
    assert city == Column("city", ("Oslo", "Rome"))
    assert (income.offset, train.classes, train.labels.tolist()) == (20.0, ["no", "yes"], [1, 0, 0, 1])
    assert train.values[:, 1].tolist() == [1, 0, 1, 0]
    assert train.values[3, 0].isnan() and train.values[1, 2].isnan() and int(train.values.isnan().sum()) == 2
    assert train.values[:3, 0].tolist() == pytest.approx([-1.224745, 0, 1.224745])
    assert train.facts == {"inputs": 4, "columns": ["age", "city", "income"], "widths": [1, 2, 1], "unit_range": False}
    assert from_json(train.resolved["encoding"]) == train.columns


def test_between_zero_and_one_or_as_they_are(tmp_path: Path) -> None:
    file = write(tmp_path, "a.csv", ROWS)
    assert read(file, numbers="minmax").train.values[:3, 0].tolist() == [0, 0.5, 1]
    assert read(file, numbers="minmax").train.facts["unit_range"]
    assert read(file, numbers="none").train.values[:3, 0].tolist() == [20, 40, 60]
    constant = read(write(tmp_path, "b.csv", ["3,a", "3,b"], "x,label")).train
    assert constant.values.tolist() == [[0], [0]]


def test_the_encoding_of_a_run_is_that_of_other_files(tmp_path: Path) -> None:
    first = read(write(tmp_path, "a.csv", ROWS)).train
    other = write(tmp_path, "b.csv", ["100,Oslo,1,no"])
    assert read(other, encoding=first.resolved["encoding"]).train.values[0].tolist() == pytest.approx(
        [first.columns[0].number("100"), 0.0, first.columns[2].number("1")]
    )
    with pytest.raises(ConfigError, match="data.source.encoding is no list of columns as a run keeps it"):
        read(other, encoding="auto-ish")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_what_stands_between_cells_is_seen(tmp_path: Path, delimiter: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text("\n".join(line.replace(",", delimiter) for line in [HEAD, *ROWS]))
    assert len(read(file).train) == 4


def test_parquet_holds_the_same(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra [table] is not installed")
    from pyarrow import parquet

    columns = {"age": [20.0, 40.0, 60.0, None], "city": ["Rome", "Oslo", "Rome", "Oslo"], "income": [10, None, 30, 20],
               "label": [True, False, False, True]}  # fmt: skip
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    ours, same = read(tmp_path / "a.parquet").train, read(write(tmp_path, "a.csv", ROWS)).train
    assert torch.equal(ours.values.nan_to_num(9), same.values.nan_to_num(9)) and ours.columns == same.columns
    assert (ours.classes, ours.labels.tolist()) == (["0", "1"], same.labels.tolist())


def test_splits_are_files_of_a_folder_or_a_column(tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    write(tmp_path / "both", "train.csv", ROWS), write(tmp_path / "both", "test.csv", ROWS[:1])
    splits = read(tmp_path / "both")
    assert (len(splits.train), len(splits.val)) == (4, 1)
    lines = [f"{row},{part}" for row, part in zip(ROWS, ["train", "train", "Validation", "train"], strict=True)]
    splits = read(write(tmp_path, "a.csv", lines, f"{HEAD},split"))
    assert (len(splits.train), len(splits.val), splits.train.facts["columns"]) == (3, 1, ["age", "city", "income"])
    assert read(write(tmp_path, "c.csv", ROWS), val=str(write(tmp_path, "d.csv", ROWS[:2]))).val.values.shape == (2, 3)


def test_labels_are_found_named_or_left_out(tmp_path: Path) -> None:
    file = write(tmp_path, "a.csv", ROWS, "age,city,income,bought")
    assert read(file, target="bought").train.classes == ["no", "yes"]
    assert read(file, target="none").train.labels is None
    (told,) = read(file).train.decisions
    assert told.startswith("a.csv: no column is called label, class, target")
    assert told.endswith("data.source.target=NAME")
    assert read(write(tmp_path, "b.csv", ["1,10", "2,9", "3,"], "x,y")).train.labels.tolist() == [1, 0, -1]


def test_rows_that_cannot_be_read_are_left_out_and_named(tmp_path: Path) -> None:
    lines = many(ROWS)
    lines[10], lines[20] = "abc,Rome,1,yes", "1,Rome"
    train = read(write(tmp_path, "a.csv", lines)).train
    assert len(train) == len(train.labels) == 238
    assert train.decisions == [
        "2 of 239 rows are left out: a.csv row 22: 2 cells, the head has 4; "
        "a.csv row 12: age is 'abc', which is no number"
    ]
    lines[30:34] = ["1"] * 4
    with pytest.raises(ConfigError, match=r"6 of 235 rows cannot be read, and 1% may be left out: a.csv row 22"):
        read(write(tmp_path, "a.csv", lines))


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (["20,Bern,1,no"], {}, "b.csv row 2: city is 'Bern', which no training row has: there are: Oslo, Rome; "),
        (["20,Osla,1,no"], {}, "which no training row has: did you mean 'Oslo'"),
        (["20,Oslo,1,perhaps"], {}, "b.csv row 2: label is 'perhaps', and the training rows have no, yes"),
    ],
)
def test_what_no_training_row_has_is_a_sentence(tmp_path: Path, rows: list[str], options: Any, message: str) -> None:
    file, other = write(tmp_path, "a.csv", ROWS), write(tmp_path, "b.csv", rows)
    with pytest.raises(ConfigError, match=message):
        read(file, val=str(other), **options)


def test_an_unknown_category_may_count_as_missing(tmp_path: Path) -> None:
    file, other = write(tmp_path, "a.csv", ROWS), write(tmp_path, "b.csv", ["20,Bern,1,no"])
    assert read(file, val=str(other), unknown="missing").val.values[0, 1].isnan()


@pytest.mark.parametrize(
    ("head", "lines", "options", "message"),
    [
        ("age,age,label", ["1,2,a"], {}, "two columns are called 'age'"),
        ("age,,label", ["1,2,a"], {}, "column 2 has no name"),
        ("age,label", [], {}, "there is no row below the head"),
        ("age,label", ["1,a"], {"target": "lable"}, "data.source.target=lable: .* did you mean 'label'"),
        ("age,label", ["1,a"], {"ignore": ["aeg"]}, "data.source.ignore: .* no column 'aeg': did you mean 'age'"),
        ("age,label", ["1,a"], {"ignore": ["age"]}, "no column is left to learn from"),
        ("age,label", ["1,a"], {"numbers": "standart"}, "data.source.numbers=standart: did you mean 'standard'"),
        ("name,label", [f"n{i},a" for i in range(50)], {}, r"50 different values in 50 rows.*ignore=\[name\]"),
        ("x,label", [f"1,{i}.5" for i in range(50)], {}, "classes are wanted, not numbers to be predicted"),
        ("x,y,label", ["1,,a"], {}, r"y has no value in any row; leave it out: data.source.ignore=\[y\]"),
        ("x,label", ["1,"], {}, "no row has a label; data.source.target=none says"),
        ("x,label,split", ["1,a,train", "1,b,trian"], {}, "row 3: split is 'trian', wanted train, val or test"),
        ("x,label,split", ["1,a,val"], {}, "no row has the split train"),
    ],
)
def test_a_table_that_makes_no_sense_is_a_sentence(
    tmp_path: Path, head: str, lines: list[str], options: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        read(write(tmp_path, "a.csv", lines, head), **options)


def test_files_that_are_none(tmp_path: Path) -> None:
    for file, message in (
        (tmp_path / "a.csv", "there is no such file"),
        (tmp_path / "a.xlsx", "a table is a file that ends in .csv, .tsv, .parquet"),
        (tmp_path, "wanted a file, or a folder with train.csv and val.csv; found nothing"),
    ):
        with pytest.raises(ConfigError, match=message):
            read(file)
    with pytest.raises(ConfigError, match="data.root is not set: wanted a CSV, TSV or Parquet file with a head"):
        table(None)
    (tmp_path / "b.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(ConfigError, match="cannot be read as a table in UTF-8"):
        read(tmp_path / "b.csv")


def test_without_pyarrow_a_parquet_file_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").touch()
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'ssl_zoo\[table\]'; CSV files want nothing"):
        read(tmp_path / "a.parquet")


def test_tables_that_need_no_file() -> None:
    for name, sizes in (("breast_cancer", (456, 113, 30)), ("digits", (1438, 359, 64)), ("wine", (142, 36, 13))):
        splits = scikit_learn(name)
        assert (len(splits.train), len(splits.val), splits.train.values.shape[1]) == sizes
        assert abs(float(splits.train.values.mean())) < 1e-6
    with pytest.raises(ConfigError, match="data.source.name=whine: did you mean 'wine'"):
        scikit_learn("whine")
    one, other = synthetic(16, 0), synthetic(16, 8, seed=1)
    assert one.val is None and one.train.facts["inputs"] == 18
    assert not torch.equal(one.train.values.nan_to_num(), other.train.values.nan_to_num())
    assert synthetic(16, 0).train.fingerprint() == one.train.fingerprint() != other.train.fingerprint()
