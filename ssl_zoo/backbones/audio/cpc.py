"""The network of CPC: convolutions on the waveform, and a recurrent network that remembers what was heard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.audio.base import AudioBackbone
from ssl_zoo.backbones.base import Frames, Origin
from ssl_zoo.backbones.weights import start_from
from ssl_zoo.errors import ConfigError, require
from ssl_zoo.ranges import Size

KERNELS, PADS = (10, 8, 4, 4, 4), (3, 2, 1, 1, 1)
STRIDES = (5, 4, 2, 2, 2)  # 160 samples a frame: 100 frames a second at 16 kHz
SLOW = (5, 4, 2, 2, 1)  # the same of recordings below 12 kHz
EPS = 1e-5
Pooling = Literal["mean", "last"]


class ChannelNorm(nn.Module):
    """Mean 0 and variance 1 over the channels of each frame ``[B, C, S]``, then a scale and an offset.

    ``ChannelNorm`` of cpc/model.py in facebookresearch/CPC_audio@b98a1bd: layer norm with the *unbiased* variance.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=1, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + EPS) * self.weight + self.bias


NORMS: dict[str, type[nn.Module]] = {"channel": ChannelNorm, "batch": nn.BatchNorm1d}


class Encoder(nn.Module):
    """``CPCEncoder`` of cpc/model.py in facebookresearch/CPC_audio@b98a1bd: ``[B, C, T]`` -> frames ``[B, S, D]``."""

    def __init__(self, channels: int, width: int, strides: Sequence[int], norm: str) -> None:
        super().__init__()
        self.width = width
        for i, (kernel, stride, pad) in enumerate(zip(KERNELS, strides, PADS, strict=True)):
            setattr(self, f"conv{i}", nn.Conv1d(width if i else channels, width, kernel, stride, pad))
            setattr(self, f"batchNorm{i}", NORMS[norm](width))  # the authors' name, whichever norm it is

    def forward(self, x: Tensor) -> Tensor:
        for i in range(len(KERNELS)):
            conv, norm = getattr(self, f"conv{i}"), getattr(self, f"batchNorm{i}")
            x = torch.relu(norm(conv(x)))
        return x.transpose(1, 2)


class CPCNet(nn.Module):
    """Frames, and the context at each of them: ``gEncoder`` and ``gAR`` of the authors' ``CPCModel``."""

    def __init__(self, encoder: Encoder, context: nn.GRU, pooling: Pooling) -> None:
        super().__init__()
        self.gEncoder = encoder
        self.gAR = nn.ModuleDict({"baseNet": context})
        self.pooling = pooling

    def frames(self, view: Tensor) -> Frames:
        encoded = self.gEncoder(view)
        context = self.gAR["baseNet"](encoded)[0]
        return Frames(context.mean(1) if self.pooling == "mean" else context[:, -1], encoded, context)

    def forward(self, view: Tensor) -> Tensor:
        return self.frames(view).pooled


class CPCBackbone(AudioBackbone):
    net: CPCNet

    @property
    def has_frames(self) -> bool:
        return True

    @property
    def frame_widths(self) -> tuple[int, int]:
        return self.out_features, self.net.gEncoder.width

    def forward_frames(self, view: Tensor) -> Frames:
        self.check(view)
        return self.net.frames(view)


def cpc_encoder(
    sample_rate: Size | None = None,
    channels: Size | None = None,
    width: Size = 256,
    context: Size = 256,
    strides: Sequence[Size] | None = None,
    norm: Literal["channel", "batch"] = "channel",
    pooling: Pooling = "mean",
    weights: str | None = None,
) -> CPCBackbone:
    """Five convolutions on the waveform and a GRU, https://arxiv.org/abs/1807.03748 (Sec. 3.1), as CPC_audio@b98a1bd.

    Args:
        sample_rate, channels: Of the recordings; None: 16000 Hz and 1.
        width: Of a frame (512 in the paper, 256 in the code).
        context: Of the GRU, the features.
        strides: Of the five convolutions; None: 5, 4, 2, 2, 2, and below 12 kHz 5, 4, 2, 2, 1, about 100 frames a
            second either way.
        norm: After each convolution: ``channel`` (the code), or ``batch`` (their ``--normMode batchNorm``).
        pooling: The features: the ``mean`` of the context over time, or the ``last`` one (the authors' speaker probe).
        weights: A file or run; None: random.

    Raises:
        ConfigError: If there are not five strides.
    """
    require("backbone.norm", norm, NORMS, ConfigError)
    require("backbone.pooling", pooling, ("mean", "last"), ConfigError)
    sample_rate, channels = sample_rate or 16000, channels or 1
    steps = list(strides or (STRIDES if sample_rate >= 12000 else SLOW))
    if len(steps) != len(KERNELS):
        raise ConfigError(f"backbone.strides={steps} of 'cpc_encoder': wanted {len(KERNELS)} numbers")
    sizes = {"sample_rate": sample_rate, "channels": channels, "width": width, "context": context}
    arguments = {**sizes, "strides": steps, "norm": norm, "pooling": pooling}
    origin = Origin("ssl_zoo", f"{__name__}.cpc_encoder", arguments, channels, norm)
    net = CPCNet(Encoder(channels, width, steps, norm), nn.GRU(width, context, batch_first=True), pooling)
    backbone = CPCBackbone(net, origin, context, shortest(steps))
    if weights is not None:
        start_from(backbone, weights)
    return backbone


def shortest(strides: Sequence[int]) -> int:
    """Samples of which the convolutions make one frame."""
    samples = 1
    for kernel, stride, pad in reversed(list(zip(KERNELS, strides, PADS, strict=True))):
        samples = max((samples - 1) * stride + kernel - 2 * pad, 1)
    return samples
