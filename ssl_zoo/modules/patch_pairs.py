"""Pairs of tiles of an image, and the class that says how one lies to the other.

Classes are the places of a ring around a tile, row by row: 0 1 2, 3 . 4, 5 6 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Pairing = Literal["centre", "neighbours"]
CLASSES = 8
BEFORE = ((-1, -1), (0, -1), (1, -1), (-1, 0))  # across and down to the neighbours that were there before


class Pairs(NamedTuple):
    """Pairs of the tiles of one image, counted row by row."""

    tiles: Tensor  # [K, 2]
    label: Tensor  # [K] in 0..7


def ring_place(across: Tensor, down: Tensor) -> Tensor:
    """Class of a step by -1, 0 or 1 in both directions, but not 0 in both (``pos2lbl``, deepcontext's train.py)."""
    place = 3 * (down + 1) + across + 1
    return place - (place > 4).long()


def neighbour_pairs(down: int, across: int) -> Pairs:
    """All pairs of tiles that touch, in both orders; the class is the place of the second around the first.

    The loop of ``imgloader`` in train.py, cdoersch/deepcontext@5307282, in its order.

    Args:
        down, across: Tiles of the grid.

    Raises:
        ValueError: If no two tiles touch.
    """
    if down * across < 2:
        raise ValueError(f"method.grid: {down} x {across} tiles have no neighbours; set it to 2 or more")
    tiles, steps = [], []
    for row in range(down):
        for column in range(across):
            for dx, dy in BEFORE:
                x, y = column + dx, row + dy
                if x < 0 or y < 0 or x >= across:
                    continue
                own, other = row * across + column, y * across + x
                tiles += [(own, other), (other, own)]
                steps += [(dx, dy), (-dx, -dy)]
    step = torch.tensor(steps)
    return Pairs(torch.tensor(tiles), ring_place(step[:, 0], step[:, 1]))


def centre_pairs(down: int, across: int) -> Pairs:
    """Each outer tile of a 3 x 3 grid with the one in the middle; the class is the place of the first of the two.

    ``generate_patch_locations`` in self_supervision/patch_utils.py, google/revisiting-self-supervised@b530e3b.

    Raises:
        ValueError: If the grid is another one.
    """
    if (down, across) != (3, 3):
        raise ValueError(f"method.pairing=centre wants 3 x 3 tiles, and method.grid says {down} x {across}; set "
                         "method.grid=3 and the same in the view, or method.pairing=neighbours")
    label = torch.arange(CLASSES)
    outer = label + (label >= 4).long()
    return Pairs(torch.stack((outer, torch.full_like(outer, 4)), dim=1), label)


PAIRS: dict[str, Callable[[int, int], Pairs]] = {"centre": centre_pairs, "neighbours": neighbour_pairs}


def pair_features(embeddings: Tensor, tiles: Tensor, interleaved: bool = False) -> Tensor:
    """The two embeddings of each pair side by side: ``[B, P, D]``, ``[K, 2]`` -> ``[B, K, 2 D]``.

    Args:
        interleaved: The first number of both, then the second of both, ... (``permutate_and_concat_image_patches`` of
            google/revisiting-self-supervised@b530e3b); false: one behind the other (deepcontext).
    """
    both = embeddings[:, tiles]                                                      # [B, K, 2, D]
    return (both.transpose(2, 3) if interleaved else both).flatten(2)
