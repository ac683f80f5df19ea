"""How views are normalised, what evaluation sees of an image, and by which network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.golden.recipes import evaluated
from tests.golden.recipes.composed import Composed, Op
from tests.golden.recipes.keys import NONE, same, sides
from tests.golden.recipes.ops.table import NATIVE
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.registry import field, unequal, unmapped
from tests.golden.recipes.trial import evaluation


@field("normalize")
def normalize(value: Any, recorded: Recorded, composed: Composed) -> Iterator[str]:
    """The numbers of an operation that changes the space of colours count where it normalises itself."""
    found = {tuple(map(tuple, _of_ops(view.ops).values())): _of_ops(view.ops) for view in composed.views}
    ours = composed.plain["augmentation"]["normalize"]
    if len(found) == 1 and (own := next(iter(found.values()))):
        ours = own if ours is None else {"by an operation": own, "and after it": ours}
    wanted = None if value == NONE else value
    if not same(ours, wanted, 1e-6):
        yield unequal("normalize", ours, value)


def _of_ops(ops: Sequence[Op]) -> dict[str, list[float]]:
    for op in ops:
        if op.options.get("scaled"):
            kind: Any = type(op.module)
            mean, std = getattr(kind, "CENTRE", None), getattr(kind, "HALF_RANGE", None)
            return {"mean": list(mean or kind.MEAN), "std": list(std or kind.STD)}
    return {}


@dataclass(frozen=True)
class Cut:
    """What is done to an image: its shorter side, or its sides, then the central part.

    To cut a share of the shorter side and resize it is the same as to resize and cut, but for the border of the kernel.
    """

    shorter: int | None = None
    sides: Any = None
    crop: Any = None
    interpolation: str | None = None


@field("eval_view")
def eval_view(value: Any, recorded: Recorded, composed: Composed) -> Iterator[str]:
    if not isinstance(value, list):
        yield unmapped("eval_view", value)
        return
    native = NATIVE.get(recorded.dataset)
    theirs, rest = _theirs(value)
    ours = _ours(composed.eval_ops)
    for name, options in rest:
        if name == "patch_grid" and set(options) == {"size", "stride"}:
            yield from evaluation(composed).patches("eval_view.patch_grid", options)
        elif name == "patches" and set(options) == {"count"}:
            yield from _patches(options["count"], composed)
        else:
            yield unmapped(f"eval_view.{name}", options)
    if isinstance(theirs, str) or isinstance(ours, str):
        yield unmapped("eval_view", theirs if isinstance(theirs, str) else ours)
    elif not _alike(ours, theirs, native):
        yield unequal("eval_view", ours, theirs)


def _alike(ours: Cut, theirs: Cut, native: int | None) -> bool:
    """A square that the images have already is left as it is, by any kernel."""

    def plain(cut: Cut) -> Cut:
        as_it_is = native is not None and cut.sides == native and cut.crop is None
        return Cut() if as_it_is else cut

    return plain(ours) == plain(theirs)


def _patches(count: int, composed: Composed) -> Iterator[str]:
    """How many times a network sees each image."""
    run = evaluation(composed)
    seen = sum(call.shapes[0][0] for call in run.called("backbone")) / run.batch
    if seen != count:
        yield unequal("eval_view.patches", f"{seen:g} of an image", count)


def _theirs(value: list[Any]) -> tuple[Cut | str, list[tuple[str, dict[str, Any]]]]:
    """The operations that cut and resize, and those of other kinds."""
    ops = [(str(entry[0]), dict(entry[1]) if len(entry) > 1 else {}) for entry in value]
    for _, options in ops:
        options.pop("note", None)
    rest = [op for op in ops if op[0] not in ("identity", "resize", "center_crop")]
    cuts = [op for op in ops if op not in rest]
    kinds = [name for name, _ in cuts]
    if kinds in ([], ["identity"]) and not any(options for _, options in cuts):
        return Cut(), rest
    options = {name: dict(given) for name, given in cuts}
    if kinds == ["resize"]:
        return _resized(options["resize"]), rest
    if kinds == ["resize", "center_crop"] and set(options["center_crop"]) == {"size"}:
        resized = _resized(options["resize"])
        if isinstance(resized, str) or resized.shorter is None:
            return f"{value}", rest
        return Cut(resized.shorter, None, options["center_crop"]["size"], resized.interpolation), rest
    if kinds == ["center_crop", "resize"] and set(options["resize"]) == {"size", "interpolation"}:
        return _cut_first(options["center_crop"], options["resize"]), rest
    return f"{value}", rest


def _resized(options: dict[str, Any]) -> Cut | str:
    """Two sides, or one number: the shorter side."""
    if set(options) - {"size", "side", "interpolation"} or options.get("side", "shorter") != "shorter":
        return f"resize {options}"
    size, interpolation = options["size"], options["interpolation"]
    if interpolation not in ("bilinear", "bicubic"):
        return f"resize {options}"
    whole = isinstance(size, list)
    return Cut(None, sides(size), None, interpolation) if whole else Cut(size, None, None, interpolation)


def _cut_first(crop: dict[str, Any], resize: dict[str, Any]) -> Cut | str:
    size = resize["size"]
    if set(crop) == {"fraction"}:
        return Cut(round(size / crop["fraction"]), None, size, resize["interpolation"])
    if set(crop) == {"padding"}:  # a share of size / (size + padding) of the shorter side
        return Cut(size + crop["padding"], None, size, resize["interpolation"])
    return f"center_crop {crop}"


def _ours(ops: Sequence[Op]) -> Cut | str:
    cuts = [op for op in ops if op.name not in ("image/lab", "image/ydbdr")]
    names = [op.name for op in cuts]
    if not cuts:
        return Cut()
    last: Any = cuts[-1].module
    if names == ["image/resize_center_crop"]:
        return Cut(min(last.least), None, sides(last.size), last.interpolation)
    if names == ["image/resize"]:
        return Cut(None, sides(last.size), None, last.interpolation)
    return f"our {' '.join(names)}"


@field("evaluated_network")
def evaluated_network(value: Any, recorded: Recorded, composed: Composed) -> Iterator[str]:
    yield from evaluated.WORDS.differences("evaluated_network", value, composed)
