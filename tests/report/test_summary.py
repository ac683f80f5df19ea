import re
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from ssl_zoo.report.summary import FILES, Row, gains, run_files, table


def text(renderable: RenderableType) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def line(renderable: RenderableType, start: str) -> list[str]:
    """Cells of the row that starts with ``start``."""
    (found,) = [row for row in text(renderable).splitlines() if re.match(rf"{re.escape(start)}(  |$)", row)]
    return re.split("  +", found.strip())


def test_gains_are_the_first_row_less_each_other_row():
    over_untrained, over_pixels = gains(
        [Row("BYOL", 90.0, 80.0), Row("untrained", 60.0, 85.0), Row("raw pixels", knn=70.0)]
    )
    assert over_untrained == Row("gain over untrained", 30.0, -5.0)
    assert over_pixels == Row("gain over raw pixels", None, 10.0)


def test_table_shows_accuracies_and_signed_gains():
    out = table([Row("BYOL", 90.25, 80.0), Row("untrained", 60.0, 85.0)], note="k = 200")
    assert line(out, "BYOL") == ["BYOL", "90.2", "80.0"]
    assert line(out, "untrained") == ["untrained", "60.0", "85.0"]
    assert line(out, "gain over untrained") == ["gain over untrained", "+30.2", "-5.0"]
    assert "k = 200" in text(out)


def test_few_labels_are_columns_with_their_spread():
    few = {1: (89.96, 4.5), 10: (97.4, 0.94)}
    rows = [Row("SimCLR", 98.9, 98.3, few), Row("untrained network", 85.0, 72.0, {1: (28.2, 2.7), 10: (59.6, 2.6)})]
    out = table([*rows, Row("raw pixels", 97.5, 97.5)])
    assert line(out, "features") == ["features", "1 label", "10 labels", "all labels", "kNN"]
    assert line(out, "SimCLR") == ["SimCLR", "90.0 ±4.5", "97.4 ±0.9", "98.9", "98.3"]
    assert line(out, "gain over untrained network")[1:] == ["+61.8", "+37.8", "+13.9", "+26.3"]
    assert line(out, "gain over raw pixels")[1:] == ["-", "-", "+1.4", "+0.8"]


def test_the_default_columns_fit_a_terminal_of_80_characters():
    few = {1: (88.8, 9.9), 5: (88.8, 9.9), 10: (88.8, 9.9)}
    out = table([Row("SimCLR", 100.0, 100.0, few), Row("untrained network", 100.0, 100.0, few)])
    console = Console(width=80)
    with console.capture() as capture:
        console.print(out)
    assert "gain over untrained network  " in capture.get()


def test_a_gain_without_numbers_has_no_row():
    assert "gain" not in text(table([Row("BYOL", probe=90.0), Row("raw pixels", knn=70.0)]))


def test_without_labels_the_table_says_so_and_still_gives_the_paths(tmp_path: Path):
    out = text(table([Row("BYOL")], {"checkpoint": tmp_path / "last.ckpt"}))
    said = "No accuracy was measured (no labelled validation set, or neither probe nor kNN among the callbacks)"
    assert out.replace("\n", " ").startswith(said)
    assert "last.ckpt" in out and "%" not in out


def test_names_are_not_read_as_markup():
    assert "[red]BYOL" in text(
        table([Row("[red]BYOL", 1.0, 2.0)], {"checkpoint": Path("[bold]run/last.ckpt")}, note="[dim]")
    )
    assert "[bold]run/last.ckpt" in text(table([Row("BYOL")], {"checkpoint": Path("[bold]run/last.ckpt")}))


def test_run_files_are_those_that_are_there_in_order(tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("curves", "metrics", "checkpoint"):
        (tmp_path / FILES[name]).touch()
    assert list(run_files(tmp_path)) == ["checkpoint", "metrics", "curves"]
    assert run_files(tmp_path)["checkpoint"] == tmp_path / "checkpoints" / "last.ckpt"


def test_paths_are_relative_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    inside, outside = tmp_path / "run" / "metrics.csv", tmp_path.parent / "metrics.csv"
    lines = [row.strip() for row in text(table([Row("x")], {"metrics": inside})).splitlines()]
    assert "metrics  run/metrics.csv" in lines
    assert str(outside) in "".join(row.strip() for row in text(table([Row("x")], {"metrics": outside})).splitlines())
