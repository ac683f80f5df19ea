"""Forward passes over several views or tiles, which tell batch norm whose rows they hold.

Whether views pass together or one by one depends on the batch norm of a method's authors.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from torch import Tensor

from ssl_zoo.passes import laid_out
from ssl_zoo.samples import concat as together
from ssl_zoo.samples import kind

Pass = Callable[[Callable[[Any], Tensor], Sequence[Any]], list[Tensor]]  # network or head, views: what it gives


def per_view(module: Callable[[Any], Tensor], views: Sequence[Any]) -> list[Tensor]:
    """One forward pass a view: batch norm sees each view alone. V views of B samples -> V x ``[B, F]``."""
    return [module(view) for view in views]


def joined(forward: Callable[..., Any], views: Sequence[Any], **given: Any) -> Any:
    """One forward pass for views of one kind, whatever it gives: V views of B samples to rows ``[V * B, ...]``."""
    with laid_out(views=len(views)):
        return forward(together(views), **given)


def concat(module: Callable[[Any], Tensor], views: Sequence[Any]) -> list[Tensor]:
    """One forward pass for all views of one kind: batch norm sees them together (SwAV ``resnet50.py``, DINO).

    Args:
        module: Network, or a head for outputs ``[B, F]`` of one.

    Returns:
        V x ``[B, F]`` in the order of ``views``, whatever the order of kinds (sizes, of images).
    """
    by_kind: dict[Hashable, list[int]] = {}
    for position, view in enumerate(views):
        by_kind.setdefault(kind(view), []).append(position)
    outputs: dict[int, Tensor] = {}
    for positions in by_kind.values():
        group = [views[i] for i in positions]
        parts = joined(module, group).split([len(view) for view in group])
        outputs.update(zip(positions, parts, strict=True))
    return [outputs[i] for i in range(len(views))]


def passing(together: bool | None, authors: Pass) -> Pass:
    """The pass that ``method.views_together`` asks for: :func:`concat`, :func:`per_view`, or for None the authors'."""
    return authors if together is None else concat if together else per_view


def tiled(module: Callable[[Tensor], Tensor], tiles: Tensor) -> Tensor:
    """One forward pass for all tiles (patches, places) of all samples: ``[B, P, ...]`` -> ``[B, P, F]``."""
    with laid_out(rows=tiles.shape[1]):
        return module(tiles.flatten(0, 1)).unflatten(0, tiles.shape[:2])
