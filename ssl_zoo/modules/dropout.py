"""Dropout whose masks come from the draws of a batch."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from ssl_zoo.augmentations.rng import BatchRNG, Draw


def dropout(x: Tensor, share: float, draw: Draw) -> Tensor:
    """Set this share of the entries of ``[B, ...]`` to 0 and divide the others by the rest, as ``nn.Dropout``.

    The masks belong to samples: they do not depend on the number of processes, nor on what ran before.
    """
    if not share:
        return x
    kept = draw.uniform("kept", *x.shape[1:]).to(x.device) >= share
    return x * kept / (1 - share)


def with_dropout(layers: Iterable[nn.Module], x: Tensor, share: float, rng: BatchRNG) -> Tensor:
    """Apply one layer after another to ``[B, F]``, with dropout before each linear one (AlexNet's classifier)."""
    for i, layer in enumerate(layers):
        if isinstance(layer, nn.Linear):
            x = dropout(x, share, rng.sample(("dropout", i)))
        x = layer(x)
    return x
