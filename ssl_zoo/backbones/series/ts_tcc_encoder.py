"""TS-TCC's encoder: three convolutions, each followed by batch norm and max-pooling.

``models/model.py`` of emadeldeen24/TS-TCC@15bdfd6e without its classifier; tensors have the authors' names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from ssl_zoo.backbones.base import Origin
from ssl_zoo.backbones.series.base import SeriesBackbone
from ssl_zoo.backbones.weights import start_from
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranges import Rate, Size


def block(channels: int, out: int, kernel: int, stride: int, dropout: float | None) -> nn.Sequential:
    """Convolution, norm, ReLU, max-pool, and for the first block dropout: ``[B, C, T]`` -> about half as long."""
    layers: list[nn.Module] = [
        nn.Conv1d(channels, out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm1d(out),
        nn.ReLU(),
        nn.MaxPool1d(2, 2, 1),
    ]
    return nn.Sequential(*layers, *([] if dropout is None else [nn.Dropout(dropout)]))


class ConvEncoder(nn.Module):
    """``base_Model``: ``[B, T, C]`` to ``[B, D, L]``. Missing numbers are taken for 0, which the authors' data lack."""

    def __init__(self, channels: int, widths: tuple[int, int, int], kernel: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.kernel, self.stride, self.features = kernel, stride, widths[2]
        self.conv_block1 = block(channels, widths[0], kernel, stride, dropout)
        self.conv_block2 = block(widths[0], widths[1], 8, 1, None)
        self.conv_block3 = block(widths[1], widths[2], 8, 1, None)

    def forward(self, x: Tensor) -> Tensor:
        x = x.nan_to_num(0.0).transpose(1, 2)
        return self.conv_block3(self.conv_block2(self.conv_block1(x)))


def length_after(length: int, kernel: int, stride: int) -> int:
    """L: how many features along the series there are of ``length`` steps; the authors' ``features_len``."""
    for size, step in ((kernel, stride), (8, 1), (8, 1)):
        length = (length + 2 * (size // 2) - size) // step + 1
        length = length // 2 + 1
    return length


# [B, D, L] -> [B, F]
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": lambda x: x.flatten(1),
    "mean": lambda x: x.mean(2),
    "max": lambda x: x.amax(2),
}


class TSTCCEncoder(SeriesBackbone):
    """Features of a series are all features along it, side by side, as the authors' classifier reads them."""

    pool: str = "flatten"
    net: ConvEncoder

    def forward(self, view: Tensor) -> Tensor:
        return self.pooled(self.forward_sequence(view))

    def forward_sequence(self, view: Tensor) -> Tensor:
        self.check(view)
        return self.net(view)

    def pooled(self, sequence: Tensor) -> Tensor:
        return POOLS[self.pool](sequence)

    def sequence(self, length: int) -> tuple[int, int]:
        return self.net.features, length_after(length, self.net.kernel, self.net.stride)


def ts_tcc_encoder(
    channels: Size | None = None,
    length: Size | None = None,
    features: Size = 128,
    widths: list[int] | None = None,
    kernel: Size = 8,
    stride: Size = 1,
    dropout: Rate = 0.35,
    pool: Literal["flatten", "mean", "max"] = "flatten",
    weights: str | None = None,
) -> TSTCCEncoder:
    """TS-TCC's encoder, with the settings of HAR.

    Args:
        channels: Of a series; None: the data's.
        length: Steps of a series, which ``pool=flatten`` must know; None: the data's.
        features: D, channels of the last block.
        widths: Channels of the other two; None: 32 and 64.
        kernel: Steps of the first convolution; 8 in the others.
        stride: Of the first convolution.
        dropout: After the first block.
        pool: flatten: D * L features, as the authors; mean or max over the series: D, for series of any length.
        weights: See :mod:`ssl_zoo.backbones.weights`.

    Raises:
        ConfigError: If ``widths`` are not two.
    """
    first = [32, 64] if widths is None else list(widths)
    if len(first) != 2:
        raise ConfigError(f"backbone.widths={first}: wanted two, the third is backbone.features")
    steps = length or 128
    out = features * length_after(steps, kernel, stride) if pool == "flatten" else features
    settings = {"channels": channels or 1, "length": steps, "features": features, "widths": first, "kernel": kernel}
    settings |= {"stride": stride, "dropout": dropout, "pool": pool}
    net = ConvEncoder(channels or 1, (first[0], first[1], features), kernel, stride, dropout)
    origin = Origin("ssl_zoo", f"{__name__}.ts_tcc_encoder", settings, channels or 1)
    backbone = TSTCCEncoder(net, origin, out, channels or 1, steps if pool == "flatten" else None)
    backbone.pool = pool
    if weights is not None:
        start_from(backbone, weights)
    return backbone
