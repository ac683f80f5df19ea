"""The README says what the code does: its table of methods, and every command, are checked."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ssl_zoo import config, sweeps
from ssl_zoo.report.methods import markdown

README = (Path(__file__).parent.parent / "README.md").read_text()
COMMANDS = [line.strip() for line in README.splitlines() if line.startswith("    python train.py")]


def test_the_table_of_methods_is_that_of_the_cards() -> None:
    found = re.search(r"<!-- methods -->\n(.*?)\n?<!-- /methods -->", README, re.S)
    assert found and found.group(1) == markdown(), f"write this between the markers of README.md:\n{markdown()}"


@pytest.mark.parametrize("line", COMMANDS)
def test_every_training_command_composes(line: str) -> None:
    words = [word for word in shlex.split(line.replace("METHOD", "byol"))[2:] if word != "-m"]
    for job in sweeps.expand(words):
        assert config.load(job).method._target_.startswith("ssl_zoo.methods.")
