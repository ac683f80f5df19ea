"""What a method sees: how many views of which size, made by which operations in which order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ssl_zoo.augmentations import registry
from tests.golden.recipes.composed import Composed, Op, ViewOf
from tests.golden.recipes.keys import by_key, same, sides
from tests.golden.recipes.ops.asked import Asked, draws, picture
from tests.golden.recipes.ops.table import FREE, NATIVE, TILES, canonical, readers_of, recorded_options
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.registry import field, unequal, unmapped
from tests.golden.recipes.trial import trial

Theirs = tuple[str, dict[str, Any]]
# What is recorded beside a value and decides what it means.
BESIDE = ("interpolation", "kernel", "truncated", "value", "after_normalisation")
KINDS = {"global": "global", "large": "global", "local": "local", "focal": "local"}  # words in names of views


@field("views")
def views(value: Any, recorded: Recorded, composed: Composed) -> Iterator[str]:
    if not isinstance(value, list):
        yield unmapped("views", value)
        return
    ours = [view for view in composed.views for _ in range(view.count)]
    theirs = [view for view in value for _ in range(view["count"])]
    if len(ours) != len(theirs):
        yield unequal("views.count", len(ours), len(theirs))
    found = [line for pair in zip(ours, theirs, strict=False) for line in _view(*pair, composed, ours)]
    yield from dict.fromkeys(found)


def _view(ours: ViewOf, theirs: dict[str, Any], composed: Composed, all_ours: Sequence[ViewOf]) -> Iterator[str]:
    for key in theirs.keys() - {"name", "count", "size", "ops", "note"}:
        yield unmapped(f"views.{key}", theirs[key])
    yield from _kind(ours, str(theirs.get("name")))
    if not same(sides(_size(ours)), sides(theirs["size"])):
        yield unequal("views.size", _size(ours), theirs["size"])
    own = [(canonical(op.name), op) for op in ours.ops if _does_something(op, composed)]
    other = [(name, dict(options)) for name, options in (_pair(entry) for entry in theirs["ops"])]
    for name in sorted({name for name, _ in other if readers_of(name) is None}):
        yield unmapped(f"views.{name}", "an operation")
    other = [(name, options) for name, options in other if options.get("p") != 0.0]
    yield from _cut_by_the_method(own, other, composed)
    yield from _clipped(ours, [options for name, options in other if name == "clip"])
    own, other = ([pair for pair in pairs if pair[0] != "clip"] for pairs in (own, other))
    yield from _order([name for name, _ in own], [name for name, _ in other])
    yield from _parameters(ours, own, other, composed, all_ours)


def _does_something(op: Op, composed: Composed) -> bool:
    """Not so: a chance of 0, and a square that the images are already."""
    size = sides(op.options.get("size"))
    square = canonical(op.name) == "resize" and size == NATIVE.get(composed.recorded.dataset)
    return op.options.get("p") != 0.0 and not square


def _pair(entry: Sequence[Any]) -> Theirs:
    return str(entry[0]), entry[1] if len(entry) > 1 else {}


def _kind(ours: ViewOf, name: str) -> Iterator[str]:
    """A name that begins with a known word says whether a view is a global or a local one."""
    wanted = KINDS.get(name.partition("_")[0].partition(" ")[0])
    if wanted is not None and wanted != ours.kind:
        yield unequal("views.kind", ours.kind, name)


def _size(view: ViewOf) -> Any:
    """Pixels of the view, or of the whole from which tiles are cut."""
    tiled = view.ops and canonical(view.ops[-1].name) in TILES
    return next((op.options["size"] for op in view.ops if "size" in op.options), view.size) if tiled else view.size


def _order(own: list[str], other: list[str]) -> Iterator[str]:
    ours, theirs = _fixed(own), _fixed(other)
    if ours != theirs:
        yield unequal("views.order", own, other)


def _fixed(names: list[str]) -> tuple[list[str], list[str]]:
    """What has a place among the operations; and what has none."""
    return [name for name in names if name not in FREE], sorted(name for name in names if name in FREE)


def _parameters(
    view: ViewOf, own: list[tuple[str, Op]], other: list[Theirs], composed: Composed, all_ours: Sequence[ViewOf]
) -> Iterator[str]:
    for name, options in other:
        op = next((op for known, op in own if known == name), None)
        if op is None or readers_of(name) is None:
            continue  # told by the order
        others = [v for v in all_ours if any(o.name == op.name for o in v.ops)]
        tied = len(others) > 1 and sum(op.name in v.tie for v in others) == len(others) - 1
        yield from _compared(name, Asked(op, view, composed, recorded_options(name, options), tied))


_known: dict[str, list[str]] = {}  # the same operation in many views and runs is asked once


def _compared(name: str, asked: Asked) -> list[str]:
    plain = asked.composed.plain
    ours = [asked.op.name, asked.op.options, asked.view.size, asked.tied]
    around = [plain["augmentation"]["normalize"], plain["data"]["image_size"]]
    beside = [asked.theirs.get(key) for key in BESIDE]
    found = []
    for key, wanted in asked.theirs.items():
        question = json.dumps([name, ours, around, beside, key, wanted], default=str)
        if question not in _known:
            _known[question] = list(by_key(f"views.{name}", {key: wanted}, readers_of(name) or {}, asked))
        found += _known[question]
    return found


def _clipped(view: ViewOf, wanted: list[dict[str, Any]]) -> Iterator[str]:
    """Where they cut pixels to a range, ours lie within it without being cut."""
    if not wanted:
        return
    least, most = _range(view)
    for bounds in wanted:
        for key in bounds.keys() - {"min", "max"}:
            yield unmapped(f"views.clip.{key}", bounds[key])
        low, high = bounds.get("min", -torch.inf), bounds.get("max", torch.inf)
        if least < low or most > high or (low, high) != (0, 1):
            yield unequal("views.clip", [least, most], [low, high])


_ranges: dict[str, tuple[float, float]] = {}


def _range(view: ViewOf) -> tuple[float, float]:
    """The darkest and the brightest pixel of some views."""
    key = json.dumps([(op.name, op.options) for op in view.ops], default=str)
    if key not in _ranges:
        x, draw = picture(32, 32, 32), draws(32)
        for i, op in enumerate(view.ops):
            options = {name: value for name, value in op.options.items() if name != "size"}
            x = registry.build({op.name: options}, 32)(x, draw.child(i))
        _ranges[key] = float(x.min()), float(x.max())
    return _ranges[key]


def _cut_by_the_method(own: list[tuple[str, Op]], other: list[Theirs], composed: Composed) -> Iterator[str]:
    """A grid of patches that no operation makes is one that the method cuts: its backbone sees the patches.

    In place: it is taken off ``other``, as compared.
    """
    if not other or other[-1][0] != "patch_grid" or any(name == "patch_grid" for name, _ in own):
        return
    _, grid = other.pop()
    yield from trial(composed).patches("views.patch_grid", grid)
