"""Weighted k-nearest-neighbour classification of frozen features.

InstDisc, Wu et al. 2018, Sec. 3.4 (https://arxiv.org/abs/1805.01978), with the numbers that DINO's ``eval_knn.py``
made customary: cosine similarity, votes ``exp(similarity / 0.07)``, k = 200 (DINO also prints 10, 20 and 100).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.features import accuracy, labelled
from ssl_zoo.losses.precision import full_precision

BLOCK = 2**25  # similarities held at a time, 128 MB, whatever the sizes of bank and query
COLUMNS = 2048  # bank rows of one product: its result is still in the cache when its maxima are taken
GROUP = 16  # columns that share a maximum
TIED = 16  # queries that are sorted whole at a time
COPY = 2**28  # numbers of a bank that may be kept normalised, 1 GB
TIE = 2.0**-52


def _neighbours(query: Tensor, bank: Tensor, k: int, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Similarities and bank rows ``[q, k]`` of the k nearest, best first, for ``chunk`` queries at a time.

    Of equal similarities the first row is nearer: features of a network that has hardly learnt tie often, and who comes
    k-th must not depend on k or on the device's topk.
    """
    block = max(BLOCK // chunk // COLUMNS, 1) * COLUMNS
    parts = [slice(start, start + block) for start in range(0, len(bank), block)]
    kept = [_unit(bank[part], query.device) for part in parts] if bank.numel() <= COPY else None
    for rows in query.split(chunk):
        unit = F.normalize(rows.float(), dim=1)
        best, where = [], []
        for i, part in enumerate(parts):
            keys = _unit(bank[part], query.device) if kept is None else kept[i]
            near, order = _nearest(unit, keys, min(k, len(keys)))
            best.append(near)
            where.append(order + part.start)
        yield _first(torch.cat(best, 1), torch.cat(where, 1), min(k, len(bank)))


def _unit(bank: Tensor, device: torch.device) -> Tensor:
    return F.normalize(bank.to(device).float(), dim=1)


def _nearest(query: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Similarities and rows ``[q, k]`` of the k best keys of a block, in any order.

    They lie in the k groups of keys with the largest maxima, so that only those are searched.
    """
    queries, whole, step = len(query), len(keys) // COLUMNS, COLUMNS // GROUP
    parts = query.new_empty(whole, queries, COLUMNS)
    maxima = query.new_empty(queries, whole, step)
    for i in range(whole):
        similarity = _products(query, keys[i * COLUMNS : (i + 1) * COLUMNS])
        torch.amax(similarity.unflatten(1, (GROUP, step)), 1, out=maxima[:, i])
        parts[i] = similarity
    rest = _products(query, keys[whole * COLUMNS :])  # [q, r]
    last = torch.arange(whole * COLUMNS, len(keys), device=keys.device).expand(queries, -1)
    every = torch.arange(whole * COLUMNS, device=keys.device).expand(queries, -1)
    if whole * step <= 2 * k:
        return _first(torch.cat([parts.transpose(0, 1).flatten(1), rest], 1), torch.cat([every, last], 1), k)
    groups, largest = maxima.flatten(1), maxima.flatten(1).topk(k, dim=1, sorted=False)
    part, group = largest.indices // step, largest.indices % step
    inner = group[:, :, None] + step * torch.arange(GROUP, device=keys.device)  # [q, k, GROUP]
    start = (part * queries + torch.arange(queries, device=keys.device)[:, None]) * COLUMNS
    found = parts.view(-1).take((start[:, :, None] + inner).flatten(1))
    columns = ((part * COLUMNS)[:, :, None] + inner).flatten(1)
    similarity, columns = torch.cat([found, rest], 1), torch.cat([columns, last], 1)
    near, order = similarity.topk(k, dim=1, sorted=False)
    order = columns.gather(1, order)
    # Equal numbers at either border: who is in cannot be told from them. Such queries are searched whole.
    tied = (groups >= largest.values.amin(1, True)).sum(1) > k
    tied |= (similarity >= near.amin(1, True)).sum(1) > k
    tied_rows = tied.nonzero().squeeze(1)
    for at in range(0, len(tied_rows), TIED):
        rows = tied_rows[at : at + TIED]
        whole_rows = torch.cat([parts[:, rows].transpose(0, 1).flatten(1), rest[rows]], 1)
        near[rows], order[rows] = _first(whole_rows, torch.cat([every[rows], last[rows]], 1), k)
    return near, order


def _products(query: Tensor, keys: Tensor) -> Tensor:
    """``query @ keys.T``: ``[q, F]``, ``[n, F]`` -> ``[q, n]``.

    On a CPU as a convolution of one pixel, whose kernels (oneDNN) use AVX-512 on processors of any maker; those of the
    matrix product (MKL) do on Intel's only: 445 against 211 GFLOP/s on two cores of an AMD EPYC.
    """
    if query.device.type != "cpu" or not len(keys):
        return query @ keys.T
    rows = query[None, :, None].permute(0, 3, 1, 2)  # [1, F, q, 1], channels last: nothing is copied
    return F.conv2d(rows, keys[:, :, None, None])[0, :, :, 0].T


def _first(similarity: Tensor, columns: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best, best first and by their columns where they tie: TIE * column stays below a float32 step at 1."""
    order = (similarity.double() - TIE * columns).topk(k, dim=1).indices
    return similarity.gather(1, order), columns.gather(1, order)


def _votes(similarity: Tensor, label: Tensor, classes: int, temperature: float) -> Tensor:
    """``[q, k]`` similarities and labels of neighbours -> sums of votes ``[q, classes]``, up to a factor per row."""
    # Relative to the nearest neighbour: the winner is the same and small temperatures do not overflow.
    weight = ((similarity - similarity[:, :1]) / temperature).exp()
    return weight.new_zeros(len(weight), classes).scatter_add_(1, label, weight)


@full_precision
def knn_scores(
    query: Tensor, bank: Tensor, labels: Tensor, classes: int, ks: Sequence[int], temperature: float, chunk: int
) -> dict[int, Tensor]:
    """Votes ``[Q, classes]`` for each k, from one search for the largest."""
    if min(ks) < 1 or temperature <= 0 or chunk < 1:
        raise ValueError(f"kNN needs k >= 1, temperature > 0 and chunk >= 1, got {list(ks)}, {temperature}, {chunk}")
    bank, labels = labelled(bank, labels)
    if not len(bank):
        raise ValueError("kNN has no labelled sample in its bank: every label is -1")
    if labels.max() >= classes:
        raise ValueError(f"kNN was told of {classes} classes and the bank holds label {int(labels.max())}")
    labels = labels.to(query.device)
    parts: dict[int, list[Tensor]] = {k: [] for k in ks}
    for near, where in _neighbours(query, bank, min(max(ks), len(bank)), chunk):
        for k in ks:
            parts[k].append(_votes(near[:, :k], labels[where[:, :k]], classes, temperature))
    return {k: torch.cat(part) if part else query.new_empty(0, classes) for k, part in parts.items()}


@torch.no_grad()
@full_precision
def nearest_others(x: Tensor, k: int, chunk: int = 512) -> tuple[Tensor, Tensor]:
    """The k nearest other rows of every row.

    Args:
        x: ``[N, F]`` features; normalised here.
        k: Neighbours; all others where there are fewer.
        chunk: Rows searched at a time.

    Returns:
        Cosine similarities and rows, both ``[N, min(k, N - 1)]``, nearest first.
    """
    found = zip(*_neighbours(x, x, min(k + 1, len(x)), chunk), strict=True)
    near, where = (torch.cat(part) for part in found)
    own = where == torch.arange(len(x), device=where.device)[:, None]
    own[~own.any(1), -1] = True  # twins of a row may take all its places, and one of them is left out in its stead
    return near[~own].view(len(x), -1), where[~own].view(len(x), -1)


@torch.no_grad()
def leave_one_out(x: Tensor, labels: Tensor, classes: int, k: int, temperature: float = 0.07) -> Tensor:
    """Classes ``[N]`` of the rows by the vote of their k nearest others, as :func:`knn_predict` has it.

    Args:
        x: ``[N, F]`` features of two samples or more.
        labels: ``[N]`` in [0, classes).
        classes, k, temperature: As there.
    """
    near, where = nearest_others(x, k)
    return _votes(near, labels.to(where.device)[where], classes, temperature).argmax(1)


@torch.no_grad()
def knn_predict(
    query: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    classes: int,
    k: int = 200,
    temperature: float = 0.07,
    chunk: int = 512,
) -> Tensor:
    """Classes of the queries by the weighted vote of their k nearest in the bank.

    Args:
        query: ``[Q, F]`` features; normalised here.
        bank: ``[N, F]`` features, of any float type and on any device: moved block by block to the query's.
        bank_labels: ``[N]``, -1 for samples without a label, which do not vote.
        classes: Number of classes.
        k: Neighbours that vote; all of a bank with fewer.
        temperature: > 0, of the votes ``exp(similarity / temperature)``.
        chunk: Queries searched at a time; memory is about ``max(2**25, chunk * k)`` similarities, and a normalised copy
            of banks up to 1 GB.

    Returns:
        ``[Q]`` class of each query, int64.
    """
    return knn_scores(query, bank, bank_labels, classes, [k], temperature, chunk)[k].argmax(1)


def knn_top1(
    query: Tensor,
    query_labels: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    classes: int,
    k: int = 200,
    temperature: float = 0.07,
    chunk: int = 512,
) -> float:
    """Share of labelled queries that :func:`knn_predict` gets right, in percent."""
    query, query_labels = labelled(query, query_labels)
    predicted = knn_predict(query, bank, bank_labels, classes, k, temperature, chunk)
    return accuracy(predicted, query_labels)
