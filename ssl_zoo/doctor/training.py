"""A tiny training, to its first steps, and the loader of the data that is asked for."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ssl_zoo import build, config, distributed, worker
from ssl_zoo.doctor.findings import Finding, short
from ssl_zoo.doctor.group import wait
from ssl_zoo.samples import leaves

ROWS = 8  # of a process
STEPS = 2
SLOW_IMPORTS = 30.0  # seconds from the start of the process to here, above which they are worth a word
TINY = (
    "method=simclr", "data=synthetic", "data.source.val_samples=8", "backbone=resnet8", "backbone.width=8",
    "method.projector.hidden=[16]", "method.projector.out_features=16", "callbacks=none", "logger=none",
)  # fmt: skip
BUSY = 2.0  # load average for each core, above which timings say little
LOADED = 5.0  # seconds of reading


class First(NamedTuple):
    """Seconds of a training's beginning, and a sum of its weights after two steps."""

    start: float  # from the start of the process, with the imports
    build: float
    first: float
    second: float
    weights: float


class Batch(NamedTuple):
    """A batch of one process as workers would give it."""

    bytes: int
    tensors: int


class _Loss(nn.Module):
    """What DDP wraps: one forward of a method."""

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Any) -> Tensor:
        return self.method.training_loss(batch)["loss"]


def age() -> float:
    """Seconds since this process was started; 0 where the system does not say."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    except OSError:
        return 0.0


def first_steps(device: torch.device, start: float) -> First:
    """Two optimizer steps of a tiny SimCLR over all processes."""
    began = time.perf_counter()
    rows = ROWS * distributed.world_size()
    cfg = config.load([*TINY, f"data.batch_size={rows}", f"data.source.samples={STEPS * rows}"])
    method, data = worker.build_run(cfg)
    worker.prepare(method.to(device), device, False)
    method.bind(rows)
    loss: nn.Module = _Loss(method)
    if distributed.world_size() > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of later versions, about the name of the option
            loss = DistributedDataParallel(loss, broadcast_buffers=False)
    marks = [time.perf_counter()]
    for raw in data.train_dataloader():
        _step(method, loss, data.on_after_batch_transfer(data.transfer_batch_to_device(raw, device, 0), 0))
        wait(device)
        marks.append(time.perf_counter())
    total = sum(float(p.detach().double().abs().sum()) for p in method.parameters())
    return First(start, marks[0] - began, marks[1] - marks[0], marks[2] - marks[1], total)


def _step(method: Any, loss: nn.Module, batch: Any) -> None:
    method.begin_micro_batch(first=True)
    method.bound.optimizer.zero_grad(set_to_none=True)
    loss(batch).backward()
    method.on_after_backward()
    method.bound.optimizer.step()
    method.progress = replace(method.progress, step=method.progress.step + 1)


def judge_first(found: First, load: float, cores: int) -> Finding:
    """Judge the times, where ``load`` processes want one of the cores."""
    total = found.start + found.build + found.first
    told = f"{short(total)} after the start (imports {short(found.start)}, building {short(found.build)}, the step "
    told += f"{short(found.first)}; the second one {short(found.second)})"
    if load > BUSY * cores:
        return Finding("first step", told, f"other programs compute here (load average {load:.1f} on {cores} cores): "
                                           "see which (top), or ask for a node of your own")  # fmt: skip
    if found.start > SLOW_IMPORTS:
        return Finding("first step", told, "imports take long, most often because the environment is on a shared disk: "
                                           "put it on a local one, or into a container")  # fmt: skip
    return Finding("first step", told)


def one_batch(data: Any) -> Batch:
    """The size of a batch of this process, read without workers; of none where data lies in memory."""
    loader = data.train_dataloader()
    if loader.task is None:
        return Batch(0, 0)
    held, loader.workers = loader.workers, 0
    raw = next(iter(loader.peek(0, 1)))
    loader.close()
    loader.workers = held
    samples = raw.samples if isinstance(raw.samples, list) else [raw.samples]
    tensors = [leaf for x in (*samples, *raw.reports.values(), raw.index) for leaf in leaves(x)]
    return Batch(sum(x.nbytes for x in tensors), len(tensors))


def read(data: Any, seconds: float = LOADED) -> tuple[float, float]:
    """Read batches for some time, as a training does that computes nothing.

    Returns:
        Seconds to the first batch, and samples a second of this process after it.
    """
    loader = data.train_dataloader()
    began = time.perf_counter()
    samples, first = 0, 0.0
    while not first or time.perf_counter() - began < first + seconds:
        for raw in loader:
            if first:
                samples += len(raw.index)
            else:
                first = time.perf_counter() - began
            if time.perf_counter() - began >= first + seconds and samples:
                break
    spent = time.perf_counter() - began - first
    data.teardown("fit")
    return first, samples / spent


def judge_loader(first: float, rate: float, where: str) -> Finding:
    """Of all processes together."""
    return Finding("loader", f"{rate:,.0f} samples/s, the first batch after {short(first)}; {where}")


def build_data(cfg: DictConfig, processes: int) -> Any:
    """The data that is asked for, with the workers that one of some processes of this host has.

    Raises:
        ConfigError: If it cannot be read on this host.
    """
    data = build.build_data(cfg)
    data.workers = data.count_workers(processes)
    return data
