"""Centres that are trained or found: how many, of what kind, and when they may move."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

from torch import nn

from ssl_zoo.modules.dino_head import WeightNormLinear
from ssl_zoo.modules.granularity import Granularity
from ssl_zoo.modules.prototypes import Prototypes
from ssl_zoo.modules.token_head import TokenHead
from tests.golden.recipes.composed import Composed
from tests.golden.recipes.keys import Reader, by_key, equal_to
from tests.golden.recipes.real import real_method
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.registry import field, unequal
from tests.golden.recipes.starts import uniform
from tests.golden.recipes.words import Grammar


@field("prototypes")
def prototypes(value: Any, recorded: Recorded, composed: Composed) -> Iterator[str]:
    if value == "none":
        if held := [type(layer).__name__ for layer in _layers(composed.method)]:
            yield unequal("prototypes", held, value)
        return
    yield from by_key("prototypes", value, _KEYS, composed)


def _layers(method: nn.Module) -> list[Any]:
    """The layers whose rows are centres; a teacher's are the student's copies."""
    kinds = (Prototypes, WeightNormLinear, Granularity)
    return [m for name, m in method.named_modules() if isinstance(m, kinds) and "teacher" not in name]


def _counts(composed: Composed) -> list[int]:
    return [len(getattr(layer, "weight_v", layer.weight)) for layer in _layers(composed.method)]


def _count(subject: str, wanted: Any, composed: Composed) -> Iterator[str]:
    ours = _counts(composed)
    if ours != (wanted if isinstance(wanted, list) else [wanted]):
        yield unequal(subject, ours, wanted)


def _clusters(subject: str, wanted: list[int], composed: Composed) -> Iterator[str]:
    ours = [len(layer.prototypes) for layer in _layers(composed.method)]
    if ours != wanted:
        yield unequal(subject, ours, wanted)


def _bias(composed: Composed) -> bool:
    return any(getattr(layer, "bias", None) is not None for layer in _layers(composed.method))


def _before_forward(match: Any, composed: Composed) -> str | None:
    """Each is put on the unit sphere before a step."""
    with mock.patch.object(Prototypes, "normalize_") as normalised:
        composed.method.before_step()
    return None if normalised.call_count == len(_layers(composed.method)) else "not before a step"


def _from_kmeans(match: Any, composed: Composed) -> str | None:
    """A method that clusters at the start of an epoch writes centres into these layers."""
    writes = hasattr(composed.method, "cluster") and "on_train_epoch_start" in vars(type(composed.method))
    return None if writes else "not replaced at an epoch's start"


def _in_loss(match: Any, composed: Composed) -> str | None:
    """Longer centres give the same assignments."""
    import torch

    method: Any = real_method(composed)
    with torch.no_grad():
        z = torch.randn(4, method.prototypes.in_features, generator=torch.Generator().manual_seed(0))
        before = method.assign(z)
        method.prototypes.weight.mul_(3)
        after = method.assign(z)
        method.prototypes.weight.div_(3)
    return None if torch.allclose(before, after, atol=1e-4) else "the length of a centre counts"


def _frozen(composed: Composed) -> int:
    """Steps for which no centre moves, at the authors' number of steps; one that is never trained: all."""
    total, bound = composed.progress(0).total, composed.bound
    inside = {id(p) for layer in _layers(composed.method) for p in layer.parameters() if p.requires_grad}
    groups = [group for group in bound.groups if any(id(p) in inside for p in group.params)]
    if not inside:
        return total
    return min((min(group.frozen_steps(composed.progress(0)) or 0, total) for group in groups), default=total)


def _frozen_steps(subject: str, wanted: int, composed: Composed) -> Iterator[str]:
    ours = _frozen(composed)
    if ours != min(wanted, composed.progress(0).total):
        yield unequal(subject, ours, wanted)


def _frozen_epochs(subject: str, wanted: int, composed: Composed) -> Iterator[str]:
    ours = _frozen(composed) / composed.progress(0).steps_per_epoch
    if abs(ours - wanted) > 1e-6:
        yield unequal(subject, ours, wanted)


def _scale(wanted: bool) -> Any:
    def ask(match: Any, composed: Composed) -> str | None:
        trained = [layer.weight_g.requires_grad for layer in _layers(composed.method)]
        return None if trained and set(trained) == {wanted} else f"trained: {trained}"

    return ask


def _start(subject: str, wanted: str, composed: Composed) -> Iterator[str]:
    """``uniform +-sqrt(1/256)``."""

    def ask(match: Any, asked: Any) -> str | None:
        weight = _layers(real_method(composed))[0].weight
        right = uniform(weight.flatten(), (float(match[1]) / float(match[2])) ** 0.5)
        return None if right else f"largest {weight.abs().max():.4g}"

    yield from Grammar((r"uniform \+-sqrt\((\d+)/(\d+)\)", ask)).differences(subject, wanted, composed)


def _summed(match: Any, composed: Composed) -> str | None:
    return None if getattr(composed.method, "sum_prototype_gradients", False) else "a mean over the processes"


def _shared(composed: Composed) -> bool:
    return any(isinstance(m, TokenHead) and m.last_layer2 is None for m in composed.method.modules())


def _option(name: str) -> Any:
    """A phrase whose number is an option of the method."""

    def ask(match: Any, composed: Composed) -> str | None:
        ours = getattr(composed.method, name, None)
        return None if ours == int(match[1]) else f"{name} {ours}"

    return ask


_KMEANS = Grammar(
    (r"faiss", None),
    (r"(\d+) iterations", _option("iterations")),
    (r"(\d+) redos", _option("redo")),
    (r"on momentum features",
     lambda match, composed: None if hasattr(composed.method, "teacher") else "no network that follows"),
    (r"(?:of|on) centre crops", None),  # what an evaluation view is: eval_view
    (r"every epoch", _from_kmeans),
)  # fmt: skip

_KEYS: dict[str, Reader] = {
    "count": _count,
    "clusters": _clusters,
    "bias": equal_to(_bias),
    "dim": equal_to(lambda composed: _layers(composed.method)[0].in_features),
    "weight_norm": equal_to(
        lambda composed: all(isinstance(layer, WeightNormLinear) for layer in _layers(composed.method))
    ),
    "scale": Grammar((r"fixed at 1", _scale(False)), (r"trained", _scale(True))).differences,
    "shared_by_class_and_patch": equal_to(_shared),
    "init": _start,
    "normalised": Grammar(
        (r"before every forward", _before_forward),
        (r"copied from k-means at every epoch's start", _from_kmeans),
        (r"in the loss", _in_loss),
    ).differences,
    "frozen_steps": _frozen_steps,
    "frozen_epochs": _frozen_epochs,
    "gradient": Grammar((r"summed over the processes", _summed)).differences,
    "negatives": equal_to(lambda composed: getattr(composed.method, "negatives", None)),
    "from_epoch": equal_to(lambda composed: getattr(composed.method, "warmup_epochs", None)),
    "kmeans": _KMEANS.differences,
}
