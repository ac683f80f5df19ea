"""What encoders of images know besides: which sizes and bands they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone, Origin
from ssl_zoo.errors import ConfigError
from ssl_zoo.samples import described, shape_of
from ssl_zoo.sides import Side, height_width


def _adapt_input(weight: Tensor, channels: int) -> Tensor:
    """``[F, K, h, w]`` of an input convolution -> ``[F, channels, h, w]``, whose outputs are about as large.

    timm's rule for colour, here for any K: one channel gets the sum, more get the K in turn, times ``K / channels``.
    """
    from timm.models import adapt_input_conv

    given = weight.shape[1]
    if given == 3:
        return adapt_input_conv(channels, weight)
    if channels == 1:
        return weight.sum(1, keepdim=True)
    turns = [i % given for i in range(channels)]
    return weight[:, turns] * (given / channels)


class ImageBackbone(Backbone):
    """An encoder of images: ``[B, C, H, W]`` views to ``[B, out_features]``.

    Args:
        net, origin, out_features, classifier: As of :class:`Backbone`.
        image_size: Size of the (global) views, checked at once so that a run fails before it starts.
        min_size: Smallest side that leaves at least one position (pixels).
        size_step: The sides of a view must be multiples of this (patch size; 1: any size).
        fixed_size: The only size the network takes, or None.

    Raises:
        ConfigError: If ``image_size`` does not suit the network.
    """

    def __init__(
        self,
        net: nn.Module,
        origin: Origin,
        out_features: int,
        image_size: Side,
        min_size: int,
        size_step: int = 1,
        fixed_size: Side | None = None,
        classifier: Sequence[str] = (),
    ) -> None:
        super().__init__(net, origin, out_features, classifier)
        self.image_size = image_size
        self.min_size = min_size
        self.size_step = size_step
        self.fixed_size = fixed_size
        self._check_size(*height_width(image_size))

    def preprocessing(self, config: Mapping[str, Any]) -> dict[str, Any]:
        source, views = config["data"]["source"], config["augmentation"]
        return {
            "input": f"[B, {self.origin.in_channels}, H, W], float in [0, 1] before normalisation",
            # What is 0 and what is 1 before it, in the numbers of the files; outside is cut.
            "range": source.get("range", [0, 255]),
            "nodata": source.get("nodata"),
            "image_size": self.fixed_size or views["eval"].get("size") or config["data"]["image_size"],
            "normalize": views.get("normalize"),
        }

    def example(self) -> Tensor:
        size = height_width(self.fixed_size or self.image_size)
        return torch.randn(2, self.origin.in_channels, *size, generator=torch.Generator().manual_seed(0))

    def fit_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adapt published weights to this network's channels (the input convolution to fewer or more channels)."""
        own = self.net.state_dict()
        channels = self.origin.in_channels
        fitted = dict(state)
        for name, value in state.items():
            wanted = own[name].shape if name in own else value.shape
            first = value.ndim == len(wanted) == 4 and wanted[1] == channels != value.shape[1]
            if first and (value.shape[0], *value.shape[2:]) == (wanted[0], *wanted[2:]):
                fitted[name] = _adapt_input(value, channels)
        return fitted

    def check(self, view: Tensor) -> None:
        """Raise a ConfigError that names got, wanted and the option to change if ``view`` does not suit the network."""
        if len(shape_of(view)) != 4 or view.shape[1] != self.origin.in_channels:
            raise ConfigError(
                f"backbone {self.name!r} got a view of shape {described(view)}, wanted [B, {self.origin.in_channels}, "
                "H, W]; set backbone.in_channels (default: data.channels) to the channels of the images"
            )
        self._check_size(view.shape[2], view.shape[3])

    def _check_size(self, height: int, width: int) -> None:
        got = f"backbone {self.name!r} got {height} x {width} px"
        small = " (or backbone.stem=small)" if self.origin.stem == "standard" and self.min_size > 8 else ""
        if min(height, width) < self.min_size:
            raise ConfigError(
                f"{got}, wanted at least {self.min_size} x {self.min_size}; set data.image_size={self.min_size} "
                f"or more{small}, and local crops to no less"
            )
        only = None if self.fixed_size is None else height_width(self.fixed_size)
        if only is not None and (height, width) != only:
            wanted = height if height == width else f"[{height},{width}]"
            raise ConfigError(
                f"{got}, but it takes only the size it was built for, {only[0]} x {only[1]}; "
                f"set data.image_size={wanted}, and use it without crops of another size"
            )
        if height % self.size_step or width % self.size_step:
            below = max(height - height % self.size_step, self.min_size)
            raise ConfigError(
                f"{got}, wanted a multiple of its patch of {self.size_step} px; "
                f"set data.image_size (or the size of that view) to {below} or {below + self.size_step}"
            )
