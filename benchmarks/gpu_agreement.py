"""Whether a GPU computes what the CPU computes: random numbers, views, losses."""

from __future__ import annotations

import itertools
import math
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from ssl_zoo import build, config
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.benchmarks.gpu_rows import Row, Setting, row
from ssl_zoo.benchmarks.steps import one_step
from ssl_zoo.data.batch import Batch, RawBatch
from ssl_zoo.data.datamodule import STREAM, DataModule
from ssl_zoo.errors import ConfigError
from ssl_zoo.methods.base import Method
from ssl_zoo.optim.schedules import Progress


def conf_names(group: str) -> list[str]:
    """The files of a folder of conf/."""
    entries = files("ssl_zoo.conf").joinpath(group).iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml"))


def raw_batch(data: DataModule, micro: int) -> RawBatch:
    """Batch ``micro`` of the training samples in their stored order, on the CPU."""
    slot = micro * data.batch_size
    index, labels = torch.arange(slot, slot + data.batch_size), data.train_labels
    return RawBatch(data.train.fetch(index), index, None if labels is None else labels[index], slot, 0, micro)


def twins(data: DataModule, micro: int, device: torch.device) -> tuple[Batch, Batch]:
    """The same batch with its views made on the CPU, and made on the device."""
    raw = raw_batch(data, micro)
    return data.on_after_batch_transfer(raw, 0), data.on_after_batch_transfer(raw.to(device), 0)


APART = 2 / 255  # of pixel values in [0, 1]
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


def pipelines(setting: Setting) -> Iterator[tuple[str, Any]]:
    """Every augmentation of conf/ for images, at both scales, with a data set that it fits."""
    large = ("data.image_size=32" if setting.tiny else "data.image_size=224", "data.batch_size=8")
    for name in ["simclr"] if setting.tiny else conf_names("augmentation"):
        for scale, sizes in {"small": (), "large": large}.items():
            cfg = small_config(f"augmentation={name}", f"scale={scale}", *sizes)
            ops = [str(next(iter(op), "")) for view in cfg.augmentation.views for op in view.ops]
            if all(op.startswith("image/") for op in ops):
                yield f"{name} {scale}", build.build_data(cfg)


def largest(difference: torch.Tensor) -> float:
    """What is no number is infinitely far."""
    return float(difference.abs().nan_to_num(nan=math.inf).max())


def replayed(data: DataModule, device: torch.device) -> tuple[int, bool]:
    """In how many pixels views differ from those of the same pipeline without a CUDA graph, over two epochs; and
    whether there was a graph."""
    changed = 0
    for epoch, micro in itertools.product(range(2), range(4)):
        raw = raw_batch(data, micro).to(device)
        raw.epoch = epoch
        batch = data.on_after_batch_transfer(raw, 0)
        plain, reports = data.views(raw.samples, Draw(stream_key(data.seed, STREAM, epoch), batch.rng.slot))
        pairs = [*zip(plain, batch.views, strict=True), *((reports[name], batch.extra[name]) for name in reports)]
        changed += sum(int((a != b).sum()) for a, b in pairs)
    return changed, data.captured.recording


def views(setting: Setting) -> Iterator[Row]:
    """The largest difference of a pixel over every augmentation; where operations on 8-bit values round to the next
    one of them, how many pixels differ instead; and how many differ between graphs and pipelines."""
    worst, at, count, far, pixels = -1.0, "", 0, 0, 0
    changed, graphs = 0, 0
    for name, data in pipelines(setting):
        rounds = any(getattr(op, "rounds", False) for op in data.views.modules())
        here, there = twins(data, 0, setting.device)
        for a, b in zip(here.views, there.views, strict=True):
            apart = (a - b.cpu()) / data.views.normalize.scale.cpu()
            if rounds:
                far, pixels = far + int((apart.abs() > APART).sum()), pixels + a.numel()
            elif (error := largest(apart)) > worst:
                worst, at = error, name
        count += not rounds
        differ, graph = replayed(data, setting.device)
        changed, graphs = changed + differ, graphs + graph
    yield row("views_of_graphs", changed, "differ", "<= 0", note=f"numbers, in eight batches of {graphs} CUDA graphs")
    note = f"of pixels in [0, 1], of {count} pipelines; worst: {at}"
    yield row("views_cpu_gpu", worst, "difference", f"<= {APART:.4f}", note=note)
    if pixels:
        note = f"of pixels differ by more than 2/255 in the other pipelines, which round to 8 bits ({pixels} pixels)"
        yield row("views_8_bit_cpu_gpu", far / pixels, "of pixels", "<= 1e-05", note=note)


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


def losses_agree(setting: Setting) -> Iterator[Row]:
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
            a, b = (float(one_step(method, batch)) for method, batch in zip(pair, (here, there), strict=True))
        worst = max(worst, abs(a - b) / max(abs(a), 1e-6)) if math.isfinite(a) and math.isfinite(b) else math.nan
    return worst


def attempt(measure: Callable[[], Any]) -> tuple[Any, str]:
    """What a measurement gives, or None and its error: one method that fails leaves the others their rows."""
    try:
        return measure(), ""
    except Exception as error:
        return None, f"{type(error).__name__} at {place(error)}: {str(error).splitlines()[0]}"


def views_agree(setting: Setting) -> Iterator[Row]:
    yield from random_numbers(setting)
    yield from views(setting)


def place(error: BaseException) -> str:
    """The innermost line of ssl_zoo in a traceback, else the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    package = Path(build.__file__).parent
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(package)]
    frame = (own or list(frames))[-1]
    file = Path(frame.filename).relative_to(package.parent) if own else Path(Path(frame.filename).name)
    return f"{file.as_posix()}:{frame.lineno} ({frame.line})"
