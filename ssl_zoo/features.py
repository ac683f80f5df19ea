"""Features of a data set: one pass in evaluation mode, split over the processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_zoo.distributed import exchange_, gather_lists, rank
from ssl_zoo.samples import cast

Part = tuple[Tensor, Tensor, Tensor]  # of a batch: features [B, F], labels [B], positions [B]


class Features(NamedTuple):
    """What a protocol reads; rows are ordered by ``position``, equal on every rank and on the CPU."""

    features: Tensor  # [N, F] float32, unless another type was asked for
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
    embed: Callable[[Any], Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> Features:
    """Features of everything in ``loader``, as ``net`` gives them in evaluation mode and without gradient.

    Modes (train or eval) of all parts are restored afterwards. Every process calls this with its own share. The result
    is allocated once and the shares of the others come in blocks, so that it takes little more memory than it holds;
    batches of a loader that does not say its ``rows`` are kept until all are there, which takes as much again.

    Args:
        net: Module, already on ``device``.
        loader: Yields ``(view of B samples, label [B] or None, index [B])``. ``rows`` ``[n]``, if it has that: the
            positions that will come, in their order.
        device: Where the views are sent.
        embed: Features of a view, made with ``net``; None: ``net.embed`` as float32.
        dtype: Of the features that are kept; None: as they are made. float16 takes half of float32's memory and
            traffic, and keeps 11 bits: a number is off by up to 0.05 %, and one above 65,504 is infinite.

    Raises:
        ValueError: If no process has a sample, or a loader gives another number of samples than it has rows.
    """
    modes = [(part, part.training) for part in net.modules()]
    net.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # batches of other sizes than a step's
            parts: Iterable[Part] = (_part(net, embed, batch, device, dtype) for batch in loader)
            rows = getattr(loader, "rows", None)
            if rows is None:
                parts = list(parts)
                rows = torch.cat([index for _, _, index in parts]) if parts else torch.zeros(0, dtype=torch.int64)
            return _whole(parts, rows.cpu(), device)
    finally:
        for part, training in modes:
            part.training = training


def extract_on(net: Any, loader: Iterable[Any], device: torch.device | str) -> Features:
    """:func:`extract` of a network that may lie elsewhere: it is moved to ``device`` and back."""
    home = next((parameter.device for parameter in net.parameters()), torch.device("cpu"))
    net.to(device)
    try:
        return extract(net, loader, device)
    finally:
        net.to(home)


def _part(net: Any, embed: Any, batch: Any, device: torch.device | str, dtype: torch.dtype | None) -> Part:
    view, label, index = batch
    label = torch.full_like(index, -1) if label is None else label
    view = view.to(device, non_blocking=True)
    view = cast(view, net.dtype) if hasattr(net, "dtype") else view
    features = net.embed(view).float() if embed is None else embed(view)
    return features.to("cpu", dtype or features.dtype), label.long().cpu(), index.cpu()


def _whole(parts: Iterable[Part], rows: Tensor, device: torch.device | str) -> Features:
    """The samples of all processes, of which ``parts`` are this one's and ``rows`` ``[n]`` their positions."""
    position, places = _order(rows, device)
    features, labels = _own(parts, places[rank()], len(position))
    kinds = gather_lists([] if features is None else [(features.shape, features.dtype)])
    if features is None:  # fewer samples than processes
        features = torch.empty(kinds[0][0], dtype=kinds[0][1])
    return Features(exchange_(features, places, device), exchange_(labels, places, device), position)


def _order(rows: Tensor, device: torch.device | str) -> tuple[Tensor, Sequence[Tensor]]:
    """Positions ``[N]`` of all processes in their order, and for each process ``[n]``, where its samples come there.

    Samples of one position stay in the order of processes.
    """
    counts = gather_lists([len(rows)])
    total = sum(counts)
    if not total:
        raise ValueError("no sample to extract features from: the loader is empty")
    slots, position = torch.arange(total), torch.empty(total, dtype=torch.int64)
    position[slots.split(counts)[rank()]] = rows
    position, order = exchange_(position, slots.split(counts), device).sort(stable=True)
    return position, torch.empty_like(order).scatter_(0, order, slots).split(counts)


def _own(parts: Iterable[Part], place: Tensor, total: int) -> tuple[Tensor | None, Tensor]:
    """``total`` features and labels in which this process's, at ``place`` ``[n]``, are filled in; None: it has none."""
    features, labels, given = None, torch.empty(total, dtype=torch.int64), 0
    for x, label, _ in parts:
        at = place[given : given + len(x)]
        given += len(x)
        if given > len(place):
            break
        features = x.new_empty(total, *x.shape[1:]) if features is None else features
        features[at], labels[at] = x, label
    if given != len(place):
        raise ValueError(f"the loader has {len(place)} rows and gives {given} samples")
    return features, labels
