"""Relative patches: the grid and the pairs of deepcontext, the tiles and pairs of revisiting-self-supervised."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.augmentations.image.patches import Jigsaw, SpacedTiles
from ssl_zoo.augmentations.image.shortcuts import DropColours
from ssl_zoo.augmentations.rng import RecordedDraw
from ssl_zoo.modules.patch_pairs import centre_pairs, neighbour_pairs, pair_features, ring_place
from tests.golden.compare import close
from tests.golden.harness import Values

RMS = 50.0  # of deepcontext's patches


def check_lattice(h: Any, arrays: Values) -> None:
    """The patches of a grid that begins at a recorded place, and their pairs."""
    size, gap, noise = h["psz"], h["gap"], h["noise"]
    image, start = arrays["image_hw"], arrays["grid_start_xy"][::-1].copy()  # down, across
    assert image.tolist() == [h["H"], h["W"]]
    shape = tuple(int((side + gap - first) // (size + gap)) for side, first in zip(image, start, strict=True))
    shift = torch.tensor(arrays["grid_jitter_draws"]) + noise                        # [P, 2] across, down
    draw = RecordedDraw(
        {
            **{("start", axis): torch.tensor([start[axis]]) for axis in (0, 1)},
            **{("shift", axis): shift[None, :, 1 - axis] for axis in (0, 1)},
        }
    )
    SpacedTiles(size, gap, noise, shape)(torch.zeros(1, 1, *image), draw)
    close(draw.reports["box"][0, :, :2].flip(1), arrays["grid_patch_xy"], "places of the patches")
    pairs = neighbour_pairs(*shape)
    close(pairs.tiles, arrays["pair_index"], "pairs")
    close(pairs.label, arrays["pair_label"], "classes of the pairs")
    close(ring_place(*torch.tensor(arrays["offset_xy"]).T), arrays["offset_label"], "classes of the offsets")


def check_colours(arrays: Values) -> None:
    """One channel of a patch alone, the others noise."""
    patch, kept = chw(arrays["prep_patch"]), int(arrays["prep_kept_channel"])
    noise = torch.zeros(patch.shape, dtype=torch.float64)
    noise[:, [c for c in range(patch.shape[1]) if c != kept]] = torch.tensor(arrays["prep_noise"])
    draw = RecordedDraw({"kept": torch.tensor([kept]), "noise": noise})
    close(DropColours(noise=1.0, rms=RMS)(patch, draw)[0], arrays["prep_out"], "one channel alone")


def check_tiles(h: Any, arrays: Values) -> None:
    """The centre of each cell, and the pairs with the tile in the middle."""
    image, side = chw(arrays["grid_image"]), h["side"]
    assert image.shape[-1] == side
    tiles = Jigsaw(side // h["split"] - h["jit"], h["split"], jitter=0, shuffle=False)
    middle = torch.full((1, h["split"] ** 2), 0.5)
    cut = tiles(image, RecordedDraw({("place", axis): middle for axis in (0, 1)}))
    close(cut[0].permute(0, 2, 3, 1), arrays["grid_patches"], "tiles")
    pairs = centre_pairs(h["split"], h["split"])
    close(pairs.tiles, arrays["loc_pairs"], "pairs")
    assert pairs.label.tolist() == list(range(len(arrays["loc_pairs"]))), "the class is the row"
    embeddings = torch.tensor(arrays["patch_embeddings"]).view(h["B"], h["split"] ** 2, h["E"])
    features = pair_features(embeddings, pairs.tiles, interleaved=True)
    close(features.flatten(0, 1), arrays["pair_features"], "features of the pairs")


def chw(image: np.ndarray) -> Tensor:
    """``[H, W, C]`` as ``[1, C, H, W]``."""
    return torch.tensor(image).permute(2, 0, 1)[None]


def check(document: Any, arrays: Values) -> None:
    h = document["hyperparameters"]
    check_lattice(h, arrays)
    check_colours(arrays)
    check_tiles(h, arrays)


CHECKS = {"relative_patch": {"*": check}}
