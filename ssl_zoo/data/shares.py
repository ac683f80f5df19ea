"""How often samples of several roots are drawn: ``data.source.shares=[0.7,0.3]``."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_zoo.data.source import Shares
from ssl_zoo.data.splits import seed_of
from ssl_zoo.errors import ConfigError


def shared_order(seed: int, epoch: int, shares: Shares, count: int) -> Tensor:
    """An order in which each root gives its share of ``count`` positions, evenly spread: ``[count]``.

    A root whose samples are fewer than its share shows them again, each time in another order; of one that has more
    some wait for another epoch. The j-th of a root's n positions lies in the j-th of n equal parts of the epoch, so
    that every batch has nearly these proportions, and a sample meets its own copy only in batches larger than its root.

    Args:
        seed, epoch: All that decides it, besides the shares.
        shares: Of the training set, at least one sample of each root.
        count: Of positions.
    """
    positions, places = [], []
    for root, n in enumerate(drawn(shares.share, count)):
        own = (shares.number.cpu() == root).nonzero().flatten()
        generator = torch.Generator().manual_seed(seed_of("shares", seed, epoch, root))
        passes = [own[torch.randperm(len(own), generator=generator)] for _ in range(-(-n // len(own)))]
        positions.append(torch.cat([own[:0], *passes])[:n])
        places.append((torch.arange(n) + torch.rand(n, generator=generator, dtype=torch.float64)) / max(n, 1))
    return torch.cat(positions)[torch.cat(places).argsort(stable=True)]


def drawn(share: tuple[float, ...], count: int) -> list[int]:
    """How many of ``count`` positions each root gives: whole numbers by largest remainders."""
    exact = [part / sum(share) * count for part in share]
    whole = [int(part) for part in exact]
    by_rest = sorted(range(len(share)), key=lambda root: (whole[root] - exact[root], root))
    for root in by_rest[: count - sum(whole)]:
        whole[root] += 1
    return whole


def check(shares: Shares, unlabelled_per_labelled: int | None) -> None:
    """Raise if nothing is left of a root, or another setting says how often samples are drawn."""
    told = f"data.source.shares={list(shares.share)}"
    if unlabelled_per_labelled is not None:
        raise ConfigError(
            f"{told} and data.unlabelled_per_labelled={unlabelled_per_labelled} both say how often samples are drawn; "
            "set one of them to null"
        )
    sizes = torch.bincount(shares.number.cpu(), minlength=len(shares.share)).tolist()
    if 0 in sizes:
        raise ConfigError(
            f"{told}: nothing is left to draw from root {sizes.index(0) + 1} of data.root (data.subset, "
            "data.drop_unlabelled and data.val_fraction take samples out); leave that root out"
        )
