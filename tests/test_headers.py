"""What stands at the top of a method's file: no command beside a number that it does not reproduce."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.helpers import CONF

RECIPES = Path(__file__).parent / "golden" / "data" / "recipes"
COMMAND = re.compile(r"# python train\.py (?P<words>.+?)(?:\s{2,}(?P<remark>.+))?")
DENIED = re.compile(r"\((not that run|no recorded recipe was compared)")


def overrides(path: Path) -> frozenset[str]:
    """By which a recorded run is composed, unless an experiment does it."""
    recorded = json.loads(path.read_text())["compose"]["overrides"] or []
    experiment = CONF / "experiment" / f"{path.stem.replace('__', '_')}.yaml"
    return frozenset() if experiment.is_file() else frozenset(recorded)


RECORDED = {overrides(path) for path in RECIPES.glob("*.json")}


def unproved(text: str) -> list[str]:
    """The commands of a head with a number that no recorded recipe is compared with and that do not say so."""
    head = [line for line in text.splitlines() if line.startswith("# ")]
    if "%" not in "".join(head):
        return []
    found = [match for line in head if (match := COMMAND.fullmatch(line))]
    return [
        match["words"]
        for match in found
        if not match["words"].startswith("experiment=")
        and frozenset(match["words"].split()) - {"data.root=IMAGENET", "data.root=DIR"} not in RECORDED
        and not DENIED.match(match["remark"] or "")
    ]


@pytest.mark.parametrize("path", sorted((CONF / "method").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_command_beside_a_number_is_that_run_or_says_that_it_is_not(path: Path) -> None:
    assert unproved(path.read_text()) == []


def test_a_command_that_is_not_that_run_is_found() -> None:
    head = "# The authors report 70.1 %.\n# python train.py method=byol data=imagenet{}\n"
    assert unproved(head.format("")) == ["method=byol data=imagenet"]
    assert unproved(head.format("   70.1 %, batch 4096")) == ["method=byol data=imagenet"]
    assert unproved(head.format("   (not that run: a short one)")) == []
    assert unproved(head.replace("method=byol data=imagenet", "experiment=byol_imagenet_300ep")) == []
