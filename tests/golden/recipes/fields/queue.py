"""What is remembered of former steps: queues of keys, and a row for every image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from ssl_zoo.modules.epoch_memory import EpochMemory
from ssl_zoo.modules.hybrid_memory import HybridMemory
from ssl_zoo.modules.label_queue import LabelQueue
from ssl_zoo.modules.memory_bank import MemoryBank
from ssl_zoo.modules.queue import Queue
from tests.golden.recipes.composed import Composed
from tests.golden.recipes.keys import Reader, by_key, equal_to
from tests.golden.recipes.real import real_method
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.registry import field, unequal, unmapped
from tests.golden.recipes.starts import normal, uniform
from tests.golden.recipes.trial import trial
from tests.golden.recipes.words import Grammar


@field("queue")
def queue(value: Any, recorded: Recorded, composed: Composed) -> Iterator[str]:
    if value == "none":
        held = [kind.__name__ for kind in (Queue, MemoryBank, EpochMemory, HybridMemory) if _parts(composed, kind)]
        if held:
            yield unequal("queue", held, value)
        return
    yield from by_key("queue", value, _KEYS, composed)


def _parts(composed: Composed, kind: type) -> list[Any]:
    """Of the method, without those inside others of these."""
    return [module for module in composed.method.modules() if isinstance(module, kind)]


def _one(found: list[Any]) -> Any:
    """The value that all have, or the list of the different ones."""
    different = list(dict.fromkeys(found))
    return different[0] if len(different) == 1 else different


def _width(subject: str, wanted: Any, composed: Composed) -> Iterator[str]:
    """Of a key; of several embeddings side by side, as they lie in it."""
    total = math.prod(wanted if isinstance(wanted, list) else [wanted])
    ours = _one([part.keys.shape[1] for part in _parts(composed, Queue)])
    if ours != total:
        yield unequal(subject, ours, wanted)


def _start(subject: str, wanted: str, composed: Composed) -> Iterator[str]:
    """Rows of a memory with numbers in it."""
    keys = [m.keys.float() for m in real_method(composed).modules() if isinstance(m, (Queue, MemoryBank))]
    for rows in keys:
        unit, dim = torch.allclose(rows.norm(dim=1), torch.ones(len(rows)), atol=1e-3), rows.shape[1]
        right = {
            "normal, normalised": unit and normal(rows * dim**0.5, 1.0),
            "uniform": not unit and uniform(rows, (3 / dim) ** 0.5),
        }
        if wanted not in right:
            yield unmapped(subject, wanted)
        elif not right[wanted]:
            yield unequal(subject, f"rows of length {rows.norm(dim=1).mean():.3f}, spread {rows.std():.3g}", wanted)


def _every_image(match: Any, composed: Composed) -> str | None:
    parts = _parts(composed, MemoryBank)
    rows = [part.keys.shape[0] for part in parts] or [len(part.features) for part in _parts(composed, HybridMemory)]
    wrong = [count for count in rows if count != composed.info.samples]
    return f"memories of {wrong or rows} rows for {composed.info.samples} images" if wrong or not rows else None


def _of_width(match: Any, composed: Composed) -> str | None:
    found = {part.keys.shape[1] for part in _parts(composed, MemoryBank)}
    return None if found == {int(match[1])} else f"rows of {sorted(found)}"


def _two_banks(match: Any, composed: Composed) -> str | None:
    count = len(_parts(composed, MemoryBank))
    return None if count == 2 else f"{count} banks"


def _each_crop(match: Any, composed: Composed) -> str | None:
    found, views = _parts(composed, EpochMemory), sum(view.count for view in composed.views if view.kind == "global")
    banks = [len(memory.banks) for memory in found]
    return None if banks == [min(views, 2)] else f"{banks} banks for {views} whole crops"


def _running_epoch(match: Any, composed: Composed) -> str | None:
    """A row is replaced by what the epoch gives, not averaged."""
    found = {bank.momentum for memory in _parts(composed, EpochMemory) for bank in memory.banks}
    return None if found == {0.0} else f"rows that keep {sorted(found)} of the old"


_MEMORY = Grammar(
    (r"(one row (of (\d+) )?)?(for every|per|every) image", _every_image),
    (r"(?:two|student and teacher)", _two_banks),
    (r"(?:one row of )?(\d+)( for)?", _of_width),
    (r"one row of", None),
    (r"(assigning )?crop", _each_crop),
    (r"filled with the embeddings of the running epoch", _running_epoch),
)


def _old_value(match: Any, composed: Composed) -> str | None:
    """A row of a small memory after one update: how much of the old is left."""
    kinds = [(type(part), part.momentum) for part in _parts(composed, HybridMemory) + _parts(composed, MemoryBank)]
    for kind, momentum in kinds:
        memory: Any = kind(4, 2, momentum)
        rows = memory.keys if isinstance(memory, MemoryBank) else memory.features
        rows.copy_(torch.tensor([[1.0, 0.0]]).expand(4, 2))
        memory.update(torch.tensor([1]), torch.tensor([[0.0, 1.0]]))
        memory.commit()
        if not torch.allclose(rows[1], F.normalize(torch.tensor([momentum, 1 - momentum]), dim=0)):
            return f"a row {rows[1].tolist()}"
    return None if kinds else "no memory"


def _momentum(subject: str, wanted: float, composed: Composed) -> Iterator[str]:
    """The weight of the old row, as the memory applies it."""
    found = _one([part.momentum for part in _parts(composed, MemoryBank) + _parts(composed, HybridMemory)])
    told = _old_value(None, composed)
    if found != wanted or told:
        yield unequal(subject, told or found, wanted)


def _negatives(composed: Composed) -> Any:
    method: Any = composed.method
    found = [m.negatives for m in (method, *method.modules()) if isinstance(getattr(m, "negatives", None), int)]
    return _one(found)


def _other_classes(match: Any, composed: Composed) -> str | None:
    """Rows that a small sampler of this kind picks for a sample, of six samples in three classes."""
    for part in composed.method.modules():
        if hasattr(part, "by_class"):
            made: Any = type(part)
            small, labels = made(6, 4, part.positive), torch.tensor([0, 0, 1, 1, 2, 2])  # type: ignore[arg-type]
            small.learn(labels)
            rows = small(torch.tensor([2]), trial_draw())[0]
            exact = rows[0] == 2 and bool((labels[rows[1:]] != 1).all())
            return None if exact else f"rows {rows.tolist()} for the third of {labels.tolist()}"
    return "no sampler of classes"


def trial_draw() -> Any:
    from ssl_zoo.augmentations.rng import BatchRNG

    return BatchRNG(0, 0, 0, torch.arange(1)).sample("contrast")


def _joined(match: Any, composed: Composed) -> str | None:
    """A query is compared with the queue and the batch's own keys."""
    wanted = {part.size + composed.info.batch_size for part in _parts(composed, Queue)}
    return None if wanted and wanted <= trial(composed).joined else "the queue alone"


def _full(match: Any, composed: Composed) -> str | None:
    """A queue is used from the step on in which its last row was written."""
    small = Queue(4, 2)
    before = small.full
    small.write(torch.ones(3, 2))
    nearly = small.full
    small.write(torch.ones(1, 2))
    return None if (before, nearly, small.full) == (False, False, True) else "used before it is full"


def _from_epoch(composed: Composed) -> Any:
    return getattr(composed.method, "queue_start", None)


_KEYS: dict[str, Reader] = {
    "size": equal_to(lambda composed: _one([part.size for part in _parts(composed, Queue)])),
    "dim": _width,
    "symmetric": equal_to(lambda composed: getattr(composed.method, "symmetric", None)),
    "labels": equal_to(lambda composed: all(isinstance(part, LabelQueue) for part in _parts(composed, Queue))),
    "filled": Grammar((
        r"by key forwards before training",
        lambda match, composed: None if getattr(composed.method, "fill_queue", False) else "not filled",
    )).differences,
    "plus": Grammar((r"all keys of the batch( \(mocon\))?", _joined)).differences,
    "init": _start,
    "bank": _MEMORY.differences,
    "banks": _MEMORY.differences,
    "memory": _MEMORY.differences,
    "negatives": equal_to(_negatives),
    "negatives_from": Grammar((r"other classes( \(exact\))?", _other_classes)).differences,
    "momentum": _momentum,
    "momentum_weights": Grammar((r"the old value", _old_value)).differences,
    "from_epoch": equal_to(_from_epoch),
    "stores": Grammar((
        r"embeddings",
        lambda match, composed: None if _one([p.keys.shape[1] for p in _parts(composed, Queue)]) == composed.method
        .projector.out_features else "rows of another width than embeddings",
    )).differences,
    "used_when": Grammar((r"its last row is not zero", _full)).differences,
}  # fmt: skip
