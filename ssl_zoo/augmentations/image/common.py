"""What operations on images share: which samples they work on, in which precision, and values for each channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.augmentations.rng import Draw

HALVES = (torch.bfloat16, torch.float16)


def full_precision(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorate ``forward``: half types are float32 inside, so that their only error is one rounding at the end."""

    @wraps(forward)
    def wrapped(self: Any, x: Tensor, draw: Draw, **options: Any) -> Tensor:
        half = x.dtype in HALVES
        return forward(self, x.float(), draw, **options).to(x.dtype) if half else forward(self, x, draw, **options)

    return wrapped


def apply_to(x: Tensor, chosen: Tensor, function: Callable[..., Tensor], *parameters: Tensor,
             overwrite: bool = False) -> Tensor:
    """``function(x, *parameters)`` where ``chosen [B]``, ``x`` elsewhere; every parameter has a row for each sample.

    On a CPU only the chosen samples are worked on. An accelerator would have to be waited for to count them, and
    compiled code would break there: both do all the work and mask it.

    Args:
        overwrite: ``x`` may be written into, which saves a copy.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.where(chosen.view(-1, 1, 1, 1), function(x, *parameters), x)
    rows = chosen.nonzero().squeeze(1)
    if len(rows) == len(x):
        return function(x, *parameters)
    if len(rows) == 0:
        return x
    result = function(x.index_select(0, rows), *(values[rows] for values in parameters))
    return x.index_copy_(0, rows, result) if overwrite else x.index_copy(0, rows, result)


def noise(x: Tensor, draw: Draw) -> Tensor:
    """Normal numbers of mean 0 and variance 1 in the shape of ``x``, in float32 from one 24-bit number each.

    ``Draw.normal`` takes two and works in float64, which costs five times as much for as many as there are pixels.
    """
    centred = (2.0 * draw.uniform("noise", *x.shape[1:])).sub_(1.0 - 2.0**-24)   # odd multiples of 2^-24: never +-1
    return torch.erfinv(centred).mul_(math.sqrt(2.0)).to(x.dtype)


def per_channel(name: str, values: float | Sequence[float], x: Tensor) -> Tensor:
    """One value, or one for each channel of ``[B, C, H, W]``, as ``[1 or C, 1, 1]``.

    Filled where ``x`` lives: a tensor made from a list would be copied there while the host waits.
    """
    numbers = [float(value) for value in values] if isinstance(values, Sequence) else [float(values)]
    if len(numbers) not in (1, x.shape[1]):
        raise ValueError(f"{name} is {values}, it must be one number or {x.shape[1]}, one for each channel")
    return torch.cat([x.new_full((1, 1, 1), number) for number in numbers])
