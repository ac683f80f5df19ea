"""From the numbers of a row to those of a network: one for a number, one for each category."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Encode(nn.Module):
    """Rows ``[B, M]`` -> ``[B, inputs]``.

    A number that is missing becomes 0, which is the mean of a standardised column; a category that is missing has no 1.
    Rows that have so many numbers already are taken as encoded.

    Args:
        widths: Numbers of a network for each column: how many categories it has; 1: a number.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.columns = len(widths)
        source = [i for i, width in enumerate(widths) for _ in range(width)]
        category = [c if width > 1 else -1 for width in widths for c in range(width)]
        self.inputs = len(source)
        self.register_buffer("source", torch.tensor(source), persistent=False)  # [inputs] column of each input
        self.register_buffer("category", torch.tensor(category), persistent=False)  # [inputs], -1: a number

    def forward(self, rows: Tensor) -> Tensor:
        if rows.shape[1] == self.inputs and rows.shape[1] != self.columns:
            return rows
        if rows.shape[1] != self.columns:
            raise ValueError(f"a row has {rows.shape[1]} numbers, and the table {self.columns} columns")
        spread = rows[:, self.get_buffer("source")]
        category = self.get_buffer("category")
        numbers = spread.nan_to_num(nan=0.0)
        return torch.where(category < 0, numbers, (spread == category).to(rows.dtype))
