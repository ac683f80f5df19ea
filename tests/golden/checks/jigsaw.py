"""Jigsaw: sets of permutations, the tiles of three code bases, and tiles that are standardised and put in an order."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.augmentations.image.patches import Jigsaw
from ssl_zoo.augmentations.image.shortcuts import Standardise
from ssl_zoo.augmentations.rng import Draw, RecordedDraw, RecordedRNG
from ssl_zoo.data.batch import Batch
from ssl_zoo.methods import jigsaw
from ssl_zoo.modules.heads import MLP
from ssl_zoo.modules.permutations import permutation_set
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, fill, no_recipe


def check_permutations(h: Any, arrays: Values) -> None:
    """Each set from its first permutation, which was drawn."""
    for distance in ("max_avg", "max_min"):
        wanted = arrays[f"perms_{distance}"]
        assert wanted.shape == (h["N"], h["M"])
        first = list(itertools.permutations(range(h["M"]))).index(tuple(wanted[0].tolist()))
        close(permutation_set(h["M"], h["N"], distance, first), wanted, distance)  # type: ignore[arg-type]


def places(rows: np.ndarray, columns: np.ndarray, count: int) -> RecordedDraw:
    """Recorded shifts ``[P]`` out of ``count`` each, row by row, as the uniform numbers that give them."""
    shifts = (torch.tensor(shift).reshape(1, -1) for shift in (rows, columns))
    return RecordedDraw({("place", axis): (shift + 0.5) / count for axis, shift in enumerate(shifts)})


def check_tiles(h: Any, arrays: Values) -> None:
    """vissl's tiles, column by column, and PyContrast's and bbrattoli's, row by row."""
    image, jitter = torch.tensor(arrays["patch_image"])[None], arrays["patch_jitter"]
    assert image.shape[-1] == h["size"]
    grid = jitter.shape[1]
    side = h["size"] // grid - h["jit"]
    op = Jigsaw(side, grid, shuffle=False, order="columns", last=False)
    cut = op(image, places(jitter[1].T, jitter[0].T, h["jit"]))
    close(cut[0], arrays["patches_colmajor"], "vissl's tiles")

    draw = places(*arrays["jigcrop_draws"], h["jit"] + 1)
    Jigsaw(side, grid, shuffle=False)(image, draw)
    close(draw.reports["box"][0, :, :2], arrays["jigcrop_top_left"], "PyContrast's tiles")

    boxes = arrays["tile_boxes"]  # left, top, right, bottom in an image of 255 x 255
    tiles = round(len(boxes) ** 0.5)
    top, left, height, width = Jigsaw(64, tiles, overlap=1).cells(255, 255).unbind(1)
    close(torch.stack((left, top, left + width, top + height), dim=1), boxes, "bbrattoli's cells")


def arranged_by_the_method(tiles: Tensor, table: np.ndarray, index: np.ndarray) -> Tensor:
    """What the method arranges in its step, with the tiles themselves as their embeddings, which ReLU leaves alone."""
    count = tiles.shape[1]
    head = partial(MLP, hidden=[], out_features=len(table))
    width = tiles[0, 0].numel()
    method = jigsaw.Jigsaw(Identity(width), no_recipe(), Identity, head, count, len(table))  # type: ignore[arg-type]
    fill(method, {"permutations": table})
    label = torch.tensor([int(index)])
    rng = RecordedRNG(sample={"permutation": {"label": label}, ("dropout", 0): {}})
    batch = Batch([tiles.flatten(2).exp()], torch.arange(1), None, rng)
    with mock.patch.object(jigsaw, "arranged", wraps=jigsaw.arranged) as spy:
        method.training_loss(batch)
    (call,) = spy.call_args_list
    assert call.args[1].tolist() == [table[int(index)].tolist()]
    return jigsaw.arranged(tiles, call.args[1])


def check_shuffled(h: Any, arrays: Values) -> None:
    tiles = torch.tensor(arrays["tiles"])
    assert tiles.shape[-1] == h["ts"]
    normal = Standardise("apart")(tiles, Draw(0, None))[None]
    found = arranged_by_the_method(normal, arrays["perm_table"], arrays["perm_index"])
    close(found[0], arrays["shuffled_tiles"], "normalised tiles in their order")


def check(document: Any, arrays: Values) -> None:
    h = document["hyperparameters"]
    check_permutations(h, arrays)
    check_tiles(h, arrays)
    check_shuffled(h, arrays)


CHECKS = {"jigsaw": {"*": check}}
