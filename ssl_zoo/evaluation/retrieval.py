"""Instance retrieval with frozen features: mean average precision and cumulative matching."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.errors import ConfigError, require
from ssl_zoo.features import Features

BLOCK = 2**23  # similarities sorted at a time
GALLERIES = ("test", "train")


@torch.no_grad()
def retrieve(
    query: Tensor, query_labels: Tensor, gallery: Tensor, gallery_labels: Tensor, left_out: Tensor | None = None,
    ranks: Sequence[int] = (1, 5, 10), cameras: tuple[Tensor, Tensor] | None = None,
) -> dict[str, Any]:
    """Rank the gallery for every query by cosine similarity.

    Average precision is the mean over a query's hits of the precision at their place (scikit-learn's
    ``average_precision_score``; Market-1501, https://doi.org/10.1109/ICCV.2015.133, Sec. 4). Equal similarities share
    the last of their places, so that a network which maps everything to one point gains nothing from the order.

    Args:
        query, gallery: ``[Q, F]`` and ``[G, F]`` features of any length.
        query_labels, gallery_labels: ``[Q]`` and ``[G]`` int64; -1: no label, left out.
        left_out: ``[Q]`` row of the gallery that is the query itself; None: none is.
        ranks: Of the cumulative matching.
        cameras: ``[Q]`` and ``[G]`` numbers; gallery rows of the query's label and number are left out.

    Returns:
        ``map`` and ``cmc<rank>`` in percent over the queries that have a hit anywhere, and ``queries``, their number.

    Raises:
        ValueError: If no query has a hit in the gallery.
    """
    query, gallery = (F.normalize(x.float(), dim=1) for x in (query, gallery))
    precision, first = [], []
    for rows in torch.arange(len(query)).split(max(BLOCK // max(len(gallery), 1), 1)):
        rows = rows.to(query.device)
        label = query_labels[rows, None]
        usable = (gallery_labels >= 0) & (label >= 0)  # [q, G]
        if cameras is not None:
            usable &= (gallery_labels != label) | (cameras[1] != cameras[0][rows, None])
        if left_out is not None:
            usable.scatter_(1, left_out[rows, None], False)
        hit = usable & (gallery_labels == label)
        found = hit.any(1)
        ap, place = _ranked((query[rows] @ gallery.T)[found], hit[found], usable[found])
        precision.append(ap)
        first.append(place)
    places = torch.cat(first)
    if not len(places):
        raise ValueError("retrieval: no query has another sample of its label in the gallery; is every label unique?")
    cmc = {f"cmc{k}": 100.0 * (places <= k).double().mean().item() for k in ranks}
    return {"map": 100.0 * torch.cat(precision).mean().item(), **cmc, "queries": len(places)}


def _ranked(similarity: Tensor, hit: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
    """Average precision and place of the first hit, both ``[q]`` float64."""
    similarity, order = similarity.masked_fill(~usable, -torch.inf).sort(dim=1, descending=True)
    hit = hit.gather(1, order)
    down = -similarity.contiguous()
    last = torch.searchsorted(down, down, right=True)  # [q, G] samples at least as similar as each
    good = hit.cumsum(1).gather(1, last - 1).double() / last  # precision where the equal ones end
    precision = (good * hit).sum(1) / hit.sum(1)
    best = hit.int().argmax(1, keepdim=True)
    equals = torch.searchsorted(down, down.gather(1, best))  # [q, 1] samples more similar than the best hit
    rivals = last.gather(1, best) - equals - (hit.cumsum(1).gather(1, last.gather(1, best) - 1))  # equal, and no hits
    return precision, (equals + rivals + 1).squeeze(1).double()


def evaluate(
    train: Features,
    test: Features,
    classes: int,
    gallery: Literal["test", "train"] = "test",
    ranks: Sequence[int] = (1, 5, 10),
    cameras: str | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """The protocol of ``conf/protocol/retrieval.yaml``: :func:`retrieve` for the samples of the validation set.

    Raises:
        ConfigError: On an unknown gallery, a rank below 1, or a file of cameras that does not fit.
    """
    require("protocol.gallery", gallery, GALLERIES, ConfigError)
    if not ranks or min(ranks) < 1:
        raise ConfigError(f"protocol.ranks={list(ranks)}: wanted whole numbers from 1 on, for example [1, 5, 10]")
    x, labels = test.features.to(device), test.labels.to(device)
    if gallery == "train":
        if cameras is not None:
            raise ConfigError("protocol.cameras numbers the validation samples; wanted protocol.gallery=test with it")
        found = retrieve(x, labels, train.features.to(device), train.labels.to(device), ranks=ranks)
    else:
        numbers = None if cameras is None else read_cameras(cameras, test.position).to(device)
        both = None if numbers is None else (numbers, numbers)
        found = _within(x, labels, ranks, both)
    return {**found, "gallery": gallery}


def _within(x: Tensor, labels: Tensor, ranks: Sequence[int], both: tuple[Tensor, Tensor] | None) -> dict[str, Any]:
    try:
        return retrieve(x, labels, x, labels, torch.arange(len(x), device=x.device), ranks, both)
    except ValueError as error:
        raise ConfigError(f"{error}; protocol.gallery=train searches the training samples") from error


def read_cameras(path: str, position: Tensor) -> Tensor:
    """``[N]`` numbers of the samples at ``position``, from a text file with one a line."""
    file = Path(os.path.expanduser(path))
    if not file.is_file():
        raise ConfigError(f"protocol.cameras={path}: there is no such file")
    try:
        numbers = torch.tensor([int(line) for line in file.read_text(encoding="utf-8").split()])
    except ValueError as error:
        raise ConfigError(f"protocol.cameras={path}: wanted a whole number a line ({error})") from None
    if len(numbers) <= int(position.max()):
        raise ConfigError(
            f"protocol.cameras={path}: {len(numbers)} numbers for {int(position.max()) + 1} validation samples"
        )
    return numbers[position]
