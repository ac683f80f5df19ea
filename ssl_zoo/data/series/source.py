"""Time series in one tensor: missing numbers are NaN, and so is what short series lack at their end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.data.fingerprint import content, digest, numbers, sampled
from ssl_zoo.data.tensors import Tensors
from ssl_zoo.errors import ConfigError


class Series(Tensors):
    """Series of one data set, all as long as the longest of them.

    Args:
        values: ``[N, T, C]`` floats: steps, and numbers at each step. NaN: missing.
        labels: ``[N]`` int64, -1 = none; None: unlabelled.
        classes: Their names.
        decisions: What was decided about the files, a line each.
        statistics: ``(mean, deviation)`` of each channel, which ``values`` were standardised by; None: they were not.
    """

    modality = "series"
    baseline_name = "summary statistics"

    def __init__(
        self,
        values: Tensor,
        labels: Tensor | None = None,
        classes: list[str] | None = None,
        decisions: Sequence[str] = (),
        statistics: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        if values.dim() != 3 or not values.is_floating_point() or not values.numel():
            raise ConfigError(f"series are {values.dtype} {list(values.shape)}, wanted floats [N, T, C]")
        super().__init__(values.float(), labels, classes)
        self.decisions = list(decisions)
        self.statistics = statistics

    @property
    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = {"length": self.values.shape[1], "channels": self.values.shape[2]}
        if self.statistics is not None:
            mean, deviation = (tuple(x.tolist()) for x in self.statistics)
            found |= {"channel_means": mean, "channel_deviations": deviation}
        return found

    def fingerprint(self) -> str:
        return digest("series", str(list(self.values.shape)), numbers(self.labels), content(sampled(self.values)))

    def baseline(self, view: Tensor) -> Tensor:
        """Of each channel mean, deviation, extremes, mean step and share of numbers that are there: ``[B, 6 C]``."""
        there = ~view.isnan()  # [B, T, C]
        count = there.sum(1).clamp(min=1)  # [B, C]
        filled = view.nan_to_num(0.0)
        mean = filled.sum(1) / count
        deviation = (((filled - mean[:, None]) * there).square().sum(1) / count).sqrt()
        low = filled.masked_fill(~there, torch.inf).amin(1)
        high = filled.masked_fill(~there, -torch.inf).amax(1)
        step = view.diff(dim=1).abs().nan_to_num(0.0).sum(1) / count
        share = there.to(view.dtype).mean(1)
        extremes = (x.nan_to_num(0.0, 0.0, 0.0) for x in (low, high))
        return torch.cat([mean, deviation, *extremes, step, share], 1)
