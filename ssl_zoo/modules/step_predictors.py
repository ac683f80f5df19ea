"""A predictor for each step into the future."""

from __future__ import annotations

from torch import Tensor, nn


class StepPredictors(nn.ModuleList):
    """Linear maps ``W_k`` of CPC, https://arxiv.org/abs/1807.03748 (eq. 3): one for each step.

    As ``PredictionNetwork`` of cpc/criterion/criterion.py in facebookresearch/CPC_audio@b98a1bd. Where the frames are
    wider than the context, its weights are a square block of normal numbers above zeros.

    Args:
        context: Width of the context.
        encoded: Width of a frame.
        steps: K.
        bias: Whether they have one; the authors' of sound have none, those of sentences do.
    """

    def __init__(self, context: int, encoded: int, steps: int, bias: bool = False) -> None:
        super().__init__(nn.Linear(context, encoded, bias=bias) for _ in range(steps))
        weights = [p for p in self.parameters() if p.ndim == 2]
        for p in weights if encoded > context else ():
            nn.init.zeros_(p)
            nn.init.normal_(p.data[:context])

    def forward(self, context: Tensor) -> list[Tensor]:
        """``[B, S, C]`` -> K x ``[B, S - K, D]``: only times that have all K later frames."""
        context = context[:, : context.shape[1] - len(self)]
        return [layer(context) for layer in self]
