"""Forward passes over several views or tiles, which tell batch norm whose rows they hold.

Whether views pass together or one by one depends on the batch norm of a method's authors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.passes import laid_out

Pass = Callable[[Callable[[Tensor], Tensor], Sequence[Tensor]], list[Tensor]]  # network or head, views: what it gives


def per_view(module: Callable[[Tensor], Tensor], views: Sequence[Tensor]) -> list[Tensor]:
    """One forward pass a view: batch norm sees each view alone. V x ``[B, C, H, W]`` -> V x ``[B, F]``."""
    return [module(view) for view in views]


def joined(forward: Callable[..., Any], views: Sequence[Tensor], **given: Any) -> Any:
    """One forward pass for views of one size, whatever it gives: V x ``[B, ...]`` to rows ``[V * B, ...]`` of that."""
    with laid_out(views=len(views)):
        return forward(torch.cat(list(views)), **given)


def concat(module: Callable[[Tensor], Tensor], views: Sequence[Tensor]) -> list[Tensor]:
    """One forward pass for all views of one size: batch norm sees them together (SwAV ``resnet50.py``, DINO).

    Args:
        module: Network, or a head for outputs ``[B, F]`` of one.

    Returns:
        V x ``[B, F]`` in the order of ``views``, whatever the order of sizes.
    """
    by_size: dict[torch.Size, list[int]] = {}
    for position, view in enumerate(views):
        by_size.setdefault(view.shape[1:], []).append(position)
    outputs: dict[int, Tensor] = {}
    for positions in by_size.values():
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
