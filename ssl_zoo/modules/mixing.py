"""Mixed inputs and their mixed identities: i-Mix, https://arxiv.org/abs/2010.08887."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather, own_rows, rank, world_size
from ssl_zoo.errors import require
from ssl_zoo.ranges import Count

KINDS = ("imixup", "icutmix", "none")
SCOPES = ("global", "rank")


def symmetric_beta(uniform: Tensor, alpha: float) -> Tensor:
    """Beta(alpha, alpha) from two uniform numbers, exactly and without rejection, for any ``alpha > 0``.

    Bailey's polar formula makes them a Student t of 2 alpha degrees of freedom, and ``t / sqrt(2 alpha + t^2)`` is
    symmetric beta on [-1, 1] (Devroye 1996, "Random variate generation in one line of code").

    Args:
        uniform: ``[..., 2]`` in [0, 1).

    Returns:
        ``[...]`` float64 in [0, 1].
    """
    u, v = uniform.double().unbind(-1)
    w, c = u ** (1 / alpha), torch.cos(2 * math.pi * v)
    x = c * torch.sqrt((1 - w) / (w + (1 - w) * c.square()))
    return (1 + x.clamp(-1, 1)) / 2  # rounded, it may pass 1 by the last bit


def flat_dirichlet(uniform: Tensor) -> Tensor:
    """Uniform on the simplex, Dirichlet(1, ..., 1): ``[..., n]`` uniform numbers to ``[..., n]`` that sum to 1."""
    waiting = -torch.log1p(-uniform.double())
    return waiting / waiting.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def mixup(x: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """``share * x + (1 - share) * other`` with a ``share [B]`` of its own for each row."""
    share = share.view(-1, *[1] * (x.dim() - 1))
    return share * x + (1 - share) * other


def cutmix(x: Tensor, other: Tensor, share: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """A box of ``other`` in ``x``, the same for all rows; as ``cutmix`` of kibok90/imix@d40fabe, builder.py.

    Args:
        x, other: ``[B, C, H, W]``.
        share: 0-d, wanted area of ``x``; the box is cut at the border and its sides are rounded to even numbers.
        centre: ``[2]`` int64, row and column.

    Returns:
        The images, and the share of ``x`` that is left (0-d).
    """
    size = torch.stack([centre.new_full((), side) for side in x.shape[-2:]])
    half = (size * (1 - share).sqrt()).long() // 2
    low, high = (centre - half).clamp_min(0), torch.minimum(centre + half, size)
    inside = [(place >= a) & (place < b) for place, a, b in zip(_places(x), low, high, strict=True)]
    box = inside[0][:, None] & inside[1]                                            # [H, W]
    return torch.where(box, other, x), 1 - (high - low).to(share.dtype).prod() / size.prod()


def _places(x: Tensor) -> list[Tensor]:
    return [torch.arange(side, device=x.device) for side in x.shape[-2:]]


def input_weights(shares: Tensor) -> Tensor:
    """Weights of InputMix: of a partner at most half; of several together at most half (``inputmix`` of builder.py).

    Args:
        shares: ``[B, 1 + partners]`` that sum to 1, the first of the image itself.
    """
    if shares.shape[1] == 2:
        return shares.sort(dim=1, descending=True).values
    half = shares / 2
    half[:, 0] += 0.5
    return half


def input_mix(x: Tensor, others: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Weighted sum of ``x`` and ``others``, ``weights [B, 1 + others]`` in this order."""
    columns = weights.to(x.dtype).view(*weights.shape, *[1] * (x.dim() - 1)).unbind(1)
    return torch.stack([weight * image for weight, image in zip(columns, [x, *others], strict=True)]).sum(0)


class Mixed(NamedTuple):
    """Rows of this process, and who they are."""

    view: Tensor  # [B, ...]
    positives: Tensor  # [B, P] rows of the global batch: its own, its partner
    weights: Tensor  # [B, P], each row sums to 1


@dataclass(frozen=True)
class Mixer:
    """Mixes each row with a partner of the same batch.

    Args:
        kind: ``imixup``: the whole image, each row with a share of its own; ``icutmix``: one box for all rows;
            ``none``: not at all.
        alpha: The share is ``max(b, 1 - b)`` with b from Beta(alpha, alpha), so that a row is mostly itself.
        scope: ``global``: the partner is any row of the global batch, whose images travel between the processes;
            ``rank``: of the same process, as in the authors' code, where a result depends on their number.
        inputmix: Partners of InputMix, whose identities do not count: for data without augmentations (2 for CIFAR).

    Raises:
        ValueError: On an unknown kind or scope, or numbers out of range.
    """

    kind: Literal["imixup", "icutmix", "none"] = "imixup"
    alpha: float = 1.0
    scope: Literal["global", "rank"] = "global"
    inputmix: Count = 0

    def __post_init__(self) -> None:
        for name, got, known in (("kind", self.kind, KINDS), ("scope", self.scope, SCOPES)):
            require(f"method.mixer.{name}", got, known)
        if self.alpha <= 0 or self.inputmix < 0:
            raise ValueError(
                f"method.mixer: alpha={self.alpha} and inputmix={self.inputmix}; wanted more than 0, and 0 or more"
            )

    @property
    def compares(self) -> Literal["batch", "process"] | None:
        """Among whose samples a partner is looked for (:attr:`ssl_zoo.methods.base.Method.compares`)."""
        if self.kind == "none":
            return "batch" if self.inputmix else None
        return "batch" if self.scope == "global" else "process"

    def inputs(self, batch: Batch) -> Batch:
        """The batch with InputMix applied to all views; partners are rows of any view."""
        if not self.inputmix:
            return batch
        every = torch.cat([gather(view) for view in batch.views])                   # [V * W * B, ...]
        orders = [batch.rng.shared(f"inputmix{i}").permutation(len(every)) for i in range(self.inputmix)]
        views = []
        for v, view in enumerate(batch.views):
            own = [own_rows(order.chunk(len(batch.views))[v]) for order in orders]  # partners x [B]
            draw = batch.rng.sample(f"inputmix{v}").uniform("shares", 1 + self.inputmix)
            views.append(input_mix(view, [every[i] for i in own], input_weights(flat_dirichlet(draw))))
        return replace(batch, views=views)

    def mix(self, view: Tensor, rng: Any, name: str) -> Mixed:
        """Mix the rows of a view; ``name`` tells the draws of a step apart."""
        rows, first = len(view), rank() * len(view)
        own = torch.arange(rows, device=view.device) + first                        # [B]
        if self.kind == "none":
            return Mixed(view, own[:, None], view.new_ones(rows, 1))
        draw = rng.shared(name)
        if self.scope == "rank":
            draw = draw.child(rank())
            partner = draw.permutation(rows).to(view.device) + first                # [B]
            other = view[partner - first]
        else:
            partner = own_rows(draw.permutation(rows * world_size())).to(view.device)
            other = gather(view)[partner]
        if self.kind == "imixup":
            share = self._share(rng.sample(name), view)                             # [B]
            mixed = mixup(view, other, share)
        else:
            height, width = view.shape[-2:]
            centre = torch.stack([draw.integers("row", height), draw.integers("column", width)]).to(view.device)
            mixed, share = cutmix(view, other, self._share(draw, view), centre)
        return Mixed(mixed, torch.stack([own, partner], 1), torch.stack([share, 1 - share], -1).expand(rows, 2))

    def _share(self, draw: Draw, like: Tensor) -> Tensor:
        beta = symmetric_beta(draw.uniform("share", 2), self.alpha)
        return torch.maximum(beta, 1 - beta).to(like)
