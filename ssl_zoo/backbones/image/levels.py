"""A view as one vector and as maps of several layers, of any network that has maps or tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ssl_zoo.backbones.base import Backbone


def vector_and_maps(backbone: Backbone, view: Tensor, layers: Sequence[int]) -> list[Tensor]:
    """The mean of the last map (or the class token), then a map for each of ``layers``, from one forward pass.

    Args:
        layers: Counted from the end: -1 is the last map of a network, or the patch tokens of its last block.

    Returns:
        ``[B, C, 1, 1]``, then ``[B, C_l, h_l, w_l]``.

    Raises:
        ConfigError: If the backbone has neither maps nor tokens.
        ValueError: If it has fewer layers.
    """
    if backbone.has_maps:
        maps = backbone.forward_maps(view)
        vector = maps[-1].mean((2, 3))
    else:
        depth = -min(layers)
        tokens = backbone.forward_tokens(view, layers=depth)
        maps = [x.mT.unflatten(2, tokens.grid) for x in tokens.patches.chunk(depth, dim=2)]
        vector = maps[-1].mean((2, 3)) if tokens.cls is None else tokens.cls.chunk(depth, dim=1)[-1]
    if not all(-len(maps) <= layer < 0 for layer in layers):
        raise ValueError(f"layers={list(layers)}: backbone {backbone.name!r} has the layers -1 to {-len(maps)}")
    return [vector[:, :, None, None], *(maps[layer] for layer in layers)]


def layers_of_sides(backbone: Backbone, channels: int, image_size: int, sides: Sequence[int | None]) -> list[int]:
    """The layers whose maps have these sides, counted from the end; as many last ones where one of them is missing."""
    last = [-1 - i for i in range(len(sides))]
    if not backbone.has_maps:
        return last
    with _looking(backbone, channels, image_size) as x, torch.no_grad():
        maps = backbone.forward_maps(x)
    found = {each.shape[2]: place - len(maps) for place, each in enumerate(maps)}
    wanted = [found[side] for side in sides if side in found]
    return wanted if len(wanted) == len(sides) else last


def widths_of(
    backbone: Backbone, channels: int, image_size: int, layers: Sequence[int], used: Collection[int]
) -> list[int]:
    """Channels of each level of :func:`vector_and_maps`, from a black image in eval mode: no statistics move.

    In place: parameters that no level of ``used`` depends on (a norm behind the maps) are not trained any more.
    """
    params = [p for p in backbone.parameters() if p.requires_grad]
    with _looking(backbone, channels, image_size) as x:
        levels = vector_and_maps(backbone, x, layers)
    total = torch.stack([levels[i].sum() for i in used]).sum()
    for p, gradient in zip(params, torch.autograd.grad(total, params, allow_unused=True), strict=True):
        p.requires_grad_(gradient is not None)
    return [level.shape[1] for level in levels]


@contextmanager
def _looking(backbone: Backbone, channels: int, image_size: int) -> Iterator[Tensor]:
    """A black image, with the network in eval mode meanwhile."""
    modes = [(part, part.training) for part in backbone.modules()]
    backbone.eval()
    yield next(backbone.parameters()).new_zeros(1, channels, image_size, image_size)
    for part, training in modes:
        part.training = training
