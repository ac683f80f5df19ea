"""From the last map of an encoder to a distribution over colours at each place."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.ranges import Size


class ColorDecoder(nn.Module):
    """Two convolutions with ReLU and a classifier of places, behind an enlargement of the map.

    The last block of CIC (https://arxiv.org/abs/1603.08511, colorization_train_val_v2.prototxt: conv8), whose
    transposed convolution is a bilinear enlargement by any factor here, so that it fits every encoder.

    Args:
        in_features: Channels of the map.
        bins: Q.
        width: Of both convolutions.
        regression: Also predict the colours themselves, without a gradient into what is shared, as the generator of
            richzhang/colorization-pytorch does.
    """

    def __init__(self, in_features: int, bins: int, width: Size = 256, regression: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_features, width, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.classifier = nn.Conv2d(width, bins, 1)
        self.regression = nn.Sequential(nn.Conv2d(width, 2, 3, padding=1), nn.Tanh()) if regression else None

    def forward(self, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """A map ``[B, C, h', w']`` -> ``[B, Q, h, w]`` logits and ``[B, 2, h, w]`` colours in [-1, 1], or None.

        Args:
            size: h and w.
        """
        if x.shape[2:] != size:
            x = F.interpolate(x, size, mode="bilinear", align_corners=False)
        x = self.body(x)
        return self.classifier(x), None if self.regression is None else self.regression(x.detach())
