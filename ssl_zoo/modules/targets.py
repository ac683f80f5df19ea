"""A teacher's scores as probabilities that do not collapse: balanced over the batch, or centred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_zoo.losses.self_distillation import centred_softmax
from ssl_zoo.modules.balance import balanced
from ssl_zoo.modules.centre import Centre


class Targets(nn.Module):
    """Targets of several heads (DINOv2: of class tokens and of patches), each with a centre of its own.

    Args:
        widths: K of each head.
        centring: ``sinkhorn``: Sinkhorn-Knopp over the global batch, whose epsilon is the temperature; ``centre``: a
            softmax of the scores less their running mean, as in DINO.
        iterations: Of Sinkhorn-Knopp.
        momentum: Of the centres, in [0, 1).
    """

    def __init__(
        self, widths: Sequence[int], centring: Literal["sinkhorn", "centre"], iterations: int, momentum: float
    ) -> None:
        super().__init__()
        self.iterations = iterations
        self.centres = nn.ModuleList(Centre(width, momentum) for width in widths if centring == "centre")

    @torch.no_grad()
    def forward(self, scores: Tensor, which: int, temperature: float) -> Tensor:
        """``[N, K]`` scores of head ``which`` as probabilities."""
        if not self.centres:
            return balanced(scores, temperature, self.iterations)
        centre = self.centres[which]
        assert isinstance(centre, Centre)
        centre.update(scores)  # staged: this batch is centred by those before it
        return centred_softmax(scores, centre.value, temperature)
