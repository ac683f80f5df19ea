"""Weighted k-nearest-neighbour classification of frozen features.

InstDisc, Wu et al. 2018, Sec. 3.4 (https://arxiv.org/abs/1805.01978), with the numbers that DINO's ``eval_knn.py``
made customary: cosine similarity, votes ``exp(similarity / 0.07)``, k = 200 (DINO also prints 10, 20 and 100).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.evaluation.features import Features, accuracy, labelled

BLOCK = 2**23  # similarities held at a time, 64 MB in float64, whatever the sizes of bank and query
TIE = 2.0**-52


def _neighbours(query: Tensor, bank: Tensor, k: int, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Similarities and bank rows ``[q, k]`` of the k nearest, best first, for ``chunk`` queries at a time."""
    block = max(BLOCK // chunk, k)
    for rows in query.split(chunk):
        unit = F.normalize(rows.float(), dim=1)
        best = torch.empty(len(unit), 0, dtype=torch.float64, device=unit.device)
        where = torch.empty(len(unit), 0, dtype=torch.int64, device=unit.device)
        for start in range(0, len(bank), block):
            keys = F.normalize(bank[start : start + block].to(unit.device).float(), dim=1)
            at = torch.arange(start, start + len(keys), device=unit.device)
            # Of equal similarities the first row is nearer: features of a network that has hardly learnt tie often, and
            # who comes k-th must not depend on k or on the device's topk. TIE * row stays below a float32 step at 1.
            near, order = ((unit @ keys.T).double() - TIE * at).topk(min(k, len(keys)), dim=1)  # [q, k]
            best, where = torch.cat([best, near], 1), torch.cat([where, order + start], 1)
            best, order = best.topk(min(k, best.shape[1]), dim=1)
            where = where.gather(1, order)
        yield best.float(), where


def _votes(similarity: Tensor, label: Tensor, classes: int, temperature: float) -> Tensor:
    """``[q, k]`` similarities and labels of neighbours -> sums of votes ``[q, classes]``, up to a factor per row."""
    # Relative to the nearest neighbour: the winner is the same and small temperatures do not overflow.
    weight = ((similarity - similarity[:, :1]) / temperature).exp()
    return weight.new_zeros(len(weight), classes).scatter_add_(1, label, weight)


def _scores(
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
    query = query.cpu() if query.device.type == "mps" else query  # which has no float64
    labels = labels.to(query.device)
    parts: dict[int, list[Tensor]] = {k: [] for k in ks}
    for near, where in _neighbours(query, bank, min(max(ks), len(bank)), chunk):
        for k in ks:
            parts[k].append(_votes(near[:, :k], labels[where[:, :k]], classes, temperature))
    return {k: torch.cat(part) if part else query.new_empty(0, classes) for k, part in parts.items()}


@torch.no_grad()
def knn_predict(
    query: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    classes: int,
    k: int = 200,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> Tensor:
    """Classes of the queries by the weighted vote of their k nearest in the bank.

    Args:
        query: ``[Q, F]`` features; normalised here.
        bank: ``[N, F]`` features, of any float type and on any device: moved block by block to the query's.
        bank_labels: ``[N]``, -1 for samples without a label, which do not vote.
        classes: Number of classes.
        k: Neighbours that vote; all of a bank with fewer.
        temperature: > 0, of the votes ``exp(similarity / temperature)``.
        chunk: Queries searched at a time; memory is about ``max(2**23, chunk * k)`` similarities.

    Returns:
        ``[Q]`` class of each query, int64.
    """
    return _scores(query, bank, bank_labels, classes, [k], temperature, chunk)[k].argmax(1)


def knn_top1(
    query: Tensor,
    query_labels: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    classes: int,
    k: int = 200,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> float:
    """Share of labelled queries that :func:`knn_predict` gets right, in percent."""
    query, query_labels = labelled(query, query_labels)
    predicted = knn_predict(query, bank, bank_labels, classes, k, temperature, chunk)
    return accuracy(predicted, query_labels)


@torch.no_grad()
def evaluate(
    train: Features,
    test: Features,
    classes: int,
    k: int = 200,
    also: Sequence[int] = (),
    temperature: float = 0.07,
    chunk: int = 1024,
) -> dict[str, Any]:
    """The kNN protocol of ``conf/protocol/knn.yaml``.

    Returns:
        ``top1`` in percent at ``k``, which is fixed beforehand, and ``top1_by_k`` for ``k`` and ``also``.
    """
    query, labels = labelled(test.features, test.labels)
    ks = sorted({k, *also})
    scores = _scores(query, train.features, train.labels, classes, ks, temperature, chunk)
    top1 = {str(each): accuracy(scores[each].argmax(1), labels) for each in ks}
    return {"top1": top1[str(k)], "k": k, "temperature": temperature, "top1_by_k": top1}
