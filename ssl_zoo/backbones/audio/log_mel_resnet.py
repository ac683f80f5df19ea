"""A small residual network of log-mel spectrograms."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from ssl_zoo.augmentations.audio.log_mel import LogMel
from ssl_zoo.backbones.audio.base import AudioBackbone
from ssl_zoo.backbones.base import Origin
from ssl_zoo.backbones.image.resnet import ResNet
from ssl_zoo.backbones.weights import start_from
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranges import Positive, Size
from ssl_zoo.samples import described, shape_of

SHORTEST = 8  # frames


class LogMelResNet(nn.Module):
    """Windows ``[B, C, T]``, or their log-mel spectrograms ``[B, C, M, F]``, to ``[B, 4 * width]``."""

    def __init__(self, front: LogMel, channels: int, width: int) -> None:
        super().__init__()
        self.front = front
        self.norm = nn.BatchNorm2d(channels)  # silence is far from the zeros that convolutions put around a picture
        self.body = ResNet(BasicBlock, (1, 1, 1), width, channels, zero_init_residual=False)
        self.body.maxpool = nn.Identity()  # spectrograms are small already

    def forward(self, view: Tensor) -> Tensor:
        bands = self.front(view) if view.ndim == 3 else view
        return self.body(self.norm(bands.to(view.dtype)))


class LogMelBackbone(AudioBackbone):
    def check(self, view: Tensor) -> None:
        if len(shape_of(view)) == 3:
            super().check(view)
        elif len(shape_of(view)) != 4 or view.shape[1] != self.origin.in_channels:
            raise ConfigError(
                f"backbone {self.name!r} got a view {described(view)}, wanted windows "
                f"[B, {self.origin.in_channels}, T] or spectrograms [B, {self.origin.in_channels}, M, F]"
            )


def audio_resnet8(
    sample_rate: Size | None = None,
    channels: Size | None = None,
    width: Size = 32,
    mels: Size = 40,
    window: Positive = 0.025,
    hop: Positive = 0.01,
    weights: str | None = None,
) -> LogMelBackbone:
    """Three stages of one basic block on log-mel spectrograms: ``4 * width`` features.

    Args:
        sample_rate, channels: Of the recordings; None: 8000 Hz and 1.
        width: Channels of the first stage.
        mels, window, hop: Of the spectrogram, as of :class:`ssl_zoo.augmentations.audio.log_mel.LogMel`.
        weights: A file or run; None: random.
    """
    sample_rate, channels = sample_rate or 8000, channels or 1
    front = LogMel(sample_rate, mels, window, hop)
    sizes = {"sample_rate": sample_rate, "channels": channels, "width": width, "mels": mels}
    arguments = {**sizes, "window": window, "hop": hop}
    origin = Origin("ssl_zoo", f"{__name__}.audio_resnet8", arguments, channels, "log_mel")
    backbone = LogMelBackbone(LogMelResNet(front, channels, width), origin, 4 * width, SHORTEST * front.hop)
    if weights is not None:
        start_from(backbone, weights)
    return backbone
