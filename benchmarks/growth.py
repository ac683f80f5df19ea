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
from ssl_zoo.data.batch import Batch, DataInfo
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
        method: Any = build.build_method(cfg, DataInfo(10 * batch, None, SIZE, 3, batch)).train()
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
def rates(quick: bool) -> dict[int, list[float]]:
    """Samples a second of ``ssl-zoo train`` with one process and with two (gloo), the batch of each the same.

    As the command reports them (``throughput/samples_per_s``) over windows of steps, the first left out; four runs of
    each number of processes, in turn: a shared machine may be a tenth slower for some minutes.
    """
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(1 if quick else 4):
        for processes, taken in found.items():
            taken += _train(processes, batch=8 if quick else BATCH, steps=4 if quick else 16)
    return found


def _train(processes: int, batch: int, steps: int) -> list[float]:
    window = max(steps // 8, 1)
    with tempfile.TemporaryDirectory() as folder:
        options = ["method=simclr", "data=synthetic", "trainer=cpu", "logger=csv", "report=false"]
        options += ["callbacks=throughput", f"callbacks.throughput.every_n_steps={window}"]
        options += [f"trainer.devices={processes}", f"data.batch_size={processes * batch}"]
        options += [f"data.source.samples={processes * batch * steps}", f"trainer.max_steps={steps}"]
        options += [f"hydra.run.dir={folder}/run"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*COMMAND, *options], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"ssl-zoo train {' '.join(options)} ended with {done.returncode}:\n{done.stderr}")
        with (Path(folder) / "run" / "metrics.csv").open() as file:
            column = [row["throughput/samples_per_s"] for row in csv.DictReader(file)]
    return [float(value) for value in column if value][1:]


def processes(run: Run, size: int) -> Measured:
    return Measured(rates(run.quick)[size], extra={"grows": "processes", "size": size})


def weak_scaling(run: Run) -> Measured:
    """Two processes with twice the batch, against twice what one process does."""
    found = rates(run.quick)
    return Measured(found[2], [2 * rate for rate in found[1]])


CASES = [
    Case("weak_scaling_2", weak_scaling, "samples/s", "2 x one process", bar=">= 0.9",
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
