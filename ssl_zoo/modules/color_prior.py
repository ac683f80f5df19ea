"""How often colours occur, by which rare ones weigh more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.colorization import rarity
from ssl_zoo.modules.queue import Staged


class ColorPrior(Staged):
    """How often each bin occurs, counted while it is seen, or given.

    The authors counted ImageNet beforehand. Here each batch adds its soft targets, of all processes, before its own
    weights are read: after an epoch these are the shares in the training set.

    Args:
        bins: Q.
    """

    counts: Tensor  # [Q] pixels seen, as soft counts
    given: Tensor  # bool: whether they were told and stay

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(bins))
        self.register_buffer("given", torch.zeros((), dtype=torch.bool))

    def tell(self, shares: Tensor) -> None:
        """Use ``shares`` ``[Q]`` from now on and count no more."""
        self.counts.copy_(shares)
        self.given.fill_(True)

    def weights(self, new: Tensor, uniform: float) -> Tensor:
        """``[Q]`` of :func:`ssl_zoo.losses.colorization.rarity`, with the counts ``new`` ``[Q]`` of this batch.

        They are kept after the backward pass; told shares stay as they are.
        """
        counts = self.counts + new.where(~self.given, 0.0)
        self.stage(counts)
        return rarity(counts / counts.sum(), uniform)

    def write(self, rows: Tensor) -> None:
        self.counts.copy_(rows)


def read_prior(path: str, bins: int) -> Tensor:
    """Shares of the bins in a NumPy file, as the authors' prior_probs.npy.

    Raises:
        ConfigError: If it cannot be read, or holds anything but so many numbers of at least 0.
    """
    try:
        found = np.load(Path(path).expanduser(), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"method.prior={path} cannot be read ({error}); wanted a .npy file of {bins} shares, or null, by which "
            "they are counted"
        ) from None
    fits = found.shape == (bins,) and found.dtype.kind in "fiu" and bool((found >= 0).all()) and found.sum() > 0
    if not fits:
        raise ConfigError(
            f"method.prior={path} holds {found.dtype} of shape {list(found.shape)}; wanted {bins} shares, none below 0"
        )
    return torch.from_numpy(found.astype(np.float64) / found.sum())


def prior_problem(path: str | None, bins: int) -> str | None:
    """What is wrong with the file, in a sentence; None: nothing, or there is none."""
    try:
        if path is not None:
            read_prior(path, bins)
    except ConfigError as error:
        return str(error)
    return None
