"""Every block of docs/clusters.md is run as it stands, on this machine or on a Slurm of its own, or says what it needs.

Only trainings are made shorter and narrower, by words behind ``data=digits``.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from ssl_zoo import cli, composing, sweeps
from tests import patience
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import slurm

__all__ = ["slurm"]  # a fixture

PAGE = (Path(__file__).parent.parent / "docs" / "clusters.md").read_text()
SHORT = "data=digits data.subset=256 trainer.max_epochs=1 backbone.width=4 report=false few_labels=null logger=csv"


class Block(NamedTuple):
    """A block of the page, and the comment above it."""

    mark: str
    language: str
    text: str


BLOCKS = [Block(*found) for found in re.findall(r"(?:<!-- ([^\n]*) -->\n)?```(\w+)\n(.*?)```", PAGE, re.DOTALL)]


def marked(mark: str) -> list[Block]:
    return [block for block in BLOCKS if block.mark == mark]


def short(text: str) -> str:
    """The same commands with trainings of some steps."""
    lines = text.splitlines()
    return "\n".join(line.replace("data=digits", SHORT) if " train " in line else line for line in lines)


def test_every_block_is_run_or_says_what_it_needs() -> None:
    assert len(BLOCKS) == PAGE.count("```") // 2 > 8
    odd = [b for b in BLOCKS if b.mark not in ("runs", "runs on slurm") and not b.mark.startswith("needs: ")]
    assert odd == []


def typed(words: list[str]) -> list[str]:
    """What ``ssl-zoo`` is called with in a line that may begin with a launcher."""
    return words[words.index("ssl-zoo") + 1 :]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.mark)
def test_every_command_is_one(block: Block) -> None:
    if block.language == "yaml":
        job = yaml.safe_load(block.text)
        assert job["kind"] == "PyTorchJob" and len(block.text.splitlines()) == 5
        (container,) = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
        lines = [container["command"]]
    else:
        text = block.text.replace("\\\n", "")
        lines = [shlex.split(line) for line in text.splitlines() if "ssl-zoo" in line]
    for name, *words in map(typed, lines):
        assert name in cli.COMMANDS
        with composing.composer() as composer:
            for job in sweeps.plan([word for word in words if word != "-m"], composer).jobs:
                composer.load([word for word in job if not word.startswith("out=")])  # the doctor's own


@pytest.mark.slow
@pytest.mark.parametrize("block", marked("runs"), ids=lambda block: block.text.splitlines()[-1])
def test_blocks_run(block: Block, tmp_path: Path) -> None:
    here = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = patience.run(["bash", "-ec", short(block.text)], 600, cwd=tmp_path, env={**os.environ, **here})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("block", marked("runs on slurm"), ids=lambda block: block.text.splitlines()[-1])
def test_blocks_run_on_slurm(block: Block, slurm: Cluster, tmp_path: Path) -> None:
    text, threads = short(block.text), {"OMP_NUM_THREADS": "1"}
    if text.startswith("#!"):
        job = slurm.sbatch(text, "--partition=nodes", cwd=tmp_path, env=threads)
        assert (job.wait(900), job.status()) == ("COMPLETED", 0), job.output()
    else:
        done = slurm.run("bash", "-ec", text, seconds=900, cwd=tmp_path, env=threads)
        assert done.returncode == 0, done.stdout + done.stderr
    runs = list(tmp_path.glob("**/metrics.csv"))
    assert len(runs) == (0 if " doctor" in text else 2 if " -m " in text else 1)
