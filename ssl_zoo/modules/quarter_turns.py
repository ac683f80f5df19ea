"""Rotations by multiples of 90 degrees, which move pixels and mix none of them."""

from __future__ import annotations

import torch
from torch import Tensor

TURNS = 4


def all_turns(x: Tensor) -> Tensor:
    """Square images ``[B, C, s, s]`` by 0, 90, 180 and 270 degrees counter-clockwise: ``[B, 4, C, s, s]``.

    As ``rotate_img`` of dataloader.py in gidariss/FeatureLearningRotNet@edafaba, and ``np.rot90``.
    """
    return torch.stack([x.rot90(k, (2, 3)) for k in range(TURNS)], dim=1)


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Square images ``[B, C, s, s]``, each by its own number of quarter turns counter-clockwise.

    Args:
        turns: ``[B]`` int64, 0 to 3.
    """
    picked = turns.view(-1, 1, 1, 1, 1).expand(-1, 1, *x.shape[1:])
    return all_turns(x).gather(1, picked)[:, 0]
