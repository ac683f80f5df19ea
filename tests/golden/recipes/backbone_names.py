"""What the recorded name of a network says, asked of ours."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from tests.golden.recipes.composed import Composed
from tests.golden.recipes.networks import (
    PARAMETERS,
    RESNETS,
    VITS,
    is_vit,
    nets_of,
    options_of,
    parameters,
    resnet_shape,
    vit_shape,
    wide_resnet,
)
from tests.golden.recipes.residuals import first_conv
from tests.golden.recipes.words import Grammar

SYNONYMS = {"ndf": "width", "n_rkhs": "out_features", "n_depth": "depth"}  # of sizes of networks


def _first(composed: Composed) -> Any:
    return nets_of(composed.method.backbone)[0]


def _resnet(match: re.Match[str], composed: Composed) -> str | None:
    shape, wanted = resnet_shape(_first(composed)), RESNETS[match.group(1).lower()]
    # A factor of all widths: ``width .5``, ``resnet50w2``, ``resnet50 (2x)``.
    width = re.search(r"width (\d*\.?\d+)|resnet\d+[xw](\d)|\((\d)x\)", match.string)
    factor = float(next(filter(None, width.groups()))) if width else 1.0
    wanted = (*wanted[:2], int(wanted[2] * factor))
    return None if shape == wanted else _told(composed)


def _wide(match: re.Match[str], composed: Composed) -> str | None:
    wanted = wide_resnet(int(match.group(1)), int(match.group(2)))
    return None if resnet_shape(_first(composed)) == wanted else _told(composed)


def _teacher(match: re.Match[str], composed: Composed) -> str | None:
    """Its network is in a file that the command names; the experiment must say which."""
    said = str(composed.plain["method"].get("teacher"))
    name = match.group(1)
    return None if re.sub(r"[_-]", "", name) in re.sub(r"[_-]", "", said) else f"a teacher {said}"


def _vit(match: re.Match[str], composed: Composed) -> str | None:
    net, size = _first(composed), match.group(1).lower()
    if not is_vit(net):
        return _told(composed)
    width, depth, heads = VITS[f"vit_{size}"]
    written = re.search(r"(\d+) heads", match.string)
    wanted = (width, depth, int(written.group(1)) if written else None)
    ours = vit_shape(net)
    # Heads that are not written stand under ``heads``.
    return None if ours[:2] == wanted[:2] and wanted[2] in (None, ours[2]) else _told(composed)


def _patch(match: re.Match[str], composed: Composed) -> str | None:
    patch = _first(composed).patch_embed.patch_size[0] if is_vit(_first(composed)) else None
    return _vit(match, composed) or (None if patch == int(match.group(2)) else f"patches of {patch} pixels")


def _any(kind: str) -> Any:
    def ask(match: re.Match[str], composed: Composed) -> str | None:
        net = _first(composed)
        right = is_vit(net) if kind == "vit" else bool(resnet_shape(net)[0])
        return None if right else _told(composed)

    return ask


def _known_size(match: re.Match[str], composed: Composed) -> str | None:
    wanted = PARAMETERS[match.group().lower()]
    return None if abs(parameters(_first(composed)) - wanted) < 1e-3 * wanted else _told(composed)


def _called(match: re.Match[str], composed: Composed) -> str | None:
    """A network of one group of authors: ours is one of that name."""
    own = " ".join([type(_first(composed)).__name__, composed.method.backbone.name]).lower().replace("_", "")
    return None if match.group().lower().replace("_", "") in own else _told(composed)


def _option(match: re.Match[str], composed: Composed) -> str | None:
    name, wanted = match.group(1), int(match.group(2))
    ours = dict(options_of(composed.method.backbone))
    ours = {**ours, "out_features": composed.method.backbone.out_features}
    value = ours.get(name, ours.get(SYNONYMS.get(name, name)))
    return None if value == wanted else f"{name} is {value}"


def _classes(match: re.Match[str], composed: Composed) -> str | None:
    """timm's classifier as an embedding: as many features."""
    features = composed.method.backbone.out_features
    return None if features == int(match.group(1)) else f"{features} features"


def _image(match: re.Match[str], composed: Composed) -> str | None:
    size = composed.plain["data"]["image_size"]
    return None if size == int(match.group(1)) else f"{size} pixels"


def _two(match: re.Match[str], composed: Composed) -> str | None:
    """``two networks of width 0.5 for L (1 channel) and ab (2 channels), stem of 64 channels``."""
    nets = nets_of(composed.method.backbone)
    channels = [first_conv(net).in_channels for net in nets]
    wanted = [int(count) for count in re.findall(r"\((\d+) channels?\)", match.string)]
    return None if channels == wanted else f"networks for {channels} channels"


def _stem(match: re.Match[str], composed: Composed) -> str | None:
    ours = {first_conv(net).out_channels for net in nets_of(composed.method.backbone)}
    return None if ours == {int(match.group(1))} else f"a stem of {sorted(ours)} channels"


def _layer_norm(match: re.Match[str], composed: Composed) -> str | None:
    kinds = {type(m).__name__ for m in composed.method.backbone.modules() if "Norm" in type(m).__name__}
    layered = any(isinstance(m, (nn.LayerNorm, nn.GroupNorm)) for m in composed.method.backbone.modules())
    batch = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in composed.method.backbone.modules())
    return None if layered and not batch else f"{', '.join(sorted(kinds)) or 'no norms'}"


def _told(composed: Composed) -> str:
    net = _first(composed)
    shape = vit_shape(net) if is_vit(net) else resnet_shape(net)
    return f"{composed.method.backbone.name}, {type(net).__name__} of {shape}"


_VIT = r"(tiny|small|base|large|huge|giant)"
NAMES = Grammar(
    (rf"({'|'.join(sorted(RESNETS, key=len, reverse=True))})(?:v1|_cifar|[xw]\d)?(?: \(\dx\))?", _resnet),
    (r"wrn[_-](\d+)[_-](\d+)", _wide),
    (r"teacher (wrn[_-]\d+[_-]\d+)", _teacher),
    (rf"(?:vit|deit)_{_VIT}", _vit),
    (rf"timm vit_{_VIT}_patch(\d+)_224", _patch),
    (r"DeiT-S", None),
    (r"\d+ heads", None),  # asked with the name
    (r"not DeiT's 6", None),
    (r"any ResNet", _any("resnet")),
    (r"any ViT", _any("vit")),
    (r"efficientnet-b\d|convnext_(?:tiny|small|base)", _known_size),
    (r"student and teacher", None),
    (r"frozen, eval mode", None),  # the list of what is frozen says so
    (r"amdim_encoder|cpc_resnet101", _called),
    (r"(ndf|n_rkhs|n_depth) (\d+)", _option),
    (r"defaults", None),
    (r"layer norm", _layer_norm),
    (r"num_classes (\d+)", _classes),
    (r"img_size (\d+)", _image),
    (r"two networks of width \d*\.?\d+", _two),
    (r"L \(1 channel\)|ab \(2 channels\)", None),  # asked with the two
    (r"stem of (\d+) channels", _stem),
    (r"the README says ResNet-\d+|lightly's ResNetGenerator", None),
)
