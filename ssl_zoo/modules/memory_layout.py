"""How tensors lie in memory."""

from __future__ import annotations

import torch
from torch import nn


def channels_last(module: nn.Module, device: torch.device) -> None:
    """Give weights of convolutions the layout that is fast on ``device``, in place; names and numbers stay."""
    if device.type != "cpu" or not any(map(_overflows, module.modules())):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _overflows(layer: nn.Module) -> bool:
    """Whether torch corrupts the heap in this layer's backward pass on a CPU if its layout is channels-last.

    Seen with torch 2.6, 2.11 and 2.14 on CPUs with AVX2 alone and one thread (``ONEDNN_MAX_CPU_ISA=AVX2``): 1 x 1
    convolutions with a stride write past a buffer if they have fewer channels than a vector has numbers, eight.
    """
    if not isinstance(layer, nn.Conv2d):
        return False
    return layer.kernel_size == (1, 1) and layer.stride != (1, 1) and layer.in_channels // layer.groups < 8
