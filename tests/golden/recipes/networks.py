"""Which network a network is: told by its blocks and widths, not by its name; and what its recorded name says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_zoo.backbones.base import Backbone

# Blocks of each group, convolutions of a block, channels at the end of the first group.
RESNETS: dict[str, tuple[tuple[int, ...], int, int]] = {
    "resnet18": ((2, 2, 2, 2), 2, 64),
    "resnet34": ((3, 4, 6, 3), 2, 64),
    "resnet50": ((3, 4, 6, 3), 3, 256),
    "resnet101": ((3, 4, 23, 3), 3, 256),
    "resnet152": ((3, 8, 36, 3), 3, 256),
    "resnet200": ((3, 24, 36, 3), 3, 256),
}
# Width, blocks, heads.
VITS: dict[str, tuple[int, int, int]] = {
    "vit_tiny": (192, 12, 3),
    "vit_small": (384, 12, 6),
    "vit_base": (768, 12, 12),
    "vit_large": (1024, 24, 16),
    "vit_huge": (1280, 32, 16),
    "vit_giant": (1408, 40, 16),
}
# Parameters of published networks without their classifier.
PARAMETERS = {
    "efficientnet-b0": 4_007_548,
    "efficientnet-b1": 6_513_184,
    "efficientnet-b2": 7_700_994,
    "convnext_tiny": 27_820_128,
    "convnext_small": 49_454_688,
    "convnext_base": 87_566_464,
}


@dataclass(frozen=True)
class Residual:
    """A block with a shortcut: its convolutions in order, their norms, and the projection of the shortcut, if any."""

    name: str
    convs: list[nn.Conv2d]
    norms: list[nn.Module]
    projection: list[nn.Conv2d]


SHORTCUTS = ("downsample", "shortcut", "convShortcut", "conv_shortcut", "proj", "res")


def blocks(net: nn.Module) -> list[Residual]:
    """The residual blocks of a convolutional network: the smallest Blocks and Bottlenecks of two convolutions."""
    words = ("Block", "Bottleneck", "ConvRes")
    named = [(name, m) for name, m in net.named_modules() if any(word in type(m).__name__ for word in words)]
    large = [(name, m) for name, m in named if sum(isinstance(part, nn.Conv2d) for part in m.modules()) >= 2]
    known = {m for _, m in large}
    around = {m for m in known if any(part in known for part in m.modules() if part is not m)}  # groups of blocks
    return [_residual(name, m) for name, m in large if m not in around]


def _residual(name: str, block: nn.Module) -> Residual:
    shortcut = {m for key, child in block.named_children() if key in SHORTCUTS for m in child.modules()}
    parts = [m for m in block.modules() if m not in shortcut]
    convs = [m for m in parts if isinstance(m, nn.Conv2d)]
    norms = [m for m in parts if isinstance(m, (_BatchNorm, nn.GroupNorm, nn.LayerNorm))]
    return Residual(name, convs, norms, [m for m in shortcut if isinstance(m, nn.Conv2d)])


def groups(net: nn.Module) -> list[list[Residual]]:
    """Blocks of one number of channels and one scale, one after another."""
    found: list[list[Residual]] = []
    for block in blocks(net):
        halves = any(max(_pair(conv.stride)) > 1 for conv in block.convs)
        wider = not found or found[-1][-1].convs[-1].out_channels != block.convs[-1].out_channels
        if halves or wider:
            found.append([])
        found[-1].append(block)
    return found


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def resnet_shape(net: nn.Module) -> tuple[tuple[int, ...], int, int]:
    """As in ``RESNETS``; empty for another kind of network."""
    found = groups(net)
    if not found:
        return (), 0, 0
    return tuple(map(len, found)), len(found[0][0].convs), found[0][-1].convs[-1].out_channels


def is_vit(net: Any) -> bool:
    return hasattr(net, "blocks") and hasattr(net, "patch_embed")


def vit_shape(net: Any) -> tuple[int, int, int]:
    return net.embed_dim, len(net.blocks), net.blocks[0].attn.num_heads


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def nets_of(backbone: Backbone) -> list[Any]:
    """The network, or the networks that stand side by side in it."""
    return list(getattr(backbone.net, "towers", [backbone.net]))


def options_of(backbone: Backbone) -> Iterator[tuple[str, Any]]:
    """How the network was built, and what it says of itself."""
    yield from backbone.origin.arguments.items()
    yield from ((key, value) for key, value in vars(backbone.net).items() if isinstance(value, (int, float)))


def wide_resnet(depth: int, factor: int) -> tuple[tuple[int, ...], int, int]:
    """Three groups of (depth - 4) / 6 blocks; the first has 16 channels times the factor."""
    return ((depth - 4) // 6,) * 3, 2, 16 * factor
