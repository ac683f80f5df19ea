"""Operations on rows ``[B, M]``: numbers are scaled, categories are positions, NaN is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.augmentations.table.encode import Encode
from ssl_zoo.errors import require
from ssl_zoo.ranges import NonNegative, Share

ODD = 0x9E3779B97F4A7C15 - 2**64  # any large odd number


def corrupted(rows: Tensor, table: Tensor, mask: Tensor, sources: Tensor) -> Tensor:
    """Rows in which the cells of ``mask`` come from other rows of the table, each from one of its own.

    SCARF, https://arxiv.org/abs/2106.15147, Sec. 3 (the empirical marginal of each column); VIME's
    ``pretext_generator`` is the same with ``sources`` that permute each column.

    Args:
        rows: ``[B, M]``.
        table: ``[N, M]`` training rows.
        mask: ``[B, M]`` bool, True: corrupted.
        sources: ``[B, M]`` int64, the training row of each cell.
    """
    return torch.where(mask, table.gather(0, sources), rows)


def changed(rows: Tensor, others: Tensor) -> Tensor:
    """``[B, M]`` bool: cells that differ; a missing one equals a missing one."""
    return (rows != others) & ~(rows.isnan() & others.isnan())


def by_content(rows: Tensor) -> Tensor:
    """``[B]`` int64 that depends on the cells of a row alone: the slot of draws that are the same in every epoch."""
    bits = rows.float().nan_to_num(nan=float("inf")).contiguous().view(torch.int32).to(torch.int64)
    place = torch.arange(1, bits.shape[1] + 1, device=rows.device) * ODD
    return ((bits + place) * (place ^ (bits << 17))).sum(1)


@register("table/corrupt")
class Corrupt(nn.Module):
    """Cells of a row become those of other rows, as SCARF and VIME do.

    What was done is reported as ``changed`` ``[B, M]`` bool: where a cell is really another one (VIME's target).

    Args:
        rate: Share of the columns.
        count: ``fixed``: floor(rate * M) columns of each row (SCARF); ``bernoulli``: each with probability ``rate``.
        values: ``marginal``: of a training row, another for each cell; ``uniform``: anything between the least and the
            largest number of a column, as the code that is best known for SCARF has it (categories: any of them).
        once: A row is corrupted in the same way in every epoch, as by VIME's code, which does it before the training.
        table: ``[N, M]`` training rows; the data give them.
        widths: Categories of each column, 1 for numbers; the data give them.
    """

    def __init__(
        self,
        rate: Share,
        count: Literal["fixed", "bernoulli"] = "fixed",
        values: Literal["marginal", "uniform"] = "marginal",
        once: bool = False,
        table: Tensor | None = None,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        require("table/corrupt: count", count, ("fixed", "bernoulli"))
        require("table/corrupt: values", values, ("marginal", "uniform"))
        self.rate, self.count, self.values, self.once = rate, count, values, once
        table = torch.zeros(1, 1) if table is None else table
        known = table.nan_to_num(nan=float("inf")).amin(0), table.nan_to_num(nan=-float("inf")).amax(0)
        categories = torch.tensor(widths or [1] * table.shape[1])
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("low", torch.where(known[0].isfinite(), known[0], 0.0), persistent=False)
        self.register_buffer("high", torch.where(known[1].isfinite(), known[1], 0.0), persistent=False)
        self.register_buffer("categories", categories, persistent=False)

    def forward(self, rows: Tensor, draw: Draw) -> Tensor:
        inner = Draw(stream_key(0, "once", 0), by_content(rows)) if self.once else draw
        columns, table = rows.shape[1], self.get_buffer("table")
        mask = self._mask(inner, columns)
        if self.values == "marginal":
            found = corrupted(rows, table, mask, inner.integers("row", len(table), columns))
        else:
            found = torch.where(mask, self._anything(inner.uniform("value", columns)), rows)
        draw.report("changed", changed(rows, found))
        return found

    def _mask(self, draw: Draw, columns: int) -> Tensor:
        if self.count == "bernoulli":
            return draw.uniform("mask", columns) < self.rate
        # The epsilon: 0.6 * 5 is a little less than 3 in floating point.
        return draw.permutation(columns, "mask") < int(self.rate * columns + 1e-9)

    def _anything(self, uniform: Tensor) -> Tensor:
        low, high, categories = (self.get_buffer(name) for name in ("low", "high", "categories"))
        return torch.where(categories > 1, (uniform * categories).floor(), low + uniform * (high - low))


@register("table/noise")
class Noise(nn.Module):
    """Normal noise on numbers; categories stay.

    Args:
        std: Deviation, of scaled numbers.
        widths: Categories of each column, 1 for numbers; the data give them.
    """

    def __init__(self, std: NonNegative, widths: Sequence[int] | None = None) -> None:
        super().__init__()
        self.std = std
        self.register_buffer("numbers", torch.tensor(widths or [1]) == 1, persistent=False)

    def forward(self, rows: Tensor, draw: Draw) -> Tensor:
        noise = self.std * draw.normal("noise", rows.shape[1])
        return torch.where(self.get_buffer("numbers"), rows + noise, rows)


@register("table/drop")
class Drop(nn.Module):
    """Cells become missing, each with probability ``p``."""

    def __init__(self, p: Share) -> None:
        super().__init__()
        self.p = p

    def forward(self, rows: Tensor, draw: Draw) -> Tensor:
        return rows.masked_fill(draw.uniform("drop", rows.shape[1]) < self.p, float("nan"))


@register("table/mixup")
class Mixup(nn.Module):
    """A row mixed with a training row, in the numbers that a network gets; the last operation of a view.

    SAINT, https://arxiv.org/abs/2106.01342, Sec. 3.2, mixes embeddings so.

    Args:
        least: A row keeps a share that is uniform between this and 1.
        table: ``[N, M]`` training rows; the data give them.
        widths: Categories of each column, 1 for numbers; the data give them.
    """

    def __init__(self, least: Share, table: Tensor | None = None, widths: Sequence[int] | None = None) -> None:
        super().__init__()
        self.least = least
        self.encode = Encode(widths or [1])
        self.register_buffer("table", torch.zeros(1, 1) if table is None else table, persistent=False)

    def forward(self, rows: Tensor, draw: Draw) -> Tensor:
        table = self.get_buffer("table")
        other = self.encode(table[draw.integers("row", len(table))])
        share = (self.least + (1 - self.least) * draw.uniform("share")).unsqueeze(1)
        return share * self.encode(rows) + (1 - share) * other
