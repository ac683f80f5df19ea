"""TS2Vec's encoder: dilated convolutions over a masked projection of each step, features for every step.

``models/encoder.py`` and ``models/dilated_conv.py`` of zhihanyue/ts2vec@b0088e14; tensors have the authors' names.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.base import Origin
from ssl_zoo.backbones.series.base import SeriesBackbone
from ssl_zoo.backbones.weights import start_from
from ssl_zoo.ranges import Count, Rate, Size


class SameConv(nn.Module):
    """A dilated convolution that keeps the length ``[B, C, T]``."""

    def __init__(self, channels: int, out: int, kernel: int, dilation: int) -> None:
        super().__init__()
        seen = (kernel - 1) * dilation + 1
        self.conv = nn.Conv1d(channels, out, kernel, padding=seen // 2, dilation=dilation)
        self.surplus = 1 - seen % 2  # an even reach gives a step too many

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        return out[..., : -self.surplus] if self.surplus else out


class Block(nn.Module):
    """GELU, convolution, GELU, convolution, beside the input, or a projection of it where the width changes."""

    def __init__(self, channels: int, out: int, kernel: int, dilation: int, last: bool) -> None:
        super().__init__()
        self.conv1 = SameConv(channels, out, kernel, dilation)
        self.conv2 = SameConv(out, out, kernel, dilation)
        self.projector = nn.Conv1d(channels, out, 1) if channels != out or last else None

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.projector is None else self.projector(x)
        return self.conv2(F.gelu(self.conv1(F.gelu(x)))) + residual


class DilatedConvEncoder(nn.Module):
    """Blocks with dilations 1, 2, 4, ..."""

    def __init__(self, channels: int, widths: list[int], kernel: int) -> None:
        super().__init__()
        before = [channels, *widths]
        self.net = nn.Sequential(
            *(Block(before[i], out, kernel, 2**i, i == len(widths) - 1) for i, out in enumerate(widths))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TSEncoder(nn.Module):
    """``TSEncoder``: ``[B, T, C]`` to features of each step ``[B, T, F]``.

    A step with a missing number is 0 before the first layer, and what that makes of it is 0 again, as of a masked step.
    """

    def __init__(self, channels: int, width: int, features: int, depth: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.input_fc = nn.Linear(channels, width)
        self.feature_extractor = DilatedConvEncoder(width, [width] * depth + [features], kernel)
        self.repr_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        there = ~x.isnan().any(2)  # [B, T]
        h = self.input_fc(x.masked_fill(~there[..., None], 0.0))  # [B, T, W]
        seen = there if keep is None else there & keep
        h = h.masked_fill(~seen[..., None], 0.0)
        return self.repr_dropout(self.feature_extractor(h.transpose(1, 2))).transpose(1, 2)


class TS2VecEncoder(SeriesBackbone):
    """Features of a series are the largest of all its steps, as ``encode(..., encoding_window="full_series")``."""

    has_steps = True

    def forward(self, view: Tensor) -> Tensor:
        return self.pooled(self.forward_sequence(view))

    def forward_steps(self, view: Tensor, keep: Tensor | None = None) -> Tensor:
        self.check(view)
        return self.net(view, keep)

    def forward_sequence(self, view: Tensor) -> Tensor:
        return self.forward_steps(view).transpose(1, 2)

    def pooled(self, sequence: Tensor) -> Tensor:
        return sequence.amax(2)

    def sequence(self, length: int) -> tuple[int, int]:
        return self.out_features, length


def ts2vec_encoder(
    channels: Size | None = None,
    features: Size = 320,
    width: Size = 64,
    depth: Count = 10,
    kernel: Size = 3,
    dropout: Rate = 0.1,
    weights: str | None = None,
) -> TS2VecEncoder:
    """TS2Vec's encoder.

    Args:
        channels: Of a series; None: the data's.
        features: F.
        width: Of all blocks but the last.
        depth: Blocks before the last; the dilation doubles from one to the next.
        kernel: Steps of a convolution.
        dropout: Of the features, in training.
        weights: See :mod:`ssl_zoo.backbones.weights`.
    """
    settings = {"channels": channels or 1, "features": features, "width": width, "depth": depth, "kernel": kernel}
    net = TSEncoder(channels or 1, width, features, depth, kernel, dropout)
    origin = Origin("ssl_zoo", f"{__name__}.ts2vec_encoder", {**settings, "dropout": dropout}, channels or 1)
    backbone = TS2VecEncoder(net, origin, features, channels or 1)
    if weights is not None:
        start_from(backbone, weights)
    return backbone
