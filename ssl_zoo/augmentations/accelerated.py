"""Where the kernels of :mod:`ssl_zoo.augmentations.kernels` are at hand."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor

VOLTA = (7, 0)  # the oldest GPUs that Triton compiles for


def kernels_for(x: Tensor) -> ModuleType | None:
    """The kernels, where ``x`` lies on a GPU that takes them; None elsewhere, for float64, which they would round, and
    in code that is being compiled, whose compiler fuses by itself."""
    if x.device.type != "cuda" or x.dtype == torch.float64 or torch.compiler.is_compiling():
        return None
    return _kernels(x.device)


@cache
def _kernels(device: torch.device) -> ModuleType | None:
    if torch.version.cuda and torch.cuda.get_device_capability(device) < VOLTA:
        return None
    try:
        from ssl_zoo.augmentations import kernels
    except ImportError:  # torch has no Triton on every system
        return None
    return kernels
