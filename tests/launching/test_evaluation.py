"""An evaluation on two processes that a launcher has started says what one process says, once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.launching.starts import EVALUATE, alone, torchrun
from tests.launching.test_starts import words

PROTOCOLS = ("knn", "linear")
OF_PROTOCOL = {
    "knn": ["protocol=knn"],
    "linear": ["protocol=linear", "dtype=float16"],
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of four epochs; nobody writes to it."""
    place = tmp_path_factory.mktemp("trained")
    (done,) = alone(words("simclr"), place)
    assert done.returncode == 0, done.stderr
    return place / "run"


def given(protocol: str, place: Path, output: str) -> list[str]:
    """The words for the copy of the run in ``place``."""
    return [f"checkpoint={place / 'run'}", "device=cpu", "cache=false", f"output={output}", *OF_PROTOCOL[protocol]]


def judged(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return {key: value for key, value in found.items() if key != "seconds"}


def of_one(protocol: str, place: Path) -> tuple[dict[str, Any], str]:
    (done,) = alone(given(protocol, place, "one.json"), place, EVALUATE)
    assert done.returncode == 0, done.stderr
    return judged(place / "one.json"), done.stdout.replace("one.json", "two.json")


def assert_same(protocol: str, place: Path, said: Sequence[str]) -> None:
    wanted, told = of_one(protocol, place)
    assert judged(place / "two.json") == wanted
    assert "".join(said) == told


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_torchrun_judges_as_one_process(protocol: str, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (done,) = torchrun(given(protocol, tmp_path, "two.json"), tmp_path, EVALUATE)
    assert done.returncode == 0, done.stderr
    assert_same(protocol, tmp_path, [done.stdout])


def test_a_wrong_word_is_told_once_and_ends_all(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (done,) = torchrun([*given("knn", tmp_path, "two.json"), "protocol.kk=1"], tmp_path, EVALUATE)
    assert done.returncode == 1 and done.stderr.count("error: ") == 1 and "protocol.kk" in done.stderr, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
