"""Damaged files are told together, once, with the place of their list."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from ssl_zoo.data.damage import Damage
from ssl_zoo.errors import ConfigError
from tests.data.helpers import batches, files, pictures


def told(damage: Damage) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        damage.tell()
    return [str(warning.message) for warning in caught]


def test_a_line_counts_names_the_first_and_says_where_the_list_is(tmp_path: Path) -> None:
    damage = Damage(limit=10, samples=100)
    damage.listed = tmp_path / "damaged.txt"
    assert told(damage) == []
    damage.add([(name, "cut") for name in "abcde"])
    damage.add([("a", "cut")])
    start = "damaged files: 5 of 100, the next readable samples take their places: "
    assert told(damage) == [f"{start}a: cut; b: cut; c: cut; and 2 more (all in {tmp_path / 'damaged.txt'})"]
    assert damage.listed.read_text() == "a: cut\nb: cut\nc: cut\nd: cut\ne: cut\n"
    assert told(damage) == []
    damage.add([("f", "empty")])
    assert told(damage)[0].startswith(f"more {start.replace('5', '1')}f: empty (all in ")


def test_a_run_that_goes_on_keeps_its_list(tmp_path: Path) -> None:
    for name in ("a", "b", "a"):
        damage = Damage(limit=10, samples=100)
        damage.listed = tmp_path / "damaged.txt"
        damage.add([(name, "cut")])
        told(damage)
    assert (tmp_path / "damaged.txt").read_text() == "a: cut\nb: cut\n"


def test_a_list_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    damage = Damage(limit=10, samples=100)
    damage.listed = tmp_path / "absent" / "damaged.txt"
    damage.add([("a", "cut")])
    assert told(damage) == ["damaged files: 1 of 100, the next readable samples take their places: a: cut"]


def test_what_ends_the_run_is_not_told_again() -> None:
    damage = Damage(limit=1, samples=100)
    with pytest.raises(ConfigError, match="2 of 100 samples cannot be read"):
        damage.add([("a", "cut"), ("b", "cut")])
    assert told(damage) == []


def test_they_are_told_at_the_end_of_an_epoch_and_not_in_its_midst(tmp_path: Path) -> None:
    for path in pictures(tmp_path / "images", 12)[:2]:
        path.write_text("broken")
    data = files(tmp_path / "images", batch_size=4)
    data.run_dir = tmp_path
    passing = iter(data.train_dataloader())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            next(passing)
    with pytest.warns(UserWarning, match="^damaged files: 2 of 12") as caught:
        next(passing)
    assert len(caught) == 1 and "damaged.txt)" in str(caught[0].message)
    assert len((tmp_path / "damaged.txt").read_text().splitlines()) == 2


def test_they_are_told_when_training_stops_before_an_epoch_ends(tmp_path: Path) -> None:
    for path in pictures(tmp_path, 12)[:6]:
        path.write_text("broken")
    data = files(tmp_path, batch_size=4)
    batches(data, 1)
    with pytest.warns(UserWarning, match=r"^damaged files: \d of 12"):
        data.teardown("fit")
