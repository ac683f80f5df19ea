"""How gradients are cut: applied to gradients of known length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tests.golden.recipes.composed import Composed
from tests.golden.recipes.keys import NOTES
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.registry import field, unequal, unmapped

# Words of a mode -> (how the norms are shared, parameters that are left out).
MODES = {
    "norm of every tensor by itself": ("each", None),
    "global norm": ("all", None),
    "global norm of the encoder (prototypes are left out)": ("all", "prototypes"),
}
FORMULAS = ("g *= clip / (||g|| + 1e-6) where < 1",)
LENGTHS = (0.5, 4.0, 20.0)  # of gradients, in turn


@field("clip")
def clip(value: Any, recorded: Recorded, composed: Composed) -> Iterator[str]:
    if value == "none" or not isinstance(value, dict):
        if value != "none":
            yield unmapped("clip", value)
        elif composed.method.clip is not None:
            yield unequal("clip", composed.method.clip, value)
        return
    yield from (
        unmapped(f"clip.{key}", x) for key, x in value.items() if key not in ("mode", "value", "formula", *NOTES)
    )
    if value.get("formula") not in (None, *FORMULAS):
        yield unmapped("clip.formula", value["formula"])
    if value["mode"] not in MODES:
        yield unmapped("clip.mode", value["mode"])
    elif composed.method.clip is None:
        yield unequal("clip", None, value)
    else:
        yield from _applied(value, composed)


def _applied(value: dict[str, Any], composed: Composed) -> Iterator[str]:
    """Our clipping of gradients under the names of our parameters, against the formula of the mode."""
    shared, left_out = MODES[value["mode"]]
    names = [name for name, p in composed.method.named_parameters() if p.requires_grad]
    tensors = {name: nn.Parameter(torch.zeros(2, dtype=torch.float64)) for name in names}
    lengths = {name: LENGTHS[i % len(LENGTHS)] for i, name in enumerate(names)}
    for name, p in tensors.items():
        p.grad = torch.tensor([0.6, 0.8], dtype=torch.float64) * lengths[name]
    assert composed.method.clip is not None
    composed.method.clip(tensors.items())
    cut = [name for name in names if left_out is None or left_out not in name]
    whole = sum(lengths[name] ** 2 for name in cut) ** 0.5
    for name, p in tensors.items():
        norm = lengths[name] if shared == "each" else whole
        factor = min(value["value"] / (norm + 1e-6), 1.0) if name in cut else 1.0
        assert p.grad is not None
        if abs(float(p.grad.norm()) - factor * lengths[name]) > 1e-6:
            kept = f"{name} keeps {float(p.grad.norm()):.6g} of {lengths[name]:g}"
            yield f"clip: {composed.method.clip}: {kept}, by the recorded rule {factor * lengths[name]:.6g}"
            return
