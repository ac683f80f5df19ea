"""The blocks of a network: what is computed again instead of kept, and what is split over processes as a whole."""

from __future__ import annotations

from torch import nn


def blocks(net: nn.Module) -> list[nn.Module]:
    """Residual and transformer blocks, in the order of modules.

    They are what stands in an ``nn.Sequential`` or ``nn.ModuleList`` and has parts of its own, but no such in turn:
    of a ResNet or a ConvNeXt the blocks and not the stages.
    """
    found = {
        id(part): part
        for holder in net.modules()
        if isinstance(holder, (nn.Sequential, nn.ModuleList))
        for part in holder
        if any(True for _ in part.children()) and type(part).forward is not nn.Module.forward
    }
    return [part for part in found.values() if not any(id(inner) in found for inner in list(part.modules())[1:])]
