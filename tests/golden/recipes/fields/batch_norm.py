"""Which rows share the statistics of a batch norm: asked of every layer in a pass over a batch of the composed size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.golden.recipes.composed import Composed
from tests.golden.recipes.keys import by_key, same
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.registry import field, unequal
from tests.golden.recipes.trial import Pass, Trial, trial
from tests.golden.recipes.words import Grammar

SLOW = "adversarial"  # a branch of its own, with norms of its own


@dataclass(frozen=True)
class Shared:
    """What of one pass shares statistics.

    Args:
        rows: How many.
        samples: Of how many images.
        views: Of how many views that were passed together.
        together: Views in the pass.
        step: From one row to the next of the same view.
    """

    rows: int
    samples: int
    views: int
    together: int
    step: int


@field("batch_norm")
def batch_norm(value: Any, recorded: Recorded, composed: Composed) -> Iterator[str]:
    if isinstance(value, str):
        yield from WHOLE.differences("batch_norm", value, composed)
        return
    yield from by_key("batch_norm", value, READERS, (composed, value))


def passes(composed: Composed) -> list[Pass]:
    """Of the network while it learns, of its heads where it has no batch norm; of tiles only where there is no more."""
    run = trial(composed)
    own = [p for p in run.passes if p.layer.training and p.name.startswith("backbone.")]
    own = own or [p for p in run.passes if p.layer.training and "teacher" not in p.name]
    if not own:
        raise LookupError(f"no batch norm was reached ({run.error})")
    return [p for p in own if p.tiles == 1] or own


def shared(p: Pass, run: Trial) -> Shared:
    """Views stand one after another in a pass, the tiles of an image side by side."""
    places = [row // p.tiles for row in p.shared]
    one = [place for place in places if place < run.batch]
    step = next((place - one[0] for place in one if place != one[0]), 1)
    images, views = {place % run.batch for place in places}, {place // run.batch for place in places}
    return Shared(len(p.shared), len(images), len(views), p.rows // (p.tiles * run.batch), step)


def _all_shared(composed: Composed) -> list[Shared]:
    return list(dict.fromkeys(shared(p, trial(composed)) for p in passes(composed)))


def _counts_rows(value: dict[str, Any]) -> bool:
    """Whether the words count rows (of patches, tiles, views alike) where the others count images."""
    return re.search(r"\d rows|all patches", str(value.get("statistics_over"))) is not None


def _samples(subject: str, wanted: int, asked: Any) -> Iterator[str]:
    composed, value = asked
    rows = _counts_rows(value)
    found = {one.rows if rows else one.samples for one in _all_shared(composed)}
    if found != {wanted}:
        yield unequal(subject, f"{sorted(found)} {'rows' if rows else 'images'}", wanted)


def _together(subject: str, wanted: Any, asked: Any) -> Iterator[str]:
    """Whether the views of an image meet in one norm; in words, which."""
    if isinstance(wanted, str):
        yield from TOGETHER.differences(subject, wanted, asked)
        return
    found = {one.views > 1 for one in _all_shared(asked[0])}
    if found != {bool(wanted)}:
        yield unequal(subject, sorted(found), wanted)


def _by_size(match: re.Match[str], asked: Any) -> str | None:
    """All views of one size in one pass of the network, and in one norm but for its groups."""
    run = trial(asked[0])
    sizes = [view[-2:] for view in run.views]
    wanted = {sizes.count(size) for size in sizes}
    found = {(one.together, one.views) for one in _all_shared(asked[0])}
    return None if found == {(count, count) for count in wanted} else f"{sorted(found)} views in one pass, in one norm"


def _head_at_once(match: re.Match[str], asked: Any) -> str | None:
    run = trial(asked[0])
    heads = {shared(p, run).together for p in run.passes if p.name.startswith(("projector", "predictor"))}
    return None if heads == {len(run.views)} else f"the head sees {sorted(heads)} views at once"


def _interleaved(subject: str, wanted: bool, asked: Any) -> Iterator[str]:
    """Rows are dealt to groups in turn, or follow one another."""
    run = trial(asked[0])
    steps = {shared(p, run).step for p in passes(asked[0])}
    groups = {run.batch // max(shared(p, run).samples, 1) for p in passes(asked[0])}
    if steps != (groups if wanted else {1}):
        yield unequal(subject, f"rows {sorted(steps)} apart", wanted)


def _layers(composed: Composed) -> list[Any]:
    found = [(n, m) for n, m in composed.method.named_modules() if isinstance(m, _BatchNorm)]
    return [m for n, m in found if not n.startswith(SLOW)]


def _momentum(subject: str, wanted: float, asked: Any) -> Iterator[str]:
    yield from _all_have(subject, "momentum", wanted, asked[0])


def _eps(subject: str, wanted: float, asked: Any) -> Iterator[str]:
    yield from _all_have(subject, "eps", wanted, asked[0])


def _all_have(subject: str, name: str, wanted: float, composed: Composed) -> Iterator[str]:
    ours = sorted({getattr(layer, name) for layer in _layers(composed)})
    if len(ours) != 1 or not same(ours[0], wanted):
        yield unequal(subject, ours, wanted)


def _statistics_over(subject: str, wanted: str, asked: Any) -> Iterator[str]:
    yield from OVER.differences(subject, wanted, asked)


def _target(subject: str, wanted: str, asked: Any) -> Iterator[str]:
    yield from TARGET.differences(subject, wanted, asked)


def _no_norm(match: re.Match[str], composed: Composed) -> str | None:
    return f"{len(_layers(composed))} batch norms" if _layers(composed) else None


def _layer_norm(match: re.Match[str], composed: Composed) -> str | None:
    kinds = (nn.LayerNorm, nn.GroupNorm)
    held = any(isinstance(m, kinds) for m in composed.method.backbone.modules())
    return _no_norm(match, composed) or (None if held else "no layer norm")


WHOLE = Grammar((r"none", _no_norm), (r"layer norm", _layer_norm))
TOGETHER = Grammar(
    (r"consecutive crops of one size go through the backbone together", _by_size),
    (r"the head sees all crops at once", _head_at_once),
)


def _is_shuffled(match: re.Match[str], asked: Any) -> str | None:
    return None if trial(asked[0]).shuffled else "keys are not shuffled"


def _one_view(match: re.Match[str], asked: Any) -> str | None:
    found = {one.views for one in _all_shared(asked[0])}
    return None if found == {1} else f"{sorted(found)} views"


def _several(match: re.Match[str], asked: Any) -> str | None:
    found = {one.views for one in _all_shared(asked[0])}
    return None if min(found) > 1 else "one view"


def _whole(match: re.Match[str], asked: Any) -> str | None:
    run = trial(asked[0])
    found = {one.samples for one in _all_shared(asked[0])}
    return None if found == {run.batch} else f"{sorted(found)} of {run.batch} images"


def _group(match: re.Match[str], asked: Any) -> str | None:
    found = {one.samples for one in _all_shared(asked[0])}
    return None if found == {int(match.group(1))} else f"{sorted(found)} images"


def _rows(match: re.Match[str], asked: Any) -> str | None:
    found = {one.rows for one in _all_shared(asked[0])}
    return None if found == {int(match.group(1))} else f"{sorted(found)} rows"


def _tiles(match: re.Match[str], asked: Any) -> str | None:
    """``288 tiles of 32 images``."""
    run = trial(asked[0])
    found = {len(p.shared) for p in run.passes if p.name.startswith("backbone.") and p.tiles > 1}
    return None if found == {int(match.group(1))} else f"{sorted(found)} tiles"


def _head_together(match: re.Match[str], asked: Any) -> str | None:
    run = trial(asked[0])
    found = {shared(p, run).views for p in run.passes if p.name.startswith("projector")}
    return None if found == {len(run.views)} else f"{sorted(found)} views in the head's norms"


def _only_in(match: re.Match[str], asked: Any) -> str | None:
    composed = asked[0]
    held = any(isinstance(m, _BatchNorm) for m in composed.method.backbone.modules())
    return "the network has batch norms" if held or not _layers(composed) else None


def _adversarial(match: re.Match[str], asked: Any) -> str | None:
    part = getattr(asked[0].method, SLOW, None)
    own = [m for m in part.modules() if isinstance(m, _BatchNorm)] if part is not None else []
    return None if {m.momentum for m in own} == {float(match.group(1))} else f"{sorted({m.momentum for m in own})}"


def _teacher_learns(match: re.Match[str], asked: Any) -> str | None:
    """The target normalises with the statistics of its own batch."""
    own = [p for p in trial(asked[0]).passes if p.name.startswith("teacher")]
    return None if own and all(p.layer.training for p in own) else "the target does not"


TARGET = Grammar((r"train mode", _teacher_learns))
OVER = Grammar(
    (r"(?:one view of )?(?:the )?(?:whole )?batch", _whole),
    (r"one view of the (?:whole )?batch", lambda match, asked: _one_view(match, asked) or _whole(match, asked)),
    (r"encoder: one view of the batch", _one_view),
    (r"head: all views together", _head_together),
    (r"(?:both|all) views of the whole batch", lambda match, asked: _several(match, asked) or _whole(match, asked)),
    (r"all patches of the batch", _several),
    (r"one pass of both views", _several),
    (r"(\d+) samples(?: of one of \d+ GPUs| of one of the README's \d+ GPUs| of one GPU)?", _group),
    (r"(\d+) samples of one of launch\.sh's \d+ GPUs", _group),
    (r"groups of \d+ GPUs \(apex process group\): (\d+) samples", _group),
    (r"(\d+) rows", _rows),
    (r"DataParallel over the README's \d+ GPUs cuts \[\d+ first views; \d+ second views\] into \d+", _one_view),
    (r"\((\d+) tiles of \d+ images in the jigsaw pass\)", _tiles),
    (r"SplitBatchNorm of \d+: samples i mod \d+, \d+ each", None),  # interleaved, and its number
    (r"\d+ / number of GPUs|\d+ rows / number of GPUs", None),  # not printed
    (r"keys shuffled(?: within a node| over \d+ GPUs)?", _is_shuffled),
    (r"adversarial branch has its own layers, momentum (\d*\.\d+)", _adversarial),
    (r"only in the rkhs heads", _only_in),
    (r"SyncBatchNorm in the head", _only_in),
    (r"labelled and unlabelled images together", None),  # one batch of both
    (r"SyncBatchNorm over both GPUs", _whole),
    # How they come by it.
    (r"SyncBatchNorm|DataParallel|cross-replica|per GPU|one GPU|more: split|--bn shuffle|README: \d+ or \d+", None),
    (r"SyncBatchNorm has nothing to join|--syncBN has no effect", None),
)
READERS = {
    "samples": _samples,
    "views_together": _together,
    "interleaved": _interleaved,
    "momentum_torch": _momentum,
    "eps": _eps,
    "statistics_over": _statistics_over,
    "target": _target,
}
