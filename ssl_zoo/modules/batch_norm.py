"""Batch normalisation over groups of samples of the global batch: the same on one device and on eight."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_zoo.distributed import gather, rank, world_size
from ssl_zoo.errors import ConfigError
from ssl_zoo.passes import layout

M = TypeVar("M", bound=nn.Module)


class BatchNorm(_BatchNorm):
    """Batch norm whose statistics come from consecutive groups of ``group`` samples of the global (micro-)batch.

    A group holds all rows that its samples bring into a forward pass: of all views that pass together, and all their
    tiles; the pass says which they are (:mod:`ssl_zoo.passes`). ``group=None`` is the whole global batch (what
    SyncBatchNorm does); MoCo's per-device statistics are 32. A group divides a rank's samples or spans whole ranks.
    Running statistics are the mean over groups. Works on any device (torch's SyncBatchNorm has no CPU kernel). Input
    ``[B, C]`` or ``[B, C, ...]``.

    ``interleaved`` deals samples to groups in turn, as ``SplitBatchNorm`` of MoCo's CIFAR-10 notebook; one process
    only. ``every``: one in so many samples comes to this layer, by turns; None: as many rows as the data wants.
    """

    group: int | None = None
    interleaved: bool = False
    every: int | None = 1

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm wants [B, C, ...], got shape {list(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not self.training:
            return super().forward(input)
        if self.group is None and world_size() > 1:
            return self._across(input, world_size())
        if self.group is None:
            return super().forward(input)
        local, group = layout().samples(len(input)), self.group
        if group == local and world_size() == 1:
            return super().forward(input)
        if self.interleaved and world_size() > 1:
            raise ValueError("batch_norm: interleaved groups cross processes; use one process or consecutive groups")
        if group <= local:
            _check_divides(group, local)
            return self._split(input, local // group)
        _check_divides(local, group)
        if group > local * world_size() or world_size() % (group // local):
            raise ValueError(
                f"batch_norm.group={group} does not divide the global batch of {world_size()} x {local} samples; "
                f"try {local * world_size()}"
            )
        return self._across(input, group // local)

    def _split(self, x: Tensor, groups: int) -> Tensor:
        """Several groups in this rank."""
        mean, var = self.running_mean, self.running_var
        stats = None if mean is None or var is None else torch.stack([mean, var]).unsqueeze(1).repeat(1, groups, 1)
        out = (self._in_turn if x.device.type == "cpu" else self._as_channels)(x, groups, stats)
        if mean is not None and var is not None and stats is not None:
            # Every rank holds the same number of groups: the mean over all groups is the mean of the ranks' means.
            stats = _mean_over_ranks_no_grad(stats.mean(1))
            # ``.data``: an ungrouped pass keeps both for its gradient, which reads neither but refuses a new version.
            mean.data.copy_(stats[0])
            var.data.copy_(stats[1])
            self._count()
        return out

    def _in_turn(self, x: Tensor, groups: int, stats: Tensor | None) -> Tensor:
        """One group after another: on a CPU calls cost nothing, and the copies of the other way four times as much.

        256 x 32 x 32 x 32 in two to 32 groups, channels-last, forward and backward: 14 ms, and 48 to 57. Pieces are cut
        and joined, as rows by index take three times as long.
        """
        sizes, axis = self._sizes(len(x), groups)
        pieces = x.split(math.prod(sizes[axis + 1 :]))  # those of a group are ``groups`` apart
        parts = [own[0] if len(own) == 1 else torch.cat(own) for own in (pieces[i::groups] for i in range(groups))]
        means, variances = ([None] * groups,) * 2 if stats is None else (stats[0].unbind(), stats[1].unbind())
        own = zip(parts, means, variances, strict=True)
        outs = [self._normalised(part, self.weight, self.bias, mean, var) for part, mean, var in own]
        again = [out.split(len(pieces[0])) for out in outs]
        return torch.cat([piece for apart in zip(*again, strict=True) for piece in apart])

    def _as_channels(self, x: Tensor, groups: int, stats: Tensor | None) -> Tensor:
        """Groups become channels, so that one native call normalises all of them."""
        (sizes, axis), channels, rest = self._sizes(len(x), groups), x.shape[1], x.shape[2:]
        x = x.reshape(*sizes, channels, *rest).movedim(axis, 3)  # [views, samples, rows, groups, C, ...]
        among = x.shape[:3]
        wide = x.reshape(-1, groups * channels, *rest)
        weight = None if self.weight is None else self.weight.repeat(groups)
        bias = None if self.bias is None else self.bias.repeat(groups)
        mean, var = (None, None) if stats is None else (stats[0].flatten(), stats[1].flatten())
        out = self._normalised(wide, weight, bias, mean, var).reshape(*among, groups, channels, *rest)
        return out.movedim(3, axis).reshape(-1, channels, *rest)

    def _sizes(self, total: int, groups: int) -> tuple[list[int], int]:
        """``total`` rows as views, groups, samples of a group, rows of a sample; and which of the four are groups."""
        views, rows = layout().views, layout().rows
        samples = total // (views * rows * groups)
        return ([views, samples, groups, rows], 2) if self.interleaved else ([views, groups, samples, rows], 1)

    def _normalised(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None
    ) -> Tensor:
        """By its own statistics, which move ``mean`` and ``var``."""
        return F.batch_norm(x, mean, var, weight, bias, True, self.momentum or 0.0, self.eps)

    def _across(self, x: Tensor, ranks: int) -> Tensor:
        """One group over ``ranks`` neighbouring ranks, of different numbers of rows if it is all of them."""
        out, parts = _Across.apply(x, self.weight, self.bias, self.eps, ranks)
        self._track(parts.view(-1, ranks, *parts.shape[1:]))
        return out

    @torch.no_grad()
    def _track(self, groups: Tensor) -> None:
        """Running statistics from ``[groups, ranks, 3, C]``."""
        if self.running_mean is None or self.running_var is None:
            return
        centres, totals, counts = _combine(groups)  # [groups, C] each
        unbiased = totals / (counts - 1).clamp(min=1)
        self.running_mean.data.lerp_(centres.mean(0).to(self.running_mean.dtype), self.momentum or 0.0)
        self.running_var.data.lerp_(unbiased.mean(0).to(self.running_var.dtype), self.momentum or 0.0)
        self._count()

    def _count(self) -> None:
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class _Across(torch.autograd.Function):
    """Normalisation by the statistics of neighbouring ranks.

    The forward pass is that of an evaluation with the common statistics; the backward pass adds to its gradient what
    flows through them: ``w / s (sum(dy) + xhat sum(dy xhat)) / n`` less, with sums over the rows of all the ranks.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, ranks: int
    ) -> tuple[Tensor, Tensor]:
        count = x.numel() // x.shape[1]
        mean, spread = _moments(x)
        parts = gather(torch.stack([mean, spread, torch.full_like(mean, count)])[None])  # [W, 3, C]
        centre, spread, rows = _combine(parts[rank() // ranks * ranks :][:ranks])
        variance = spread / rows
        ctx.save_for_backward(x, weight, centre, variance, rows)
        ctx.eps, ctx.ranks = eps, ranks
        ctx.mark_non_differentiable(parts)
        if not x.numel():  # torch's kernels take no empty batch; the other ranks have the rows
            return x.clone(), parts
        return F.batch_norm(x, centre, variance, weight, bias, False, 0.0, eps), parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, centre, variance, rows = ctx.saved_tensors
        inverse = (variance + ctx.eps).rsqrt()
        scale = (torch.ones_like(centre) if weight is None else weight) * inverse
        of_weight, of_bias = _sums(grad, x, centre, variance, inverse, ctx.eps)
        sums = gather(torch.stack([of_weight, of_bias])[None])[rank() // ctx.ranks * ctx.ranks :][: ctx.ranks].sum(0)
        slope = -scale * inverse * sums[0] / rows
        offset = -scale * sums[1] / rows - slope * centre
        out = torch.addcmul(_along(offset, x), x, _along(slope, x)).addcmul_(grad, _along(scale, x)).to(x.dtype)
        return out, None if weight is None else of_weight, None if weight is None else of_bias, None, None


def _sums(
    grad: Tensor, x: Tensor, centre: Tensor, variance: Tensor, inverse: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """``[C]`` sums over this rank's rows of the gradient times the normalised rows, and of the gradient."""
    if not x.numel():
        return torch.zeros_like(centre), torch.zeros_like(centre)
    if grad.stride() != x.stride():  # some kernels take the one's layout for both
        grad = torch.empty_like(x, dtype=grad.dtype).copy_(grad)
    _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
        grad, x, torch.ones_like(centre), centre, variance, centre, inverse, False, eps, [False, True, True]
    )
    return of_weight, of_bias


def _along(channels: Tensor, x: Tensor) -> Tensor:
    """``[C]`` in the shape in which it meets ``x``."""
    return channels.view([1, -1] + [1] * (x.dim() - 2))


def _combine(parts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, sum of squared distances from it, and number of rows of all ranks together (Chan et al. 1983).

    Args:
        parts: ``[..., ranks, 3, C]``: the same three of each rank.
    """
    means, spreads, counts = parts.unbind(-2)  # [..., ranks, C] each
    rows = counts.sum(-2)
    centre = (means * counts).sum(-2) / rows
    spread = spreads.sum(-2) + (counts * (means - centre.unsqueeze(-2)).square()).sum(-2)
    return centre, spread, rows


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """``[C]`` mean and sum of squared distances from it; 0 of no rows."""
    exact = x if x.dtype == torch.float64 else x.float()
    if not x.numel():
        return exact.new_zeros(x.shape[1]), exact.new_zeros(x.shape[1])
    if x.device.type == "cpu":  # var_mean takes 49 ms there for 256 x 32 x 32 x 32 channels-last, this 2
        mean, variance = torch.batch_norm_update_stats(exact, None, None, 0.0)
    else:
        variance, mean = torch.var_mean(exact, [0, *range(2, x.dim())], correction=0)
    return mean, variance * (x.numel() // x.shape[1])


class BatchNormAct(BatchNorm):
    """Batch norm with the dropout and activation that timm fuses behind it."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


CONVERTED: dict[type, type[BatchNorm]] = {
    nn.BatchNorm1d: BatchNorm,
    nn.BatchNorm2d: BatchNorm,
    nn.BatchNorm3d: BatchNorm,
    nn.SyncBatchNorm: BatchNorm,
    BatchNorm: BatchNorm,
    BatchNormAct2d: BatchNormAct,
    BatchNormAct: BatchNormAct,
}


def _check_divides(small: int, large: int) -> None:
    if large % small:
        raise ValueError(f"batch_norm.group: groups of {small} and {large} samples do not divide each other")


@torch.no_grad()
def _mean_over_ranks_no_grad(x: Tensor) -> Tensor:
    return gather(x[None]).mean(0)


def sees(module: M, every: int | None) -> M:
    """Say, in place, what comes to the batch norms of ``module``; :func:`convert` then fits their groups to it.

    Args:
        every: One in so many samples of a batch, by turns (a domain of two); None: rows whose number depends on the
            data (hidden patches, nodes), which no groups of samples divide.
    """
    for norm in convert(module).modules():
        if isinstance(norm, BatchNorm):
            norm.every = every
    return module


def convert(module: nn.Module, group: int | None = None, interleaved: bool = False) -> nn.Module:
    """Turn every torch batch norm inside ``module`` into :class:`BatchNorm`, in place; names and tensors stay.

    Raises:
        TypeError: On a layer derived from batch norm that is not known here, whose statistics would stay local.
        ConfigError: If a layer does not see enough of a group's samples (:func:`sees`).
    """
    for name, child in module.named_modules():
        if isinstance(child, _BatchNorm):
            if type(child) not in CONVERTED:
                raise TypeError(f"batch norm {name!r} is a {type(child).__name__}: its statistics cannot be grouped")
            child.__class__ = CONVERTED[type(child)]
            assert isinstance(child, BatchNorm)
            child.group = None if group is None else _seen(name, group, child.every)
            child.interleaved = interleaved
    return module


def _seen(name: str, group: int, every: int | None) -> int:
    """How many of a group's samples come to a layer."""
    if every is None:
        raise ConfigError(
            f"batch_norm.group={group}: {name} normalises rows whose number depends on the data (hidden patches, nodes)"
            ", which groups of samples do not divide; set batch_norm.group=null, or take layers without batch norm"
        )
    if every > 1 and (group % every or group < 2 * every):
        raise ConfigError(
            f"batch_norm.group={group}: to {name} comes one in {every} samples; wanted a multiple of {every} from "
            f"{2 * every}, or null for the whole batch"
        )
    return group // every
