"""What one GPU gives: speed, waiting, memory, and whether it computes what the CPU computes.

``python benchmarks/gpu.py`` needs an installed ssl_zoo and a CUDA device, no network and no data set, and takes less
than eight minutes. It prints every number as it comes and keeps all of them in ``gpu.json``: a list of rows
``{name, value, unit, peer, peer_value, ratio, bar, ok}``. A bar is written as it is judged, ``"<= 0.08"``; ``ok`` is
null where there is none. Every section is a process of its own, which is ended when the time is over, so that one
that fails or hangs costs no other's numbers.

Training is measured through Lightning's ``Trainer.fit`` in bfloat16, with uint8 pixels of noise on the device and
views made there, without checkpoints and observers. Times are those of CUDA events and of the host's clock after a
synchronisation. ``device_busy`` is the time in which any kernel or copy ran (torch.profiler) in a step, over the time
of a step without the profiler; ``device_busy_profiled`` is the share inside the profiled steps, which the profiler
itself slows down: a lower bound.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
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
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.data.arrays import Arrays
from ssl_zoo.data.batch import Batch, RawBatch
from ssl_zoo.data.datamodule import DataModule
from ssl_zoo.data.source import Splits
from ssl_zoo.errors import ConfigError
from ssl_zoo.methods.base import Method
from ssl_zoo.optim.schedules import Progress
from ssl_zoo.trainer import make_trainer, precision_of

BUDGET = 450.0  # seconds for all sections
LIMIT = 180.0  # seconds for one of them
LEAST = 20.0  # seconds left under which no section is begun
DISTINCT = 512  # images of noise; a larger set repeats them
# Dense bfloat16 operations per second of the matrix units, from NVIDIA's data sheets; the first name that fits counts.
PEAKS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H200 NVL": 835e12, "H200": 989e12, "H100": 989e12, "A100": 312e12}
DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")  # categories of a trace; the profiler's own ranges are none
TINY = "SSL_ZOO_GPU_TINY"
Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Where a section runs; ``tiny``: every section at sizes of no meaning, so that a test can run it."""

    device: torch.device
    tiny: bool = False


def row(name: str, value: float | None, unit: str, bar: str | None = None, **more: Any) -> Row:
    """One number. ``more``: ``peer`` and ``peer_value`` of a comparison, and whatever explains the number (note)."""
    if value is not None and not math.isfinite(value):
        value, more["note"] = None, f"not finite; {more.get('note', '')}"  # JSON knows no infinity
    peer_value = more.get("peer_value")
    ratio = value / peer_value if value is not None and peer_value else None
    ok = judge(value, bar) if bar else None
    return {"name": name, "value": value, "unit": unit, "peer": None, "peer_value": None, "ratio": ratio, "bar": bar,
            "ok": ok, **more}  # fmt: skip


def judge(value: float | None, bar: str) -> bool:
    """Whether a value meets a bar like ``"<= 0.08"``; what was not measured meets none."""
    sign, limit = bar.split()
    if sign not in ("<=", ">="):
        raise ValueError(f"bar={bar!r}: wanted '<= NUMBER' or '>= NUMBER'")
    if value is None:
        return False
    return value <= float(limit) if sign == "<=" else value >= float(limit)


def unjudged(entry: Row) -> Row:
    """A row of a tiny run: its number says nothing."""
    return {**entry, "peer": None, "peer_value": None, "ratio": None, "bar": None, "ok": None}


def show(entry: Row) -> str:
    value = "-" if entry["value"] is None else f"{entry['value']:.4g}"
    verdict = {True: "met", False: "MISSED", None: ""}[entry["ok"]]
    text = f"{entry['name']:44} {value:>10} {entry['unit']:12} {entry['bar'] or '':10} {verdict:6}"
    if entry["ratio"] is not None:
        text += f" {entry['ratio']:.2f} x {entry['peer']} ({entry['peer_value']:g})"
    return f"{text} {entry.get('note', '')}".rstrip()


def keep(out: Path, rows: Iterable[Row]) -> None:
    """Print each row and add it to the file at once: what ends this process loses nothing that stands there."""
    for entry in rows:
        print(show(entry), flush=True)
        held = [*json.loads(out.read_text()), entry]
        aside = out.with_name(f".{out.name}.part")
        aside.write_text(json.dumps(held, indent=1) + "\n")
        aside.replace(out)


# Speed of training


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


class TimedData(DataModule):
    """A data module whose views a clock times, all of what it does on the device."""

    clock: Clock

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if not self.clock.timing:
            return super().on_after_batch_transfer(batch, dataloader_idx)
        start = self.clock.mark()
        out = super().on_after_batch_transfer(batch, dataloader_idx)
        self.clock.views.append((start, self.clock.mark()))
        return out


def prepare(work: Workload, compiled: bool) -> tuple[DictConfig, TimedData]:
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
    trainer = make_trainer([*observers, clock], [], **options)
    worker.prepare(method, trainer.strategy.root_device, cfg.trainer.compile)
    method.bind(data.batch_size, fused=trainer.precision != "16-mixed")
    trainer.fit(method, datamodule=data)


def count_flops(cfg: DictConfig, data: DataModule, device: torch.device) -> int:
    """Operations of matrix products and convolutions in one step, forward and backward; views are not counted."""
    method = build.build_method(cfg, data.info).to(device)
    raw = moved(raw_batch(data, 0), device)
    batch = DataModule.on_after_batch_transfer(data, raw, 0)
    half = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    with FlopCounterMode(display=False) as counter, half:
        method.training_loss(batch)["loss"].backward()
    return counter.get_total_flops()


def speed(work: Workload, compiled: bool, setting: Setting) -> Iterator[Row]:
    """Train a workload, then tell everything that the clock saw."""
    work = work.tiny() if setting.tiny else work
    cfg, data = prepare(work, compiled and not setting.tiny)
    flops = count_flops(cfg, data, setting.device)
    clock = Clock(work, setting.device)
    fit(cfg, build.build_method(cfg, data.info), data, clock)
    rate, peak = flops / clock.seconds, peak_of(setting.device)
    bars, peer = dict(work.bars), {"peer": work.peer[0], "peer_value": work.peer[1]} if work.peer else {}

    def tell(what: str, value: float | None, unit: str, **more: Any) -> Row:
        name = f"{work.name}_{'compiled' if compiled else 'eager'}/{what}"
        return row(name, value, unit, bars.get(what), **more)

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


# Agreement with the CPU


def conf_names(group: str) -> list[str]:
    """The files of a folder of conf/."""
    entries = files("ssl_zoo.conf").joinpath(group).iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml"))


def raw_batch(data: DataModule, micro: int) -> RawBatch:
    """Batch ``micro`` of the training samples in their stored order, on the CPU."""
    slot = torch.arange(micro * data.batch_size, (micro + 1) * data.batch_size)
    labels = data.train_labels
    return RawBatch(data.train.fetch(slot), slot, None if labels is None else labels[slot], slot, 0, micro)


def moved(raw: RawBatch, device: torch.device) -> RawBatch:
    label = None if raw.label is None else raw.label.to(device)
    return replace(raw, images=raw.images.to(device), index=raw.index.to(device), label=label, slot=raw.slot.to(device))


def twins(data: DataModule, micro: int, device: torch.device) -> tuple[Batch, Batch]:
    """The same batch with its views made on the CPU, and made on the device."""
    raw = raw_batch(data, micro)
    return data.on_after_batch_transfer(raw, 0), data.on_after_batch_transfer(moved(raw, device), 0)


# What some methods need with so few samples, and where there is no run to take a teacher from.
SMALL = {
    "crd": ("method.teacher.timm=test_resnet",),
    "distill": ("method.teacher.timm=test_resnet",),
    "pcl": ("method.clusters=[40,48,64]", "method.negatives=4"),
    "w_mse": ("method.sub_batch=32", "method.projector.out_features=16"),
}


def small_config(*overrides: str) -> DictConfig:
    sizes = ("data.image_size=32", "data.batch_size=32", "data.source.samples=128", "data.source.val_samples=0")
    return config.load(["data=synthetic", *sizes, *overrides])


def random_numbers(setting: Setting) -> Iterator[Row]:
    """Every kind of draw, for 4,096 slots."""
    slot = torch.arange(4096)
    draws = [Draw(stream_key(0, "train", 3), s) for s in (slot, slot.to(setting.device))]
    kinds: dict[str, Callable[[Draw], torch.Tensor]] = {
        "uniform": lambda draw: draw.uniform("x", 16),
        "normal": lambda draw: draw.normal("x", 16),
        "integers": lambda draw: draw.integers("x", 1000, 16),
        "permutation": lambda draw: draw.permutation(16, "x"),
    }
    for name, make in kinds.items():
        here, there = (make(draw).cpu() for draw in draws)
        yield row(f"random_numbers/{name}", int((here != there).sum()), "differ", "<= 0", note=f"of {here.numel()}")


def pipelines(setting: Setting) -> Iterator[tuple[str, DataModule]]:
    """Every augmentation of conf/ for images, at both scales, with a data set that it fits."""
    large = ("data.image_size=32" if setting.tiny else "data.image_size=224", "data.batch_size=8")
    for name in ["simclr"] if setting.tiny else conf_names("augmentation"):
        for scale, sizes in {"small": (), "large": large}.items():
            cfg = small_config(f"augmentation={name}", f"scale={scale}", *sizes)
            ops = [str(next(iter(op), "")) for view in cfg.augmentation.views for op in view.ops]
            if all(op.startswith("image/") for op in ops):
                yield f"{name} {scale}", build.build_data(cfg)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest of two tensors; what is no number is infinitely far."""
    return float((a - b).abs().nan_to_num(nan=math.inf).max())


def views(setting: Setting) -> Iterator[Row]:
    """How much pixels differ, over every augmentation. Operations on 8-bit values may round to the next one."""
    worst, at, count, far, pixels = -1.0, "", 0, 0, 0
    for name, data in pipelines(setting):
        here, there = twins(data, 0, setting.device)
        for a, b in zip(here.views, there.views, strict=True):
            error = difference(a, b.cpu())
            worst, at = (error, name) if error > worst else (worst, at)
            far += int(((a - b.cpu()).abs() > 2 / 255).sum())
            pixels += a.numel()
        count += 1
    note = f"of {count} pipelines, more than 2/255 apart; the largest difference is {worst:.3g} (normalised), of {at}"
    yield row("views_cpu_gpu", far / pixels, "of pixels", "<= 1e-06", note=note)


def step(method: Method, batch: Batch) -> torch.Tensor:
    """One optimizer step in the order that Lightning and the base keep; the loss, not read."""
    method.begin_micro_batch(first=True)
    loss = method.training_loss(batch)["loss"]
    method.bound.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    method.on_after_backward()
    method.configure_gradient_clipping(method.bound.optimizer)
    method.bound.optimizer.step()
    method.progress = replace(method.progress, step=method.progress.step + 1)
    return loss.detach()


def ready(cfg: DictConfig, data: DataModule, device: torch.device) -> Method:
    """A method with its optimizer, past the first step of a warm-up, whose rate is 0."""
    method = build.build_method(cfg, data.info).to(device)
    method.progress = Progress(step=2, total=10, steps_per_epoch=4)
    method.bind(data.batch_size)
    return method.train()


def methods(setting: Setting) -> Iterator[tuple[str, DictConfig | None, Any]]:
    """Every method of conf/ with data; or with no configuration, and why these images do not suit it."""
    for name in ["simclr", "moco_v2"] if setting.tiny else conf_names("method"):
        try:
            cfg = small_config(f"method={name}", *SMALL.get(name, ()))
            config.quick_check(cfg)
            build.check_signatures(cfg)
            yield name, cfg, build.build_data(cfg)
        except ConfigError as error:
            yield name, None, str(error).splitlines()[0]


def losses(setting: Setting) -> Iterator[Row]:
    """Three float32 steps of each method on the same views: the largest relative difference of a loss."""
    for name, cfg, data in methods(setting):
        if cfg is None:
            yield row(f"losses_cpu_gpu/{name}", None, "relative", note=f"not run: {data}")
            continue
        worst, note = attempt(partial(worst_loss, cfg, data, setting))
        yield row(f"losses_cpu_gpu/{name}", worst, "relative", "<= 0.001", note=note or "three steps")


def worst_loss(cfg: DictConfig, data: DataModule, setting: Setting) -> float:
    pair = [ready(cfg, data, device) for device in (torch.device("cpu"), setting.device)]
    worst = 0.0
    for micro in range(3):
        here, there = twins(data, micro, setting.device)
        there.views = [view.to(setting.device) for view in here.views]
        # TF32, the default of convolutions, keeps 10 bits of the mantissa.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            a, b = (float(step(method, batch)) for method, batch in zip(pair, (here, there), strict=True))
        worst = max(worst, abs(a - b) / max(abs(a), 1e-6)) if math.isfinite(a) and math.isfinite(b) else math.nan
    return worst


def attempt(measure: Callable[[], Any]) -> tuple[Any, str]:
    """What a measurement gives, or None and its error: one method that fails leaves the others their rows."""
    try:
        return measure(), ""
    except Exception as error:
        return None, f"{type(error).__name__} at {place(error)}: {str(error).splitlines()[0]}"


def agreement(setting: Setting) -> Iterator[Row]:
    yield from random_numbers(setting)
    yield from views(setting)
    yield from losses(setting)


# Waiting of the host


@contextmanager
def refused(device: torch.device) -> Iterator[list[str]]:
    """Operations that make the host wait for the device raise in here; the list gets the place of the first."""
    found: list[str] = []
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield found
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        found.append(place(error))
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def place(error: BaseException) -> str:
    """The innermost line of ssl_zoo in a traceback, else the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    package = Path(build.__file__).parent
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(package)]
    frame = (own or list(frames))[-1]
    file = Path(frame.filename).relative_to(package.parent) if own else Path(Path(frame.filename).name)
    return f"{file.as_posix()}:{frame.lineno} ({frame.line})"


def waits_of_step(cfg: DictConfig, data: DataModule, device: torch.device) -> list[str]:
    """Where the third step waits: its batch, its views and the whole of its training step, in bfloat16."""
    method, stream = ready(cfg, data, device), iter(data.train_dataloader())

    def one() -> None:
        batch = data.on_after_batch_transfer(moved(next(stream), device), 0)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            step(method, batch)

    one()  # buffers are made and constants are moved
    one()
    with refused(device) as found:
        one()
    return found


def waits_of_views(data: DataModule, device: torch.device) -> list[str]:
    raws = [moved(raw_batch(data, micro), device) for micro in range(2)]
    data.on_after_batch_transfer(raws[0], 0)
    with refused(device) as found:
        data.on_after_batch_transfer(raws[1], 0)
    return found


def host_waits(setting: Setting) -> Iterator[Row]:
    """One row for every method, and one for every pipeline that waits."""
    for name, cfg, data in methods(setting):
        if cfg is None:
            yield row(f"host_waits/{name}", None, "places", note=f"not run: {data}")
            continue
        found, note = attempt(partial(waits_of_step, cfg, data, setting.device))
        waits = None if found is None else len(found)
        yield row(f"host_waits/{name}", waits, "places", "<= 0", note=note or "; ".join(found))
    places = {name: found for name, data in pipelines(setting) if (found := waits_of_views(data, setting.device))}
    note = "; ".join(f"{name}: {found[0]}" for name, found in places.items())
    yield row("host_waits_of_views", len(places), "pipelines", "<= 0", note=note)


def environment(setting: Setting) -> Iterator[Row]:
    cuda = setting.device.type == "cuda"
    device = torch.cuda.get_device_name(setting.device) if cuda else "CPU"
    seen = {"device": device, "torch": torch.__version__, "cuda": torch.version.cuda, "lightning": pl.__version__,
            "python": sys.version.split()[0], "cores": os.cpu_count(), "tiny": setting.tiny}  # fmt: skip
    yield row("environment", None, "", note=", ".join(f"{k} {v}" for k, v in seen.items())) | {"environment": seen}


# Cheap ones first: compiling takes longest, and a section that no time is left for is only said to be missing.
SECTIONS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "environment": environment,
    "vit_small_eager": partial(speed, VIT, False),
    "resnet50_eager": partial(speed, RESNET50, False),
    "resnet18_eager": partial(speed, CIFAR, False),
    "agreement": agreement,
    "host_waits": host_waits,
    "vit_small_compiled": partial(speed, VIT, True),
    "resnet18_compiled": partial(speed, CIFAR, True),
    "resnet50_compiled": partial(speed, RESNET50, True),
}


def quiet() -> None:
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def end(process: subprocess.Popen[bytes], seconds: float) -> str | None:
    """Wait for a section; why it gave not all of its rows, or None."""
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"stopped after {seconds:.0f} s; what it had printed by then stands"
    return f"ended with exit code {code}; its error stands above" if code else None


def run_all(out: Path, names: Sequence[str], tiny: bool, budget: float = BUDGET) -> None:
    """Each section in a process of its own, as long as there is time."""
    began = time.monotonic()
    out.write_text("[]\n")
    for name in names:
        left = budget - (time.monotonic() - began)
        problem: str | None = f"skipped: {max(left, 0):.0f} s of {budget:.0f} s are left, fewer than {LEAST:.0f}"
        if left >= LEAST:
            command = [sys.executable, str(Path(__file__).resolve()), f"--section={name}", f"--out={out.resolve()}"]
            problem = end(subprocess.Popen(command + ["--tiny"] * tiny), min(left, LIMIT))
        if problem:
            keep(out, [{**row(f"section/{name}", None, "", note=problem), "ok": False}])
    judged = [entry["ok"] for entry in json.loads(out.read_text()) if entry["ok"] is not None]
    print(f"{sum(judged)} of {len(judged)} bars met in {time.monotonic() - began:.0f} s; all rows: {out}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", default=os.environ.get(TINY) == "1", help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    if not chosen.tiny and not torch.cuda.is_available():
        print("benchmarks/gpu.py: torch finds no CUDA device here; nothing was run, every figure is unmeasured")
        return 0
    if chosen.section is None:
        run_all(chosen.out, list(SECTIONS), chosen.tiny)
        return 0
    quiet()
    setting = Setting(torch.device("cpu") if chosen.tiny else torch.device("cuda", 0), chosen.tiny)
    rows = SECTIONS[chosen.section](setting)
    keep(chosen.out, map(unjudged, rows) if chosen.tiny else rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
