"""Stems, residual branches, stochastic depth and padding of a network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ssl_zoo.backbones.base import Backbone
from tests.golden.recipes.composed import Composed
from tests.golden.recipes.keys import same
from tests.golden.recipes.networks import blocks, groups, is_vit, nets_of
from tests.golden.recipes.real import real_backbone
from tests.golden.recipes.registry import unequal, unmapped
from tests.golden.recipes.words import Grammar


def zero_init(subject: str, wanted: Any, composed: Composed) -> Iterator[str]:
    """Whether the last scale of every residual branch starts at 0; in words, its second convolution."""
    found = [block for net in nets_of(real_backbone(composed)) for block in blocks(net)]
    if wanted == "second convolution of every residual block starts at 0":
        ours = {not bool(block.convs[1].weight.any()) for block in found}
        wanted = True
    elif isinstance(wanted, bool):
        ours = {bool(block.norms) and not bool(_last_norm(block).weight.any()) for block in found}
    else:
        yield unmapped(subject, wanted)
        return
    if ours != {wanted}:
        yield unequal(subject, sorted(ours), wanted)


def _last_norm(block: Any) -> Any:
    """The norm behind the last convolution: in a block that normalises first, no scale is the branch's last part."""
    return block.norms[-1]


def first_conv(net: nn.Module) -> nn.Conv2d:
    return next(m for m in net.modules() if isinstance(m, nn.Conv2d))


def _pools(net: nn.Module) -> bool:
    """Whether there is a max-pool before the first block."""
    return any(isinstance(m, nn.MaxPool2d) for m in net.children())


def _stem_is(kernel: int, stride: int, padding: int | None, pools: bool | None) -> Any:
    """Of the first convolution, and whether a max-pool follows; None: either will do."""

    def ask(match: re.Match[str], backbone: Backbone) -> str | None:
        for net in nets_of(backbone):
            conv = first_conv(net)
            side = conv.padding if isinstance(conv.padding, str) else conv.padding[0]
            ours = (conv.kernel_size[0], conv.stride[0], side)
            wanted = (kernel, stride, side if padding is None else padding)
            if ours != wanted or (pools is not None and _pools(net) is not pools):
                pool = "a max-pool" if _pools(net) else "no max-pool"
                return f"{ours[0]}x{ours[0]} stride {ours[1]} padding {ours[2]}, {pool}"
        return None

    return ask


def _written(match: re.Match[str], backbone: Backbone) -> str | None:
    """``3x3 stride 1 PADDING 2, no max-pool``; the padding that keeps the size where none is written."""
    kernel, stride = int(match.group(1)), int(match.group(2))
    padding = int(match.group(3)) if match.group(3) else kernel // 2
    return _stem_is(kernel, stride, padding, match.group(4) is None)(match, backbone)


def _patches(match: re.Match[str], backbone: Backbone) -> str | None:
    return None if is_vit(backbone.net) else f"{type(backbone.net).__name__} has no patch embedding"


def _own(match: re.Match[str], backbone: Backbone) -> str | None:
    usual = ("ResNet", "VisionTransformer")
    kinds = [kind.__name__ for net in nets_of(backbone) for kind in type(net).__mro__]
    return next((f"that of a {kind}" for kind in kinds if kind in usual), None)


STEM = Grammar(
    (r"imagenet", _stem_is(7, 2, 3, True)),
    (r"small", _stem_is(3, 1, 1, False)),
    (r"(\d)x\d stride (\d)(?: padding (\d))?(, no max-pool)?", _written),
    (r"for STL-10 too", None),
    (r"patch", _patches),
    (r"efficientnet", _stem_is(3, 2, None, None)),
    (r"own", _own),
)


def rates(net: nn.Module) -> list[float]:
    """Of stochastic depth, block by block; 0 where a block has none."""
    found = []
    for block in getattr(net, "blocks", []) if is_vit(net) else _all_blocks(net):
        own = {_rate(m) for m in block.modules()} - {None}
        found.append(max(own, default=0.0))
    return found


def _rate(module: Any) -> float | None:
    if type(module).__name__ == "DropPath":
        return float(module.drop_prob or 0.0)
    return float(module.p) if type(module).__name__ == "StochasticDepth" else None


def _all_blocks(net: nn.Module) -> list[nn.Module]:
    """Blocks of any kind that add a shortcut: what holds one stochastic depth each, or the residual blocks."""
    kinds = ("InvertedResidual", "DepthwiseSeparableConv", "MBConv", "FusedMBConv", "BasicBlock", "Bottleneck")
    return [m for m in net.modules() if type(m).__name__ in kinds]


def _last_rate(match: re.Match[str], composed: Composed) -> str | None:
    """The rate of the last block; where it grows from 0 with i / n, the last of n blocks has (n - 1) / n of it."""
    wanted, ours = float(match.group(1)), rates(nets_of(composed.method.backbone)[0])
    ends = {wanted, wanted * (len(ours) - 1) / max(len(ours), 1)}
    return None if (any(same(max(ours, default=0.0), end, 1e-6) for end in ends)) else f"{max(ours, default=0.0):g}"


def _linspace(match: re.Match[str], composed: Composed) -> str | None:
    ours = rates(nets_of(composed.method.backbone)[0])
    even = torch.linspace(0, ours[-1], len(ours)).tolist() if ours else []
    apart = max((abs(a - b) for a, b in zip(ours, even, strict=True)), default=1.0)
    return None if apart < 1e-6 and ours[-1] > 0 else f"rates {[round(rate, 4) for rate in ours]}"


def _uniform(match: re.Match[str], composed: Composed) -> str | None:
    ours = set(rates(nets_of(composed.method.backbone)[0]))
    return None if len(ours) == 1 else f"rates {sorted(ours)}"


def _student_only(match: re.Match[str], composed: Composed) -> str | None:
    teacher = getattr(composed.method, "teacher", None)
    held = {rate for m in (teacher.modules() if teacher is not None else []) if (rate := _rate(m)) is not None}
    return None if teacher is not None and held <= {0.0} else f"the teacher drops paths at {sorted(held)}"


def _survival(match: re.Match[str], composed: Composed) -> str | None:
    rate = float(match.string.split("depth ")[1].split()[0])
    return None if same(1 - float(match.group(1)), rate, 1e-6) else f"{1 - rate:g}"


DROP_PATH = Grammar(
    (r"stochastic depth (\d*\.\d+)", _last_rate),
    (r"survival (\d*\.\d+)", _survival),
    (r"linspace over the blocks", _linspace),
    (r"linear over blocks", _linspace),
    (r"uniform|the same in all blocks", _uniform),
    (r"student only", _student_only),
    (r"\[EfficientNet's default, memory\]", None),
)


def shortcut(subject: str, wanted: str, composed: Composed) -> Iterator[str]:
    """Whether the first block of each group projects its shortcut, also where widths and sizes are equal."""
    if wanted != "projection in the first block of every group":
        yield unmapped(subject, wanted)
        return
    for net in nets_of(composed.method.backbone):
        without = [group[0].name for group in groups(net) if not group[0].projection]
        if without:
            yield unequal(subject, f"{', '.join(without)} without projection", wanted)


def _units(match: re.Match[str], composed: Composed) -> str | None:
    """Stages that are trained as units, each of which shares as many with the next."""
    words = {"one": 1, "two": 2, "three": 3}
    size, overlap, method = words[match.group(1)], words[match.group(2)], composed.method
    ours = getattr(method, "overlap", None)
    units = len(getattr(method, "projectors", []))
    right = ours == overlap and units == len(groups(nets_of(method.backbone)[0])) - overlap and size == overlap + 1
    return None if right else f"{units} units that overlap by {ours}"


STAGES = Grammar((r"units of (one|two|three) stages that overlap by (one|two|three)", _units))


def stages(subject: str, wanted: str, composed: Composed) -> Iterator[str]:
    yield from STAGES.differences(subject, wanted, composed)


def last_stride(net: nn.Module) -> int:
    return max(max(conv.stride) for block in groups(net)[-1:] for conv in block[0].convs) if groups(net) else 0


def padding(subject: str, wanted: str, composed: Composed) -> Iterator[str]:
    """TensorFlow's SAME: where a stride does not need all, the right and lower side get more zeros than the left."""
    if wanted != "SAME (asymmetric at stride 2)":
        yield unmapped(subject, wanted)
        return
    for name, conv in nets_of(real_backbone(composed))[0].named_modules():
        if not isinstance(conv, nn.Conv2d) or conv.stride[0] != 2 or conv.kernel_size[0] == 1:
            continue
        x, kernel = torch.randn(1, conv.in_channels, 16, 16), conv.kernel_size[0]
        total = max(kernel - 2, 0)
        sides = [total // 2, total - total // 2] * 2
        if not torch.allclose(conv(x), F.conv2d(F.pad(x, sides), conv.weight, conv.bias, 2), atol=1e-4):
            yield unequal(subject, f"{name} pads {conv.padding} on both sides", wanted)
            return


def embedding(subject: str, wanted: str, composed: Composed) -> Iterator[str]:
    """A linear map behind the network, part of it: ``Linear(384, 512) of the class token``."""
    match = re.fullmatch(r"Linear\((\d+), (\d+)\) of the class token", wanted)
    if match is None:
        yield unmapped(subject, wanted)
        return
    backbone = composed.method.backbone
    last = [m for m in backbone.modules() if isinstance(m, nn.Linear)][-1]
    ours = [last.in_features, last.out_features, backbone.out_features]
    if ours != [int(match.group(1)), int(match.group(2)), int(match.group(2))]:
        yield unequal(subject, f"Linear{tuple(ours[:2])} last, {ours[2]} features", wanted)
