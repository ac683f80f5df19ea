"""The screen at the start of a run: what will be trained, at which rates finally used, and what it will need."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from ssl_zoo.data.batch import DataInfo
from ssl_zoo.optim.lengths import cut_warmups, never_begun
from ssl_zoo.optim.recipe import BoundRecipe
from ssl_zoo.optim.schedules import Progress

MEGABYTE = 1_000_000
SHOWN = 4  # values of a fact about the samples that are shown one by one
LARGE_BUFFER = 1 * MEGABYTE  # smaller ones (batch norm statistics, cursors) are not worth a line


def screen(
    cfg: DictConfig,
    method: nn.Module,
    recipe: BoundRecipe,
    data_info: DataInfo,
    progress: Progress,
    run_dir: str | Path,
    devices: int = 1,
    augmentation: str = "",
    checkpoints: int = 1,
    notes: Sequence[str] = (),
    decisions: Sequence[str] = (),
) -> RenderableType:
    """What a person wants to know before hours of training.

    Args:
        cfg: Configuration; ``card``, ``recipe``, ``optimizer.lr_scale``, ``trainer``, ``data.batch_size`` are read if
            they exist.
        method: Built method.
        recipe: Its optimizer, bound to the batch size.
        data_info: Of the training set.
        progress: Step 0 (or the step resumed at), total steps, steps per epoch.
        run_dir: Where the run writes.
        devices: Processes over all nodes.
        augmentation: Where it runs, ``datamodule.describe()``.
        checkpoints: How many are kept.
        notes: Further sentences for the end of the screen.
        decisions: About the data, a line each.

    Returns:
        Something for ``rich.console.Console().print``.
    """
    trains = getattr(method, "trains", True)
    lines = [
        ("method", _method(cfg, method)),
        ("recipe", _recipe(cfg)),
        ("batch", _made_for(cfg)),
        ("run folder", str(run_dir)),
        ("data", "\n".join([_data(data_info), *decisions])),
        ("augmentation", augmentation),
        ("steps", _steps(progress) if trains else "none: the networks stay as they were built"),
        ("samples per step", _samples(cfg, data_info, devices) if trains else ""),
        ("learning rate", learning_rate(recipe, progress) if trains else ""),
        ("parameters", _parameters(method) if trains else f"{count(_trained(method))}, of which none is trained"),
        ("frozen", ", ".join(frozen_parts(method)) or "nothing"),
        ("state", "; ".join(large_buffers(method))),
        ("checkpoints", _disk(checkpoint_bytes(method, recipe.optimizer), checkpoints, Path(run_dir))),
    ]
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, text in lines:
        if text:
            facts.add_row(name, Text(text))
    told = merged([*recipe.messages(progress), *cut_warmups(method, progress), *never_begun(method, progress)])
    messages = [Text(f"note: {text}", style="yellow") for text in (*(told if trains else []), *notes)]
    rates: list[RenderableType] = [Text(), groups_table(recipe, progress)] if trains else []
    return Panel(Group(facts, *rates, *messages), title="ssl_zoo", title_align="left")


def groups_table(recipe: BoundRecipe, progress: Progress) -> Table:
    """One line per parameter group with its rates as finally used."""
    out = Table(box=None, pad_edge=False, header_style="dim")
    out.add_column("group", overflow="fold")
    for name in ("tensors", "parameters", "highest lr", "weight decay", "frozen until"):
        out.add_column(name, justify="right")
    for row in recipe.table(progress):
        until = "" if row.frozen_until is None else f"step {row.frozen_until}"
        rates = (f"{row.highest_lr:.4g}", f"{row.weight_decay:.4g}")
        out.add_row(Text(row.name), str(row.tensors), count(row.parameters), *rates, until)
    return out


def merged(messages: Iterable[str]) -> list[str]:
    """``who: what`` of several groups as one line, because a warm-up that is cut is cut for all of them."""
    who: dict[str, list[str]] = {}
    for message in messages:
        group, _, sentence = message.partition(": ")
        who.setdefault(sentence, []).append(group)
    return [f"{'; '.join(groups)}: {sentence}" for sentence, groups in who.items()]


def learning_rate(recipe: BoundRecipe, progress: Progress, samples: int = 1000) -> str:
    """First, highest and last learning rate of the first group, read off the schedule itself."""
    total = max(progress.total, 1)
    steps = sorted({i * (total - 1) // max(samples - 1, 1) for i in range(samples)})
    rates = [recipe.lr(replace(progress, step=step)) for step in steps]
    peak = max(range(len(rates)), key=rates.__getitem__)
    parts = [f"{rates[0]:.4g}"]
    if 0 < peak < len(rates) - 1:
        parts.append(f"{rates[peak]:.4g} (step {steps[peak]})")
    if rates[-1] != rates[0] or len(parts) > 1:
        parts.append(f"{rates[-1]:.4g}")
    return " -> ".join(parts)


def frozen_parts(method: nn.Module) -> list[str]:
    """The outermost modules whose parameters are all frozen, with their sizes."""
    return [f"{name} ({count(n)})" for name, n in _frozen(method, "")]


def _frozen(module: nn.Module, path: str) -> Iterator[tuple[str, int]]:
    parameters = list(module.parameters())
    if path and parameters and not any(p.requires_grad for p in parameters):
        yield path, sum(p.numel() for p in parameters)
        return
    prefix = f"{path}." if path else ""
    yield from ((prefix + name, p.numel()) for name, p in module.named_parameters(recurse=False) if not p.requires_grad)
    for name, child in module.named_children():
        yield from _frozen(child, prefix + name)


def large_buffers(method: nn.Module) -> list[str]:
    """Queues, banks and other buffers above 1 MB: name, shape, size."""
    sized = ((name, buffer, _bytes([buffer])) for name, buffer in method.named_buffers())
    return [f"{name} {list(buffer.shape)} {size(n)}" for name, buffer, n in sized if n > LARGE_BUFFER]


def checkpoint_bytes(method: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Size of one checkpoint: weights and buffers once, and what the optimizer keeps per parameter."""
    trained = _bytes(p for group in optimizer.param_groups for p in group["params"])
    return _bytes(method.state_dict().values()) + _slots(optimizer) * trained


def _slots(optimizer: torch.optim.Optimizer) -> int:
    """Tensors that the optimizer keeps per parameter, as its options tell: two moments, one momentum, or none."""
    if "betas" in optimizer.defaults:
        return 2
    return int(any(group.get("momentum") for group in optimizer.param_groups))


def _bytes(tensors: Iterable[Any]) -> int:
    """Bytes of tensors; storage that several share counts once, as in a saved file."""
    storages = [t.untyped_storage() for t in tensors if isinstance(t, Tensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _method(cfg: DictConfig, method: nn.Module) -> str:
    card = OmegaConf.select(cfg, "card", default=None) or {}
    words = [card.get("name", type(method).__name__), str(card.get("year", "")), str(card.get("paper", ""))]
    return "  ".join(word for word in words if word)


def _recipe(cfg: DictConfig) -> str:
    source = OmegaConf.select(cfg, "recipe.source", default=None)
    expected = OmegaConf.select(cfg, "recipe.expected", default=None)
    published = OmegaConf.select(cfg, "recipe.published", default=None)
    if published and OmegaConf.select(cfg, "expected", default=None) is None:  # an experiment has replaced the recipe
        beside = (
            "no published run is among the experiments"
            if published == "none"
            else (f"the published one is experiment={published}")
        )
        return f"{source}; our own for short runs, {beside}"
    return "" if not source else str(source) + (f"; expected: {expected}" if expected else "")


def _made_for(cfg: DictConfig) -> str:
    """For which batch the recipe was made, and what this run makes of it."""
    batch = OmegaConf.select(cfg, "recipe.batch", default=None)
    if batch is None:
        return ""
    taken, name = cfg.data.batch_size, OmegaConf.select(cfg, "recipe.name", default="recipe")
    scale = OmegaConf.select(cfg, "optimizer.lr_scale", default="absolute")
    rates = "whose rates stay those of the recipe" if scale == "absolute" else f"and scales its rates to it ({scale})"
    this = "as this run takes" if taken == batch else f"this run takes {taken:,}, {rates}"
    return f"{name} was made for {batch:,} samples a step{',' if taken == batch else ';'} {this}"


def _data(info: DataInfo) -> str:
    labels = f"{info.classes} classes" if info.classes else "unlabelled"
    return ", ".join([f"{info.samples:,} samples", labels, *map(_fact, info.facts.items())])


def _fact(fact: tuple[str, Any]) -> str:
    """``image size 32``; of a long list, as of a table's columns, how many there are."""
    name, value = fact
    many = isinstance(value, (list, tuple)) and len(value) > SHOWN
    return f"{len(value):,} {name}" if many else f"{name.replace('_', ' ')} {value}"


def _steps(progress: Progress) -> str:
    done = f", from step {progress.step:,}" if progress.step else ""
    return f"{progress.total:,} ({progress.steps_per_epoch:,} per epoch, {progress.epochs} epochs{done})"


def _samples(cfg: DictConfig, info: DataInfo, devices: int) -> str:
    accumulate = int(OmegaConf.select(cfg, "trainer.accumulate", default=1))
    total = info.batch_size * accumulate
    parts = f"{devices} {'devices' if devices > 1 else 'device'} x {info.batch_size // devices}"
    return f"{total:,} = {parts}" + (f" x {accumulate} accumulated" if accumulate > 1 else "")


def _parameters(method: nn.Module) -> str:
    parts = [f"{name} {count(n)}" for name, child in method.named_children() if (n := _trained(child))]
    return f"{count(_trained(method))} trained ({', '.join(parts)})"


def _trained(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _disk(one: int, checkpoints: int, run_dir: Path) -> str:
    """Estimated size on disk against what is free where the run writes."""
    there = next(folder for folder in (run_dir.absolute(), *run_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    # The new file is whole before it replaces the old one, so that both are there for a moment.
    needed = one * (checkpoints + 1)
    warning = f"; NOT ENOUGH: {size(needed)} needed" if needed > free else ""
    return f"about {size(one)} each, {checkpoints} kept; {size(free)} free on this disk{warning}"


def count(n: int) -> str:
    """``11.2 M``: a number of parameters for people."""
    for unit, step in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= step:
            return f"{n / step:.1f} {unit}"
    return str(n)


def size(n: int) -> str:
    """``33.6 MB``: bytes for people, in powers of ten as disks are sold."""
    for unit, step in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= step:
            return f"{n / step:.1f} {unit}"
    return f"{n} B"
