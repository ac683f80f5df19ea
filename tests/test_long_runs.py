"""2,000 steps take no more memory, files or time for a step at their end than when they had settled.

``pytest tests/test_long_runs.py -s`` prints the figures.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest

from tests.cli import commands

STEPS, EVERY = 2000, 20
SETTLED, END = range(500, 1001), range(1500, STEPS + 1)
# 100 steps an epoch: twenty evaluations, checkpoints, epochs of the loader, clusterings.
RUN = [
    "data=synthetic", "data.source.samples=800", "data.source.val_samples=64", "data.image_size=16",
    "data.batch_size=8", "backbone.width=8", "trainer=cpu", "trainer.max_epochs=20", "report=false",
]  # fmt: skip
NARROW = ["method.projector.hidden=[16]", "method.projector.out_features=8"]
METHODS = {
    "simclr": NARROW,
    "moco_v2": [*NARROW, "method.queue_size=64", "batch_norm.group=4"],
    "swav": [*NARROW, "method.prototypes=32", "method.queue_size=64"],
    "dino": ["method.projector.hidden=[16,16]", "method.projector.bottleneck=8", "method.projector.out_features=64"],
    "deepcluster_v2": [*NARROW, "method.clusters=[24,32]"],
}
MEMORY = 4.0  # MiB that the largest memory may grow by
TIME = 1.1  # times the CPU seconds of a step, as they are or in yardsticks: what a run adds is in both, noise in one


class Taken(NamedTuple):
    """In a part of a run."""

    memory: float  # MiB, the most
    files: int  # the fewest: threads that write logs and heartbeats have one open for moments
    seconds: float  # CPU seconds of a step, the median
    yardstick: float  # CPU seconds of a fixed piece of work, the median


def taken(rows: list[list[float]], steps: range) -> Taken:
    chosen = [row for row in rows if row[0] in steps]
    spans = [(after[3] - before[3]) / EVERY for before, after in zip(chosen, chosen[1:], strict=False)]
    memory, files = max(row[1] for row in chosen) / 1024, int(min(row[2] for row in chosen))
    return Taken(memory, files, median(spans), median(row[4] for row in chosen))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", METHODS)
def test_a_long_run_stays_as_it_settled(name: str, tmp_path: Path) -> None:
    out = tmp_path / "watched"
    watch = f"+callbacks.watch={{_target_: tests.watch.Watch, out: {out}, every: {EVERY}}}"
    running = commands.start("train", f"method={name}", *RUN, *METHODS[name], watch, cwd=tmp_path)
    done = running.wait(seconds=1200)
    assert done.code == 0, done.err
    rows = [[float(word) for word in line.split()] for line in out.read_text().splitlines()]
    assert rows[-1][0] == STEPS
    early, late = taken(rows, SETTLED), taken(rows, END)
    print(
        f"\n{name}: steps {SETTLED[0]}-{SETTLED[-1]}, then {END[0]}-{END[-1]}: "
        f"{early.memory:.1f} and {late.memory:.1f} MiB, {early.files} and {late.files} open files, "
        f"{early.seconds * 1e3:.1f} and {late.seconds * 1e3:.1f} ms of CPU a step where the yardstick takes "
        f"{early.yardstick * 1e3:.1f} and {late.yardstick * 1e3:.1f}"
    )
    assert late.memory - early.memory <= MEMORY
    assert late.files <= early.files
    growth, of_the_machine = late.seconds / early.seconds, late.yardstick / early.yardstick
    assert min(growth, growth / of_the_machine) <= TIME
