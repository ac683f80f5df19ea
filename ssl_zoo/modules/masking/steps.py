"""Which steps of a series a network sees: True is seen."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ssl_zoo.augmentations.rng import Draw

Kind = Literal["binomial", "continuous", "all"]
SHARE, RUNS = 0.5, 5  # seen, of single steps; hidden runs of a series
RUN = 0.1  # of a series, the length of one


def kept_steps(kind: Kind, steps: int, draw: Draw) -> Tensor | None:
    """``generate_binomial_mask`` and ``generate_continuous_mask`` of ``models/encoder.py``, zhihanyue/ts2vec@b0088e14.

    Args:
        kind: binomial: each step is seen with probability 1/2; continuous: five runs of a tenth of the series each are
            hidden; all: all are seen.
        steps: T.
        draw: One row for each series.

    Returns:
        ``[B, T]`` bool; None: all are seen.
    """
    if kind == "all":
        return None
    if kind == "binomial":
        return draw.uniform("kept", steps) < SHARE
    length = max(int(RUN * steps), 1)
    return without_runs(draw.integers("starts", steps - length + 1, RUNS), length, steps)


def without_runs(starts: Tensor, length: int, steps: int) -> Tensor:
    """``[B, T]``: all steps but the ``length`` from each of ``starts`` ``[B, n]``, which may overlap."""
    since = torch.arange(steps, device=starts.device) - starts[..., None]  # [B, n, T]
    return ~((since >= 0) & (since < length)).any(1)
