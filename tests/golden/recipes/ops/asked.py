"""An operation of ours beside the recorded one, and variants of it that show one property at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.rng import Draw, stream_key
from tests.golden.recipes.composed import Composed, Op, ViewOf


@dataclass(frozen=True)
class Asked:
    """An operation of ours.

    Args:
        theirs: All that is recorded of its counterpart.
        tied: Whether it takes the draws of another view.
    """

    op: Op
    view: ViewOf
    composed: Composed
    theirs: Mapping[str, Any] = field(default_factory=dict)
    tied: bool = False

    def option(self, name: str) -> Any:
        return self.op.options.get(name)

    def variant(self, **options: Any) -> nn.Module:
        """The operation with other options."""
        return registry.build({self.op.name: {**self.op.options, **options}}, self.view.size)


def draws(rows: int, seed: int = 0) -> Draw:
    """Random numbers for ``rows`` samples, the same at every time."""
    return Draw(stream_key(seed, "recipes", 0), torch.arange(rows))


def picture(rows: int, height: int, width: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """``[rows, 3, height, width]``: the same random picture for every row."""
    generator = torch.Generator().manual_seed(1)
    one = low + (high - low) * torch.rand(1, 3, height, width, generator=generator)
    return one.expand(rows, -1, -1, -1).clone()
