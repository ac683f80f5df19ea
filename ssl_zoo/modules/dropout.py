"""Dropout and stochastic depth whose masks belong to samples: they do not depend on the number of processes.

A method's own dropout draws from ``batch.rng`` (:func:`dropout`). Layers inside of networks, which know no batch, draw
from torch's generators, which are the same on all processes at the beginning of a step (:func:`draw_for_samples`).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from timm import layers
from torch import Tensor, nn
from torchvision import ops

from ssl_zoo.augmentations.rng import BatchRNG, Draw
from ssl_zoo.distributed import rank, world_size
from ssl_zoo.passes import layout


def dropout(x: Tensor, share: float, draw: Draw) -> Tensor:
    """Set this share of the entries of ``[B, ...]`` to 0 and divide the others by the rest, as ``nn.Dropout``.

    The masks belong to samples: they do not depend on the number of processes, nor on what ran before.
    """
    if not share:
        return x
    kept = draw.uniform("kept", *x.shape[1:]).to(x.device) >= share
    return x * kept / (1 - share)


def with_dropout(parts: Iterable[nn.Module], x: Tensor, share: float, rng: BatchRNG) -> Tensor:
    """Apply one layer after another to ``[B, F]``, with dropout before each linear one (AlexNet's classifier)."""
    for i, part in enumerate(parts):
        if isinstance(part, nn.Linear):
            x = dropout(x, share, rng.sample(("dropout", i)))
        x = part(x)
    return x


def uniform(rows: int, *shape: int, device: torch.device) -> Tensor:
    """``[rows, *shape]`` numbers in [0, 1) from torch's generator, for the rows of a forward pass.

    They are drawn for the samples of all processes, in the order of the global batch, and those of the own ones kept.
    """
    known = layout()
    samples = known.samples(rows)
    first = (rank() * known.parts + known.part) * samples
    drawn = torch.rand(known.views, world_size() * known.parts * samples, known.rows, *shape, device=device)
    return drawn[:, first : first + samples].reshape(rows, *shape)


def _drop(x: Tensor, share: float, dimensions: int, scale: bool = True) -> Tensor:
    """Set entries of ``[B, ...]`` that share all but their first ``dimensions`` positions to 0 together."""
    kept = (uniform(*x.shape[:dimensions], device=x.device) >= share).to(x.dtype)
    kept = kept / (1 - share) if scale and share < 1 else kept
    return x * kept.view(*kept.shape, *(1,) * (x.ndim - dimensions))


class DropPath(layers.DropPath):
    """timm's stochastic depth: whole samples lose the branch."""

    def forward(self, x: Tensor) -> Tensor:
        on = self.training and self.drop_prob
        return _drop(x, self.drop_prob, 1, self.scale_by_keep) if on else x


class StochasticDepth(ops.StochasticDepth):
    """torchvision's; the mode ``batch`` drops all samples at once, which all processes draw alike."""

    def forward(self, input: Tensor) -> Tensor:
        if self.mode == "batch":
            return super().forward(input)
        return _drop(input, self.p, 1) if self.training and self.p else input


class Dropout(nn.Dropout):
    """torch's, of single numbers."""

    def forward(self, input: Tensor) -> Tensor:
        return _drop(input, self.p, input.ndim) if self.training and self.p else input


class Dropout2d(nn.Dropout2d):
    """torch's, of whole channels."""

    def forward(self, input: Tensor) -> Tensor:
        return _drop(input, self.p, 2) if self.training and self.p else input


OF_SAMPLES: dict[type[nn.Module], type[nn.Module]] = {
    layers.DropPath: DropPath,
    ops.StochasticDepth: StochasticDepth,
    nn.Dropout: Dropout,
    nn.Dropout2d: Dropout2d,
}


def draw_for_samples(module: nn.Module) -> None:
    """In place: dropout and stochastic depth anywhere inside give the same masks on any number of processes."""
    for child in module.modules():
        if type(child) in OF_SAMPLES:
            child.__class__ = OF_SAMPLES[type(child)]
