"""Gradient clipping in the three ways that authors use."""

from __future__ import annotations

import torch
from torch import nn


def clip_gradients(module: nn.Module, mode: str, value: float) -> None:
    """Scale gradients down to a norm of at most ``value``, in place.

    Args:
        module: Its parameters' gradients are clipped.
        mode: ``global`` (one norm over all), ``per_module`` (one norm per child, and one for
            the parameters of no child, as a mask token: DINOv2) or ``per_tensor``
            (one norm per parameter: ``clip_gradients`` of DINO's ``utils.py``).
        value: Largest norm, > 0.
    """
    if mode == "per_tensor":
        groups = [[p] for p in module.parameters()]
    elif mode == "per_module":
        groups = [list(child.parameters()) for child in module.children()]
        groups += [list(module.parameters(recurse=False))]
    else:
        groups = [list(module.parameters())]
    for group in groups:
        held = [p for p in group if p.grad is not None]
        if held:
            torch.nn.utils.clip_grad_norm_(held, value)
