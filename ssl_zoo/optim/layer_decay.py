"""Layer-wise decay of the learning rate: the earlier a layer of the backbone, the smaller its steps.

https://arxiv.org/abs/2003.10555 (ELECTRA); for images the factors are those of facebookresearch/mae
(``util/lr_decay.py``) and facebookresearch/dinov2 (``utils/param_groups.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# Where a backbone stands in a method or a fine-tuned model, then where its network stands in the wrapper.
_BACKBONE = r"(?:(?:backbone|encoder)\.)?(?:net\.)?"
_EMBEDDINGS = re.compile(
    _BACKBONE + r"(?:cls_token|mask_token|reg_token|register_tokens|pos_embed|patch_embed\.|norm_pre\.|"  # timm's ViT
    r"class_token|conv_proj\.|encoder\.pos_embedding|"                         # torchvision's ViT
    r"conv1\.|bn1\.|stem\.|features\.0\.)"                                     # ResNet, ConvNeXt
)
_BLOCKS = tuple(
    re.compile(_BACKBONE + pattern)
    for pattern in (
        r"blocks\.(\d+)\.",                           # timm's ViT
        r"(?:encoder\.)?layers\.encoder_layer_(\d+)\.",  # torchvision's ViT
        r"layer(\d+)\.(\d+)\.",                       # ResNet: stage, block
        r"stages\.(\d+)\.blocks\.(\d+)\.",            # timm's ConvNeXt
        r"stages\.(\d+)\.downsample\.",               # belongs to the first block behind it
        r"layers\.(\d+)\.blocks\.(\d+)\.",           # Swin
        r"layers\.(\d+)\.downsample\.",               # as ConvNeXt's; the authors count it to the block before
        r"features\.([1357])\.(\d+)\.",               # torchvision's ConvNeXt
    )
)
_BETWEEN = re.compile(_BACKBONE + r"features\.([246])\.")  # torchvision's ConvNeXt: before stage 3, 5, 7


def layer_ids(names: Iterable[str], depth: int | None = None) -> tuple[list[int], int]:
    """Number of the layer of each parameter, by its name.

    0 for patches, positions, tokens and the stem; i + 1 for block i, counted over all stages; the last for everything
    else: the final norm, heads, decoders.

    Args:
        names: Names of *all* parameters, also of frozen ones, because blocks are counted by them.
        depth: Number of blocks of a plain ViT, where ``names`` are a selection; None: as many as the names tell.

    Returns:
        The numbers, and that of the last layer (blocks + 1).
    """
    names = list(names)
    places = [_block(name) for name in names]
    order = sorted({place for place in places if place is not None})
    number = {place: i + 1 for i, place in enumerate(order)}
    if depth is not None:  # the names may be a selection: a ViT's blocks have their numbers in the names
        number = {place: place[-1] + 1 for place in order}
    last = (len(order) if depth is None else depth) + 1
    ids = [
        number[place] if place is not None else 0 if _EMBEDDINGS.match(name) else last
        for name, place in zip(names, places, strict=True)
    ]
    return ids, last


def layer_scales(names: Sequence[str], decay: float, depth: int | None = None) -> list[float]:
    """Factor of the learning rate of each parameter: ``decay`` to the number of layers behind it.

    Raises:
        ValueError: If ``decay`` is not in (0, 1], or no name is of a layer that is known.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"optimizer.layer_decay={decay} must be above 0 and at most 1 (MAE, ViT-B: 0.65)")
    ids, last = layer_ids(names, depth)
    if names and not any(i < last for i in ids):
        shown = ", ".join(names[:: max(len(names) // 4, 1)])
        raise ValueError(
            f"optimizer.layer_decay={decay} knows layers of ViTs, ResNets, ConvNeXts and Swins by their names under "
            f"'backbone.' or 'encoder.', and none of {len(names)} parameters is of one; their names look like: "
            f"{shown}; set optimizer.layer_decay=null"
        )
    return [decay ** (last - i) for i in ids]


def _block(name: str) -> tuple[int, ...] | None:
    """(stage, block), or (block,) where the network has no stages."""
    for pattern in _BLOCKS:
        if found := pattern.match(name):
            numbers = tuple(int(number) for number in found.groups())
            return (*numbers, 0) if "downsample" in pattern.pattern else numbers
    between = _BETWEEN.match(name)
    return (int(between[1]) + 1, 0) if between else None
