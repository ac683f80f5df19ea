"""What networks for time series have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone, Origin
from ssl_zoo.errors import ConfigError
from ssl_zoo.samples import described, shape_of

WITH_STEPS = "ts2vec_encoder"
WITH_SEQUENCE = "ts_tcc_encoder, ts2vec_encoder"


class SeriesBackbone(Backbone):
    """An encoder of series ``[B, T, C]``, NaN where a number is missing.

    Args:
        net, origin, out_features: As of :class:`Backbone`.
        channels: C.
        length: T, if it takes no other; None: any.
    """

    has_steps = False  # whether forward_steps gives features of each step

    def __init__(
        self, net: nn.Module, origin: Origin, out_features: int, channels: int, length: int | None = None
    ) -> None:
        super().__init__(net, origin, out_features)
        self.channels = channels
        self.length = length

    def check(self, view: Any) -> None:
        if len(shape_of(view)) != 3 or view.shape[2] != self.channels:
            raise ConfigError(
                f"backbone {self.name!r} takes series [B, T, {self.channels}], got {described(view)}; leave "
                "backbone.channels to the data (null)"
            )
        if self.length is not None and view.shape[1] != self.length:
            raise ConfigError(
                f"backbone {self.name!r} takes series of {self.length} steps, got {view.shape[1]}; "
                "backbone.pool=mean or max takes any length"
            )

    def forward_steps(self, view: Tensor, keep: Tensor | None = None) -> Tensor:
        """``[B, T, F]``: features of each step.

        Args:
            keep: ``[B, T]`` bool: steps that are seen; None: all.
        """
        raise self._unsupported("features of each step", WITH_STEPS)

    def forward_sequence(self, view: Tensor) -> Tensor:
        """``[B, D, L]``: features before they are pooled, L of them along the series."""
        raise self._unsupported("features along the series", WITH_SEQUENCE)

    def pooled(self, sequence: Tensor) -> Tensor:
        """What :meth:`forward_sequence` gave as :meth:`forward` gives it: ``[B, F]``."""
        raise self._unsupported("features along the series", WITH_SEQUENCE)

    def sequence(self, length: int) -> tuple[int, int]:
        """D and L of :meth:`forward_sequence`, for series of so many steps."""
        raise self._unsupported("features along the series", WITH_SEQUENCE)

    def example(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(2, self.length or 32, self.channels, generator=generator)
