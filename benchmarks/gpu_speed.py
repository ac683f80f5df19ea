"""Speed of training on a GPU, through Lightning, and what the device did in that time."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Checkpoint
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from ssl_zoo import build, config, worker
from ssl_zoo.benchmarks.gpu_agreement import raw_batch
from ssl_zoo.benchmarks.gpu_rows import Row, Setting, row
from ssl_zoo.data.image.arrays import Arrays
from ssl_zoo.data.image.datamodule import ImageData
from ssl_zoo.data.source import Splits
from ssl_zoo.methods.base import Method
from ssl_zoo.trainer import make_trainer, precision_of

DISTINCT = 512  # images of noise; a larger set repeats them
# Dense bfloat16 operations per second of the matrix units, from NVIDIA's data sheets; the first name that fits counts.
PEAKS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H200 NVL": 835e12, "H200": 989e12, "H100": 989e12, "A100": 312e12}
DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")  # categories of a trace; the profiler's own ranges are none


@dataclass(frozen=True)
class Workload:
    """A run to measure: so many steps to warm up, to time, and to profile."""

    name: str
    overrides: tuple[str, ...]
    stored: int  # pixels of the images as stored
    batch: int
    steps: tuple[int, int, int]
    samples: int | None = None  # None: all steps are in one epoch
    bars: tuple[tuple[str, str], ...] = ()
    peer: tuple[str, float] | None = None  # of samples_per_s

    @property
    def size(self) -> int:
        return self.samples or self.batch * sum(self.steps)

    def tiny(self) -> Workload:
        """The same with hardly any work, for a CPU."""
        small = ("scale=small", "data.image_size=16", "data.batch_size=8", "trainer.accelerator=cpu",
                 f"backbone={'vit_mini' if 'backbone=vit_small' in self.overrides else 'resnet8'}")  # fmt: skip
        samples = self.samples and 24
        return replace(self, overrides=(*self.overrides, *small), stored=20, batch=8, steps=(3, 6, 2), samples=samples)


SHARES = (("augmentation_share", "<= 0.08"), ("device_busy", ">= 0.95"))
LARGE = ("scale=large", "data.image_size=224", "data.batch_size=256")
VIT = Workload("simclr_vit_small_224", ("backbone=vit_small", *LARGE), 256, 256, (8, 24, 6),
               bars=(*SHARES, ("samples_per_s", ">= 3500")), peer=("best published", 871.0))  # fmt: skip
RESNET50 = Workload("simclr_resnet50_224", ("backbone=resnet50", *LARGE), 256, 256, (8, 20, 6),
                    bars=(*SHARES, ("views_per_s", ">= 2500")))  # fmt: skip
# One epoch of 97 steps to warm up, two to time.
CIFAR = Workload("simclr_resnet18_32", ("backbone=resnet18", "data.image_size=32", "data.batch_size=512"), 32, 512,
                 (97, 194, 20), samples=50_000, bars=(*SHARES, ("epoch_seconds", "<= 4")))  # fmt: skip


def noise(samples: int, side: int, channels: int, **_: Any) -> Splits:
    """Uniform noise, unlabelled, ``uint8 [samples, channels, side, side]``."""
    generator = torch.Generator().manual_seed(0)
    shape = (min(samples, DISTINCT), channels, side, side)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return Splits(Arrays(images.repeat(-(-samples // len(images)), 1, 1, 1)[:samples], None, None), None)


class Clock(Checkpoint):
    """Times the steps of a workload. A checkpoint callback, because Lightning adds one that writes where none is."""

    def __init__(self, work: Workload, device: torch.device) -> None:
        self.work = work
        self.cuda = device.type == "cuda"
        self.timing = False
        self.views: list[tuple[Any, Any]] = []
        self.first = self.seconds = self._began = 0.0  # of the first step; of a step
        self.share = 0.0  # of the views in a step
        self.peak: int | None = None  # bytes
        self.profiler = profile(activities=[ProfilerActivity.CUDA if self.cuda else ProfilerActivity.CPU])

    def mark(self) -> Any:
        """A moment on the device's own time line, or on a CPU on the host's."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start: Any, end: Any) -> float:
        """Seconds."""
        return start.elapsed_time(end) / 1000 if self.cuda else end - start

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def on_train_start(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        warm, timed, profiled = self.work.steps
        if trainer.global_step == 1:
            self.synchronize()
            self.first = time.perf_counter() - self._began
        if trainer.global_step == warm:
            self._start()
        if trainer.global_step == warm + timed:
            self._stop()
            self.profiler.start()
        if trainer.global_step == warm + timed + profiled:
            self.synchronize()
            self.profiler.stop()

    def _start(self) -> None:
        self.synchronize()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        self._mark, self._began, self.timing = self.mark(), time.perf_counter(), True

    def _stop(self) -> None:
        end, self.timing = self.mark(), False
        self.synchronize()
        self.seconds = (time.perf_counter() - self._began) / self.work.steps[1]
        self.share = sum(self.between(*pair) for pair in self.views) / self.between(self._mark, end)
        self.peak = torch.cuda.max_memory_allocated() if self.cuda else None

    def intervals(self) -> list[tuple[float, float]]:
        """``(start, end)`` in microseconds of everything that ran on the device in the profiled steps."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            self.profiler.export_chrome_trace(str(path))
            events = json.loads(path.read_text())["traceEvents"]
        wanted = DEVICE_WORK if self.cuda else ("cpu_op",)
        return [(e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") in wanted and "dur" in e]


def covered(intervals: Iterable[tuple[float, float]], since: float = -math.inf) -> float:
    """Length of the union of intervals, after ``since``."""
    total, reached = 0.0, since
    for start, end in sorted(intervals):
        total += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return total


def busy_share(intervals: list[tuple[float, float]]) -> float:
    """Share of the time in which something ran, without the first quarter, in which the host is not yet ahead."""
    begin, end = min(start for start, _ in intervals), max(end for _, end in intervals)
    since = begin + (end - begin) / 4
    return covered(intervals, since) / (end - since)


class TimedData(ImageData):
    """A data module whose views a clock times, all of what it does on the device."""

    clock: Clock

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if not self.clock.timing:
            return super().on_after_batch_transfer(batch, dataloader_idx)
        start = self.clock.mark()
        out = super().on_after_batch_transfer(batch, dataloader_idx)
        self.clock.views.append((start, self.clock.mark()))
        return out


def prepare(work: Workload, compiled: bool | str) -> tuple[DictConfig, TimedData]:
    """The configuration of a workload, and its data, still on the CPU."""
    steps = f"trainer.max_steps={sum(work.steps)}"
    always = ("method=simclr", "data=synthetic", "callbacks=nan_guard", "logger=none", "trainer.max_epochs=-1", steps)
    cfg = config.load([*always, *work.overrides, f"trainer.compile={str(compiled).lower()}"])
    options = {key: value for key, value in config.plain(cfg)["data"].items() if key not in ("_target_", "source")}
    return cfg, TimedData(partial(noise, samples=work.size, side=work.stored), **options)


def fit(cfg: DictConfig, method: Method, data: TimedData, clock: Clock) -> None:
    """Train as ``ssl_zoo.worker`` does, less its files and its table."""
    data.clock = clock
    observers = [instantiate(node, _convert_="all") for node in cfg.callbacks.values()]
    options = {**config.plain(cfg)["trainer"], "devices": 1, "precision": precision_of(cfg)}
    trainer = make_trainer([*observers, clock], [], ".", None, **options)
    worker.prepare(method, trainer.strategy.root_device, cfg.trainer.compile)
    trainer.fit(method, datamodule=data)


def count_flops(cfg: DictConfig, data: ImageData, device: torch.device) -> int:
    """Operations of matrix products and convolutions in one step, forward and backward; views are not counted."""
    method = build.build_method(cfg, data.info).to(device)
    raw = raw_batch(data, 0).to(device)
    batch = ImageData.on_after_batch_transfer(data, raw, 0)
    half = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    with FlopCounterMode(display=False) as counter, half:
        method.training_loss(batch)["loss"].backward()
    return counter.get_total_flops()


def speed(work: Workload, compiled: bool | str, setting: Setting) -> Iterator[Row]:
    """Train a workload, then tell everything that the clock saw; ``compiled`` as ``trainer.compile``."""
    how = compiled if isinstance(compiled, str) else "compiled" if compiled else "eager"
    work = work.tiny() if setting.tiny else work
    cfg, data = prepare(work, compiled and not setting.tiny)
    flops = count_flops(cfg, data, setting.device)
    clock = Clock(work, setting.device)
    fit(cfg, build.build_method(cfg, data.info), data, clock)
    rate, peak = flops / clock.seconds, peak_of(setting.device)
    bars, peer = dict(work.bars), {"peer": work.peer[0], "peer_value": work.peer[1]} if work.peer else {}

    def tell(what: str, value: float | None, unit: str, **more: Any) -> Row:
        return row(f"{work.name}_{how}/{what}", value, unit, bars.get(what), **more)

    yield tell("samples_per_s", work.batch / clock.seconds, "samples/s", **peer)
    yield tell("views_per_s", 2 * work.batch / clock.seconds, "views/s", note="two views a sample")
    if work.samples:
        yield tell("epoch_seconds", clock.seconds * (work.samples // work.batch), "s")
    yield tell("augmentation_share", clock.share, "of a step")
    yield tell("peak_memory", clock.peak and clock.peak / 2**30, "GiB", note="with the pixels of the whole set")
    yield tell("matrix_rate", rate / 1e12, "TFLOP/s", note=f"{flops:.4g} operations a step, forward and backward")
    known = "" if peak else "the peak of this device is not in the table"
    yield tell("matrix_share", rate / peak if peak else None, "of the peak", note=known)
    yield tell("first_step", clock.first, "s", note="with compiling" if cfg.trainer.compile else "")
    intervals = clock.intervals()
    kernels = covered(intervals) / 1e6 / work.steps[2]
    seen = "" if intervals else "unmeasured: the profiler saw nothing of the device"
    yield tell("device_busy", kernels / clock.seconds if intervals else None, "of a step", note=seen)
    inside = busy_share(intervals) if intervals else None
    yield tell("device_busy_profiled", inside, "of the time", note=seen or "a lower bound")


def peak_of(device: torch.device) -> float | None:
    """Dense bfloat16 operations per second, None for a device that is not in the table."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for known, peak in PEAKS.items() if known in name), None)
