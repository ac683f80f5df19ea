"""Clipping by norms: of everything, of each tensor, of each part."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ssl_zoo.optim.clipping import clip_gradients


class Parts(nn.Module):
    """Two parts, and a parameter that belongs to neither; gradients of norm 3, 4 and 12."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.token = nn.Parameter(torch.zeros(1))
        for p, g in ((self.a.weight, 3.0), (self.b.weight, 4.0), (self.token, 12.0)):
            p.grad = torch.full_like(p, g)


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("global", [3 * 3.5 / 13, 4 * 3.5 / 13, 12 * 3.5 / 13]),
        ("per_tensor", [3.0, 3.5, 3.5]),
        ("per_module", [3.0, 3.5, 3.5]),
    ],
)
def test_each_norm_is_brought_down_to_the_limit(mode, wanted):
    parts = Parts()
    clip_gradients(parts, mode, 3.5)
    found = [p.grad.item() for p in (parts.a.weight, parts.b.weight, parts.token)]
    assert found == pytest.approx(wanted, rel=1e-5)
