"""(g) How time and memory grow with images, batch, views, prototypes, queue and processes."""

from __future__ import annotations

import csv
import functools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from ssl_zoo import build, config, worker
from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.benchmarks.rows import Case, Measured, Run
from ssl_zoo.benchmarks.steps import one_step
from ssl_zoo.benchmarks.timing import Peak, threads
from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.source import image_info
from ssl_zoo.optim.schedules import Progress

SIZE, BATCH = 32, 128
# What grows: the sizes and the configuration of each; "views" is a number of tensors, not a key of it.
STEPS: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "batch": ((64, 128, 256), ("method=simclr",)),
    "views": ((2, 4, 8), ("method=swav", "method.queue_size=0")),
    "prototypes": ((300, 3000, 30000), ("method=swav", "method.queue_size=0", "method.prototypes={}")),
    "queue": ((4096, 16384, 65536), ("method=moco_v2", "batch_norm.group=null", "method.queue_size={}")),
}
IMAGES = (2048, 8192, 32768)
COMMAND = (sys.executable, "-c", "import sys; from ssl_zoo.cli import entry; sys.exit(entry())", "train")


def training_steps(overrides: list[str], views: int, batch: int, count: int, cores: int) -> tuple[list[float], float]:
    """Seconds of training steps on random views, and by how many MiB they and the method's state raised the peak."""
    sizes = [f"data.image_size={SIZE}", f"data.batch_size={batch}", "backbone.width=16"]
    cfg = config.load(["data=synthetic", *sizes, *overrides])
    seconds = []
    with threads(cores), Peak() as peak:
        method: Any = build.build_method(cfg, image_info(10 * batch, None, SIZE, 3, batch)).train()
        method.bind(batch)
        worker.prepare(method, torch.device("cpu"), False)
        shown = [torch.randn(batch, 3, SIZE, SIZE) for _ in range(views)]
        slots = torch.arange(batch)
        for step in range(count + 1):
            method.progress = Progress(step, 100, 10)
            began = time.perf_counter()
            one_step(method, Batch(shown, slots, None, BatchRNG(0, 0, step, slots)))
            seconds.append(time.perf_counter() - began)
    return seconds[1:], peak.mib


def step(run: Run, grows: str, size: int) -> Measured:
    overrides = [text.format(size) for text in STEPS[grows][1]]
    batch = size if grows == "batch" else BATCH
    views = size if grows == "views" else 2
    if run.quick:
        overrides, batch = [*overrides, "backbone.width=4"], 8
    seconds, memory = run.child(training_steps, overrides, views, batch, run.pick(3, 1), run.cores)
    return Measured(seconds, extra={"grows": grows, "size": size, "memory_mib": memory}).times(1e3)


def all_views(samples: int, cores: int) -> tuple[list[float], float]:
    """Seconds of one pass over data in memory with both views made, and the peak from reading the data on, in MiB."""
    options = ["data=synthetic", f"data.source.samples={samples}", f"data.batch_size={min(samples, 256)}"]
    cfg = config.load([*options, "trainer=cpu"])
    with threads(cores), Peak() as peak:
        data = build.build_data(cfg)
        began = time.perf_counter()
        for raw in data.train_dataloader():
            data.on_after_batch_transfer(raw, 0)
        seconds = time.perf_counter() - began
    return [seconds], peak.mib


def images(run: Run, size: int) -> Measured:
    seconds, memory = run.child(all_views, run.pick(size, 64), run.cores)
    return Measured(seconds, extra={"grows": "images", "size": size, "memory_mib": memory})


@functools.cache
def rates(quick: bool) -> dict[str, list[float]]:
    """Samples a second of ``ssl-zoo train``, the batch of every process the same.

    Of ``1`` process, of ``2`` of one run (gloo), and of two runs of a process each at the same time, ``apart``, both
    together. As the command reports them (``throughput/samples_per_s``) over windows of steps, the first left out; four
    times in turn: a shared machine may be a tenth slower for some minutes.
    """
    size: Any = {"batch": 8, "steps": 4} if quick else {"batch": BATCH, "steps": 16}
    found: dict[str, list[float]] = {"1": [], "2": [], "apart": []}
    for _ in range(1 if quick else 4):
        found["1"] += _train(1, **size)[0]
        found["2"] += _train(2, **size)[0]
        found["apart"] += map(sum, zip(*_train(1, **size, runs=2), strict=True))
    return found


def _train(processes: int, batch: int, steps: int, runs: int = 1) -> list[list[float]]:
    """The rates of so many runs at the same time."""
    window = max(steps // 8, 1)
    with tempfile.TemporaryDirectory() as folder:
        options = ["method=simclr", "data=synthetic", "trainer=cpu", "logger=csv", "report=false"]
        options += ["callbacks=throughput", f"callbacks.throughput.every_n_steps={window}"]
        options += [f"trainer.devices={processes}", f"data.batch_size={processes * batch}"]
        options += [f"data.source.samples={processes * batch * steps}", f"trainer.max_steps={steps}"]
        commands = [[*COMMAND, *options, f"hydra.run.dir={folder}/{run}"] for run in range(runs)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        children = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for command in commands]
        if runs > 1:
            _pin(children)
        for command, child in zip(commands, children, strict=True):
            if child.wait():
                raise RuntimeError(f"{' '.join(command[3:])} ended with {child.returncode}; its own error is above")
        return [_rates(Path(folder) / str(run) / "metrics.csv") for run in range(runs)]


def _pin(children: list[subprocess.Popen[bytes]]) -> None:
    """To a core each, as the processes of one run are."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for child, core in zip(children, cores, strict=False):
        os.sched_setaffinity(child.pid, [core])


def _rates(metrics: Path) -> list[float]:
    with metrics.open() as file:
        column = [row["throughput/samples_per_s"] for row in csv.DictReader(file)]
    return [float(value) for value in column if value][1:]


def processes(run: Run, size: int) -> Measured:
    return Measured(rates(run.quick)[str(size)], extra={"grows": "processes", "size": size})


def weak_scaling(run: Run) -> Measured:
    """Two processes of one run, against two runs at the same time that do not talk."""
    found = rates(run.quick)
    return Measured(found["2"], found["apart"])


CASES = [
    Case("weak_scaling_2", weak_scaling, "samples/s", "two runs that do not talk", bar=">= 0.93",
         note="SimCLR at 32 px, all defaults, batch 128 a process of one thread; wants two free cores"),
    *(Case(f"growth_images_{n}", functools.partial(images, size=n), "s") for n in IMAGES),
    *(
        Case(f"growth_{grows}_{size}", functools.partial(step, grows=grows, size=size), "ms")
        for grows, (sizes, _) in STEPS.items()
        for size in sizes
    ),
    *(Case(f"growth_processes_{n}", functools.partial(processes, size=n), "samples/s") for n in (1, 2)),
]

if __name__ == "__main__":
    from ssl_zoo.benchmarks.suite import alone

    sys.exit(alone(__file__))
