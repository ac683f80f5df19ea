"""Which choice moves accuracy: numbers of made-up runs, and the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssl_zoo.errors import ConfigError
from ssl_zoo.report import framework

KNN = {"base": [30.0, 32.0], "loss/margin": [29.0, 27.0], "loss/spread": [34.0], "augmentation/crop": [25.0]}


def rows(knn: dict[str, list[float]] = KNN) -> list[dict[str, Any]]:
    return [{"method/contrastive/varied": name, "kNN top-1": x} for name, values in knn.items() for x in values]


def test_a_choice_moves_what_lies_between_its_values_and_the_base() -> None:
    told = framework.effects(rows())
    found = [(one["choice"], one["value"], one["knn"], one["change"], one["range"], one["runs"]) for one in told]
    assert found == [
        ("augmentation", "crop", 25.0, -6.0, 6.0, 1),
        ("loss", "spread", 34.0, 3.0, 6.0, 1),
        ("loss", "margin", 28.0, -3.0, 6.0, 2),
    ]
    assert told[0]["spread"] is None and told[2]["spread"] == pytest.approx(2**0.5)


def test_the_table_has_the_base_and_a_line_for_each_change() -> None:
    lines = framework.table(rows()).splitlines()
    assert lines[0] == "The base: 31.0 % kNN top-1." and len(lines) == 7
    assert lines[-1] == "| loss | 6.0 | margin | 28.0 ± 1.4 | -3.0 |"


def test_it_is_drawn(tmp_path: Path) -> None:
    picture = framework.draw(rows(), tmp_path / "new" / "framework.png")
    assert picture.read_bytes()[:4] == b"\x89PNG" and picture.stat().st_size > 8_000


@pytest.mark.parametrize("left", [["loss/margin"], ["base"]])
def test_runs_that_did_not_end_do_not_count(left: list[str]) -> None:
    failed = {"method/contrastive/varied": "loss/spread", "kNN top-1": None}
    with pytest.raises(ConfigError, match=r"wanted finished runs of the base .* got \d and \d; repeat what failed"):
        framework.table([*rows({name: KNN[name] for name in left}), failed])
