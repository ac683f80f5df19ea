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
    (found,) = [row for row in text(renderable).splitlines() if row.startswith(("│ " + start, start))]
    return [cell.strip() for cell in found.strip("│").split("│")]


def test_gains_are_the_first_row_less_each_other_row():
    over_untrained, over_pixels = gains(
        [Row("BYOL", 90.0, 80.0), Row("untrained", 60.0, 85.0), Row("raw pixels", knn=70.0)]
    )
    assert over_untrained == Row("gain over untrained", 30.0, -5.0)
    assert over_pixels == Row("gain over raw pixels", None, 10.0)


def test_table_shows_accuracies_and_signed_gains():
    out = table([Row("BYOL", 90.25, 80.0), Row("untrained", 60.0, 85.0)], note="k = 200")
    assert line(out, "BYOL") == ["BYOL", "90.2 %", "80.0 %"]
    assert line(out, "untrained") == ["untrained", "60.0 %", "85.0 %"]
    assert line(out, "gain over untrained") == ["gain over untrained", "+30.2", "-5.0"]
    assert "k = 200" in text(out)


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
