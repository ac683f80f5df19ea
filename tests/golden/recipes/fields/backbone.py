"""The network: which one, its stem, its positions, what of it is frozen, how it starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tests.golden.recipes import backbone_names, positions, residuals, starts
from tests.golden.recipes.composed import Composed
from tests.golden.recipes.keys import by_key, equal_to, same
from tests.golden.recipes.networks import blocks, is_vit, nets_of
from tests.golden.recipes.real import real_backbone, real_method
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.registry import field, unequal, unmapped
from tests.golden.recipes.words import Grammar

STARTS = Grammar(*starts.PHRASES)


@field("backbone")
def backbone(value: Any, recorded: Recorded, composed: Composed) -> Iterator[str]:
    yield from by_key("backbone", value, READERS, composed)


def net_of(composed: Composed) -> Any:
    return nets_of(composed.method.backbone)[0]


def _drop_path(subject: str, wanted: Any, composed: Composed) -> Iterator[str]:
    """A number is the rate of the last block; words say which rule gives the others."""
    text = wanted if isinstance(wanted, str) else f"stochastic depth {wanted}"
    yield from residuals.DROP_PATH.differences(subject, text, composed)


def _drop_path_rule(subject: str, wanted: str, composed: Composed) -> Iterator[str]:
    yield from residuals.DROP_PATH.differences(subject, wanted, composed)


def _frozen(subject: str, wanted: list[str], composed: Composed) -> Iterator[str]:
    """Parts that are not trained, fixed positions aside: those are recorded as positions."""
    method = composed.method
    parameters = [name for name, p in method.backbone.named_parameters() if not p.requires_grad]
    ours = {name for name in parameters if not name.endswith("pos_embed")}
    for part in wanted:
        other = getattr(method, part, None)
        held = list(other.parameters()) if isinstance(other, nn.Module) else []
        named = {name for name in ours if part in name.split(".")}
        if not named and not (held and not any(p.requires_grad for p in held)):
            yield f"{subject}: {part} is trained, or not there; recorded {wanted!r}"
        ours -= named
    if ours:
        yield unequal(subject, sorted(ours), wanted)


def _class_token(subject: str, wanted: bool, composed: Composed) -> Iterator[str]:
    ours = getattr(net_of(composed), "cls_token", None) is not None
    if ours is not wanted:
        yield unequal(subject, ours, wanted)


def _init(subject: str, wanted: str, composed: Composed) -> Iterator[str]:
    for net in nets_of(real_backbone(composed)):
        yield from STARTS.differences(subject, wanted, net)


def _norm_eps(subject: str, wanted: float, composed: Composed) -> Iterator[str]:
    ours = sorted({m.eps for m in net_of(composed).modules() if isinstance(m, nn.LayerNorm)})
    if len(ours) != 1 or not same(ours[0], wanted):
        yield unequal(subject, ours, wanted)


def _layer_scale(subject: str, wanted: float, composed: Composed) -> Iterator[str]:
    scales = [m.gamma for m in net_of_real(composed).modules() if type(m).__name__ == "LayerScale"]
    ours = sorted({round(float(x), 9) for scale in scales for x in scale.detach().unique()})
    if len(ours) != 1 or not same(ours[0], wanted, 1e-6):
        yield unequal(subject, ours, wanted)


def net_of_real(composed: Composed) -> Any:
    return nets_of(real_backbone(composed))[0]


def _batch_norm(subject: str, wanted: bool, composed: Composed) -> Iterator[str]:
    ours = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in composed.method.backbone.modules())
    if ours is not wanted:
        yield unequal(subject, ours, wanted)


def _last_stride(subject: str, wanted: int, composed: Composed) -> Iterator[str]:
    ours = residuals.last_stride(net_of(composed))
    if ours != wanted:
        yield unequal(subject, ours, wanted)


def _pretrained(subject: str, wanted: str, composed: Composed) -> Iterator[str]:
    """Weights by a name that says ImageNet-1k, in timm's or torchvision's words."""
    ours = str(composed.cfg.backbone.get("weights"))
    words = {"ImageNet": ("in1k", "IMAGENET1K", "imagenet")}
    if wanted not in words:
        yield unmapped(subject, wanted)
    elif not any(word in ours for word in words[wanted]):
        yield unequal(subject, ours, wanted)


def _grid(subject: str, wanted: int, composed: Composed) -> Iterator[str]:
    size = composed.plain["data"]["image_size"]
    with torch.no_grad():
        ours = composed.method.eval().backbone.forward_dense(torch.empty(1, 3, size, size, device="meta")).grid
    composed.method.train()
    if tuple(ours) != (wanted, wanted):
        yield unequal(subject, ours, wanted)


def _draws(subject: str, wanted: str, composed: Composed) -> Iterator[str]:
    """Networks side by side start from draws of their own."""
    if wanted != "each network its own":
        yield unmapped(subject, wanted)
        return
    first, *others = [blocks(net)[0].convs[-1].weight for net in nets_of(real_method(composed).backbone)]
    if not others or any(torch.equal(first, other) for other in others):
        yield unequal(subject, "equal at the start", wanted)


def _stem(subject: str, wanted: str, composed: Composed) -> Iterator[str]:
    yield from residuals.STEM.differences(subject, wanted, composed.method.backbone)


def _name(subject: str, wanted: str, composed: Composed) -> Iterator[str]:
    yield from backbone_names.NAMES.differences(subject, wanted, composed)


def _vit(read: Any) -> Any:
    """A reader for transformers only."""
    return equal_to(lambda composed: read(net_of(composed)) if is_vit(net_of(composed)) else "no transformer")


READERS = {
    "name": _name,
    "zero_init_residual": residuals.zero_init,
    "stem": _stem,
    "drop_path": _drop_path,
    "drop_path_rule": _drop_path_rule,
    "frozen": _frozen,
    "patch": _vit(lambda net: net.patch_embed.patch_size[0]),
    "width": _vit(lambda net: net.embed_dim),
    "depth": _vit(lambda net: len(net.blocks)),
    "heads": _vit(lambda net: net.blocks[0].attn.num_heads),
    "class_token": _class_token,
    "positions": positions.kind,
    "position_interpolation": positions.interpolation,
    "init": _init,
    "norm_eps": _norm_eps,
    "layer_scale": _layer_scale,
    "batch_norm": _batch_norm,
    "shortcut": residuals.shortcut,
    "padding": residuals.padding,
    "last_stride": _last_stride,
    "pretrained": _pretrained,
    "grid": _grid,
    "draws": _draws,
    "embedding": residuals.embedding,
    "stages": residuals.stages,
}
