"""From the host to a device without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(x: Tensor, device: torch.device | str) -> Tensor:
    """``x`` on ``device``: the same tensor where it lies there already, as on a CPU.

    A GPU copies by itself, behind what it was told before, only from page-locked memory and only rows that follow one
    another. PyTorch gives that memory to others when the copy is done, so nobody has to wait for it.
    """
    device = torch.device(device)
    if x.device.type != "cpu" or device.type != "cuda":
        return x.to(device)
    return x.contiguous().pin_memory().to(device, non_blocking=True)
