"""Small views for every backbone test."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@pytest.fixture
def views() -> Callable[..., Tensor]:
    """``views(size, channels=3, batch=2)``: seeded random views."""

    def make(size: int, channels: int = 3, batch: int = 2) -> Tensor:
        generator = torch.Generator().manual_seed(size + channels)
        return torch.rand(batch, channels, size, size, generator=generator)

    return make
