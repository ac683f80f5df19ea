"""Features of a data set: one pass in evaluation mode, split over the processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_zoo.distributed import gather_lists


class Features(NamedTuple):
    """What a protocol reads; rows are ordered by ``position``, equal on every rank and on the CPU."""

    features: Tensor  # [N, F] float32
    labels: Tensor  # [N] int64, -1 = none
    position: Tensor  # [N] int64, index in the data set


def labelled(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that have a label."""
    known = labels >= 0
    return (x, labels) if bool(known.all()) else (x[known.to(x.device)], labels[known])


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share of ``predicted`` equal to ``labels``, both ``[N]``, in percent."""
    if not len(labels):
        raise ValueError("accuracy of no sample: the evaluation set has no labels")
    return 100.0 * (predicted.cpu() == labels.cpu()).double().mean().item()


def topk_accuracy(scores: Tensor, labels: Tensor, k: int) -> float:
    """Share of rows of ``scores`` ``[N, C]`` whose label is among the k highest, in percent."""
    return 100.0 * (scores.topk(k, dim=1).indices.cpu() == labels.cpu()[:, None]).any(1).double().mean().item()


def extract(
    net: Any,
    loader: Iterable[Any],
    device: torch.device | str,
    embed: Callable[[Tensor], Tensor] | None = None,
) -> Features:
    """Features of everything in ``loader``, as ``net`` gives them in evaluation mode and without gradient.

    Modes (train or eval) of all parts are restored afterwards. Every process calls this with its own share.

    Args:
        net: Module, already on ``device``.
        loader: Yields ``(view [B, C, H, W], label [B] or None, index [B])``.
        device: Where the views are sent.
        embed: Features of a view ``[B, ...]``, made with ``net``; None: ``net.embed`` as float32.
    """
    modes = [(part, part.training) for part in net.modules()]
    net.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # batches of other sizes than a step's
            rows = [_row(net, embed, batch, device) for batch in loader]
    finally:
        for part, training in modes:
            part.training = training
    rows = gather_lists(rows)
    if not rows:
        raise ValueError("no sample to extract features from: the loader is empty")
    features, labels, index = (torch.cat(column) for column in zip(*rows, strict=True))
    order = index.argsort()
    return Features(features[order], labels[order], index[order])


def extract_on(net: Any, loader: Iterable[Any], device: torch.device | str) -> Features:
    """:func:`extract` of a network that may lie elsewhere: it is moved to ``device`` and back."""
    home = next((parameter.device for parameter in net.parameters()), torch.device("cpu"))
    net.to(device)
    try:
        return extract(net, loader, device)
    finally:
        net.to(home)


def _row(net: Any, embed: Any, batch: Any, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    view, label, index = batch
    label = torch.full_like(index, -1) if label is None else label
    view = view.to(device, getattr(net, "dtype", view.dtype), non_blocking=True)
    features = net.embed(view).float() if embed is None else embed(view)
    return features.cpu(), label.long().cpu(), index.cpu()
