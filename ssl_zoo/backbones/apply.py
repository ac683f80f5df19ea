"""Forward passes over a list of views; which of the two depends on the batch norm of a method's authors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def per_view(module: Callable[[Tensor], Tensor], views: Sequence[Tensor]) -> list[Tensor]:
    """One forward pass a view: batch norm sees each view alone. V x ``[B, C, H, W]`` -> V x ``[B, F]``."""
    return [module(view) for view in views]


def concat(module: Callable[[Tensor], Tensor], views: Sequence[Tensor]) -> list[Tensor]:
    """One forward pass for all views of one size: batch norm sees them together (SwAV ``resnet50.py``, DINO).

    Returns:
        V x ``[B, F]`` in the order of ``views``, whatever the order of sizes.
    """
    by_size: dict[torch.Size, list[int]] = {}
    for position, view in enumerate(views):
        by_size.setdefault(view.shape[1:], []).append(position)
    outputs: dict[int, Tensor] = {}
    for positions in by_size.values():
        group = [views[i] for i in positions]
        parts = module(torch.cat(group)).split([len(view) for view in group])
        outputs.update(zip(positions, parts, strict=True))
    return [outputs[i] for i in range(len(views))]
