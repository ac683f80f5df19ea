"""Waveforms of unequal length as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.samples import View


@dataclass
class Waves(View):
    """Recordings side by side, zeros behind the end of each.

    No network takes them: ``audio/crop`` cuts windows of one length out of them, ``[B, C, T]``.
    """

    values: Tensor  # [B, C, L] float, L of the longest
    lengths: Tensor  # [B] int64, at least 1

    def __len__(self) -> int:
        return len(self.lengths)

    def select(self, index: Tensor) -> Waves:
        return Waves(self.values[index], self.lengths[index])

    @classmethod
    def concat(cls, views: Sequence[Waves]) -> Waves:
        longest = max(view.values.shape[-1] for view in views)
        padded = [F.pad(view.values, (0, longest - view.values.shape[-1])) for view in views]
        return cls(torch.cat(padded), torch.cat([view.lengths for view in views]))

    @classmethod
    def of(cls, samples: Sequence[Tensor]) -> Waves:
        """Recordings ``[C, L]`` as a batch."""
        return cls.concat([cls(x[None], torch.tensor([x.shape[-1]], device=x.device)) for x in samples])
