"""Sets of permutations that are far from one another."""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.errors import require

Distance = Literal["max_avg", "max_min"]
MOST = 9  # tiles whose permutations are listed: 362,880 of nine, ten times as many of ten


def permutation_set(
    tiles: int, count: int, distance: Distance = "max_avg", first: int | None = None, seed: int = 0
) -> Tensor:
    """Permutations of the places of tiles, one after the other the farthest from those before it.

    Algorithm 1 of https://arxiv.org/abs/1603.09246, as ``extra_scripts/generate_jigsaw_permutations.py`` of
    facebookresearch/vissl@09270ed: of all that are as far the first in lexicographic order is taken, so that the first
    permutation decides about all others. Hamming distances are averaged in float64 and in the authors' order, because
    the rounding of a sum decides between equal ones.

    Args:
        tiles: P.
        count: N.
        distance: ``max_avg``: the mean distance to those before it is the largest; ``max_min``: the smallest one is.
        first: Where the first one stands among all P! in lexicographic order; None: drawn from ``seed``.
        seed: Of the first one.

    Returns:
        ``[N, P]`` int64 on the CPU.

    Raises:
        ValueError: If there are not so many, or so many tiles that they cannot be listed.
    """
    require("method.distance", distance, get_args(Distance))
    if tiles > MOST:
        raise ValueError(f"method.tiles={tiles}: the permutations of more than {MOST} tiles are too many to compare; "
                         "set the grid of image/jigsaw to 3 or less")
    if count > math.factorial(tiles):
        raise ValueError(f"method.permutations={count}: {tiles} tiles have {math.factorial(tiles)} permutations; set "
                         f"method.permutations to {math.factorial(tiles)} or less")
    if first is None:
        first = int(np.random.default_rng(seed).integers(math.factorial(tiles)))
    return torch.from_numpy(_farthest(tiles, count, distance, first).copy())


@cache
def _all(tiles: int) -> np.ndarray:
    """``[P, P!]`` uint8 in lexicographic order."""
    listed = itertools.chain.from_iterable(itertools.permutations(range(tiles)))
    return np.fromiter(listed, np.uint8).reshape(-1, tiles).T.copy()


@cache
def _farthest(tiles: int, count: int, distance: Distance, first: int) -> np.ndarray:
    every = _all(tiles)
    chosen = [first]
    far = np.zeros(every.shape[1]) if distance == "max_avg" else np.full(every.shape[1], np.inf)
    for done in range(1, count):
        differs = (every != every[:, chosen[-1], None]).sum(0, dtype=np.uint8) / tiles
        far = far + differs if distance == "max_avg" else np.minimum(far, differs)
        far[chosen[-1]] = -np.inf  # each is taken once
        chosen.append(int((far / done if distance == "max_avg" else far).argmax()))
    return every[:, chosen].T.astype(np.int64)
