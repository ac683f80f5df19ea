"""Log-sum-exp of similarities, tile by tile, recomputed in the backward pass: memory ``chunk^2``, not ``B * K``.

The softmax over all keys needs one number per query in the backward pass, its log-sum-exp; the similarities themselves
are computed a second time (as FlashAttention does, Dao et al. 2022, https://arxiv.org/abs/2205.14135, Sec. 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

DENSE = 2**22  # similarities up to which one matrix is faster: 16 MB in float32
CHUNK = 1024  # side of a tile: 4 MB in float32, which stays in the cache of a core


def log_sum_exp(
    queries: Tensor, keys: Tensor, temperature: float, skip: Tensor | None = None, chunk: int | None = None
) -> Tensor:
    """``log sum_j exp(queries_i . keys_j / temperature)`` over all keys but those that ``skip`` names for the query.

    If ``keys`` is ``queries`` (the same tensor) each pair of rows is computed once; ``skip`` must be symmetric then.

    Args:
        queries: ``[B, D]``.
        keys: ``[K, D]``.
        temperature: > 0.
        skip: ``[B, m]`` int64, keys left out for each query (itself, its positive); None: none. Not all of them.
        chunk: Side of the tiles; None: no tiles up to ``DENSE`` similarities, else ``CHUNK``.

    Returns:
        ``[B]``. Differentiable once where there are tiles.
    """
    if chunk is None and len(queries) * len(keys) <= DENSE:
        logits = queries @ keys.T / temperature
        return (logits if skip is None else logits.scatter(1, skip, -torch.inf)).logsumexp(1)
    side = chunk or CHUNK
    if queries is keys:
        return _Symmetric.apply(queries, temperature, skip, side)
    return _Tiled.apply(queries, keys, temperature, skip, side)


def _starts(n: int, chunk: int) -> Iterator[slice]:
    return (slice(start, min(start + chunk, n)) for start in range(0, n, chunk))


def _tile(q: Tensor, k: Tensor, temperature: float, skip: Tensor | None, rows: slice, columns: slice) -> Tensor:
    """Logits of some queries and keys, minus infinity where ``skip`` says so."""
    logits = (q[rows] @ k[columns].T).div_(temperature)
    if skip is None:
        return logits
    width = columns.stop - columns.start
    for column in skip[rows].unbind(1):
        place = (column - columns.start)[:, None]
        inside = (place >= 0) & (place < width)
        place = place.clamp(0, width - 1)  # no boolean indexing: it would make the host wait for the device
        logits.scatter_(1, place, torch.where(inside, -torch.inf, logits.gather(1, place)))
    return logits


def _softmax(logits: Tensor, total: Tensor) -> Tensor:
    """In place: ``exp(logits - total)``, 0 where a row has nothing but minus infinity."""
    return logits.sub_(total).exp_()


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, temperature: float, skip: Tensor | None, side: int) -> Tensor:
        total = queries.new_full((len(queries),), -torch.inf)
        for rows in _starts(len(queries), side):
            for columns in _starts(len(keys), side):
                part = _tile(queries, keys, temperature, skip, rows, columns).logsumexp(1)
                total[rows] = torch.logaddexp(total[rows], part)
        ctx.save_for_backward(queries, keys, total, skip)
        ctx.temperature, ctx.side = temperature, side
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, total, skip = ctx.saved_tensors
        of_queries = torch.zeros_like(queries) if ctx.needs_input_grad[0] else None
        of_keys = torch.zeros_like(keys) if ctx.needs_input_grad[1] else None
        scale = (grad / ctx.temperature)[:, None]
        for rows in _starts(len(queries), ctx.side):
            for columns in _starts(len(keys), ctx.side):
                logits = _tile(queries, keys, ctx.temperature, skip, rows, columns)
                weight = _softmax(logits, total[rows, None]).mul_(scale[rows])  # [b, k]
                if of_queries is not None:
                    of_queries[rows].addmm_(weight, keys[columns])
                if of_keys is not None:
                    of_keys[columns].addmm_(weight.T, queries[rows])
        return of_queries, of_keys, None, None, None


class _Symmetric(torch.autograd.Function):
    """Rows against themselves: a tile above the diagonal serves its mirror image too, for half of the products."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, temperature: float, skip: Tensor | None, side: int) -> Tensor:
        total = z.new_full((len(z),), -torch.inf)
        for rows in _starts(len(z), side):
            for columns in _starts(len(z), side):
                if columns.start < rows.start:
                    continue
                logits = _tile(z, z, temperature, skip, rows, columns)
                total[rows] = torch.logaddexp(total[rows], logits.logsumexp(1))
                if columns.start > rows.start:
                    total[columns] = torch.logaddexp(total[columns], logits.logsumexp(0))
        ctx.save_for_backward(z, total, skip)
        ctx.temperature, ctx.side = temperature, side
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, total, skip = ctx.saved_tensors
        out = torch.zeros_like(z)
        scale = grad / ctx.temperature
        for rows in _starts(len(z), ctx.side):
            for columns in _starts(len(z), ctx.side):
                if columns.start < rows.start:
                    continue
                logits = _tile(z, z, ctx.temperature, skip, rows, columns)
                # As a query of the row and as one of the column: two softmaxes of the same similarities.
                weight = torch.sub(logits, total[None, columns]).exp_().mul_(scale[None, columns])
                weight.addcmul_(_softmax(logits, total[rows, None]), scale[rows, None].expand_as(logits))
                out[rows].addmm_(weight, z[columns])
                if columns.start > rows.start:
                    out[columns].addmm_(weight.T, z[rows])
        return out, None, None, None
