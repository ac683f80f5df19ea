"""Glorot and Bengio's start of linear layers."""

from __future__ import annotations

from torch import nn


def xavier_(module: nn.Module) -> nn.Module:
    """Draw the weights of all linear layers of ``module`` Xavier-uniform, and set their biases to 0, in place."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module
