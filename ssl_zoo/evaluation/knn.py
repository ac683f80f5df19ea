"""The kNN protocol: weighted k-nearest-neighbour classification of frozen features (:mod:`ssl_zoo.knn`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ssl_zoo import balancedness
from ssl_zoo.features import Features, accuracy, labelled
from ssl_zoo.knn import knn_scores
from ssl_zoo.ranges import Positive, Size


@torch.no_grad()
def evaluate(
    train: Features,
    test: Features,
    classes: int,
    k: Size = 200,
    also: Sequence[Size] = (),
    temperature: Positive = 0.07,
    chunk: Size = 512,
    by_class: bool = False,
) -> dict[str, Any]:
    """The kNN protocol of ``conf/protocol/knn.yaml``.

    Returns:
        ``top1`` in percent at ``k``, which is fixed beforehand, and ``top1_by_k`` for ``k`` and ``also``; with
        ``by_class`` also what :func:`ssl_zoo.balancedness.report` gives at ``k``.
    """
    query, labels = labelled(test.features, test.labels)
    ks = sorted({k, *also})
    scores = knn_scores(query, train.features, train.labels, classes, ks, temperature, chunk)
    top1 = {str(each): accuracy(scores[each].argmax(1), labels) for each in ks}
    result = {"top1": top1[str(k)], "k": k, "temperature": temperature, "top1_by_k": top1}
    return result | (balancedness.report(scores[k].argmax(1), labels, classes) if by_class else {})
