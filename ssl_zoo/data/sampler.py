"""The order of samples: a pure function of (seed, epoch, groups), cut into global micro-batches that ranks share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.data.shares import check, shared_order
from ssl_zoo.data.source import Shards, Shares
from ssl_zoo.data.splits import seed_of
from ssl_zoo.errors import ConfigError


def order(seed: int, epoch: int, n: int) -> Tensor:
    """The permutation of ``0 .. n - 1`` in which an epoch reads its samples: ``[n]`` int64."""
    generator = torch.Generator().manual_seed(seed_of("order", seed, epoch))
    return torch.randperm(n, generator=generator)


def sharded_order(seed: int, epoch: int, shards: Shards, rows: int, length: int) -> Tensor:
    """An order in which an epoch needs few shards at a time: ``[length * rows]`` different positions.

    The shards, shuffled, stand one after the other; what is more than ``length * rows`` samples falls off the end, so
    no more is lost than without shards. The rest is cut into L lanes of equal length, L being the largest divisor of
    ``rows`` up to ``shards.lanes`` and the number of shards. Inside a lane samples are shuffled among ``window``
    successive shards, and row ``j`` of every micro-batch comes from lane ``j * L // rows``. So

    - at most ``L * window`` shards are in use at any time; a shard lies in one lane, or in neighbours where it is cut;
    - ranks own contiguous rows and so contiguous lanes: each of M nodes reads about 1/M of the shards, and at most one
      more at either end, while the order does not depend on M;
    - lanes are at different places inside their shards, so they do not all ask for new ones at the same moment.

    Args:
        seed, epoch: All that decides it, besides the sizes.
        shards: Of the training set.
        rows: Of a global micro-batch.
        length: Micro-batches of an epoch.
    """
    generator = torch.Generator().manual_seed(seed_of("shards", seed, epoch))
    names, number = shards.number.cpu().unique(return_inverse=True)
    turn = torch.randperm(len(names), generator=generator)[number]  # [N] when the shard of a sample has its turn
    spread = torch.randperm(len(number), generator=generator)  # or the end of a shard would be lost most often
    sequence = spread[turn[spread].argsort(stable=True)][: rows * length]
    lanes = _largest_divisor(rows, min(shards.lanes, len(names)))
    size = len(sequence) // lanes
    lane = torch.arange(lanes).repeat_interleave(size)
    first = turn[sequence[::size]].repeat_interleave(size)
    # Lanes begin with fewer shards by turns: not all of them change their window together.
    block = (turn[sequence] - first + lane % shards.window) // shards.window
    mix = torch.randperm(len(sequence), generator=generator)
    place = lane * (len(names) + shards.window) + block  # [n] one number for each (lane, block), increasing
    mixed = sequence[mix[place[mix].argsort(stable=True)]]
    return mixed.view(lanes, length, rows // lanes).transpose(0, 1).reshape(-1)


class Groups(NamedTuple):
    """Which samples belong together (identities, clusters), as a method may say between epochs.

    Args:
        number: ``[N]`` integer: the group of each sample; -1: a group of its own.
        instances: So many samples of a group follow one another; None: every group comes equally often, in any order.
        domain: ``[N]`` bool: which of two domains a sample is from; every batch is half of one, half of the other.
            None: there is one.
    """

    number: Tensor
    instances: int | None
    domain: Tensor | None = None


def grouped_order(seed: int, epoch: int, groups: Groups, count: int) -> Tensor:
    """An order that reads ``groups.instances`` samples of one group after the other: ``[count]`` positions.

    The groups come in random order, again and again in a new one. Each time a group shows its next samples in a random
    order of its own, so that a large one shows others; one with fewer than ``instances`` repeats them, and a single
    sample comes alone (``RandomMultipleGallerySampler`` of yxgeee/SpCL draws anew each time, without cameras here).

    Args:
        seed, epoch: All that decides it, besides the groups.
        groups: Of the training set.
        count: Of positions; some samples may come several times, others not at all.
    """
    if groups.instances is None:
        return balanced_order(groups, np.random.RandomState(seed_of("balanced", seed, epoch) % 2**32))[:count]
    generator = torch.Generator().manual_seed(seed_of("groups", seed, epoch))
    number = _with_own(groups.number.cpu())
    mix = torch.randperm(len(number), generator=generator)
    members = mix[number[mix].argsort(stable=True)]  # groups one after the other, each in random order
    size = number.unique(return_counts=True)[1]  # [G]
    start = size.cumsum(0) - size
    shown = torch.where(size == 1, 1, groups.instances)
    passes = -(-count // int(shown.sum()))
    turn = torch.arange(groups.instances) + groups.instances * torch.arange(passes)[:, None]  # [P, instances]
    places = start[:, None] + turn[:, None] % size[:, None]  # [P, G, instances]
    order = torch.rand(passes, len(size), generator=generator, dtype=torch.float64).argsort(1)  # [P, G]
    places = places.gather(1, order[:, :, None].expand_as(places))
    show = (torch.arange(groups.instances) < shown[:, None])[order]  # [P, G, instances]
    return members[places[show][:count]]


def alternating_order(seed: int, epoch: int, groups: Groups, count: int) -> Tensor:
    """An order whose even places read the samples with ``groups.domain``, its odd places the others: ``[count]``.

    Each domain is read by its own groups, as :func:`grouped_order` of that domain alone. As rows alternate, any even
    number of them in a row (a batch, a rank's share of it, for any number of ranks) holds both domains equally often,
    and a domain's rows of a batch have the same order however many ranks there are.

    An epoch is as long as without domains. So each gives half of ``count`` positions whatever its size: the samples of
    the smaller one come more often, and some of the larger one's wait for another epoch.

    Args:
        seed, epoch: All that decides it, besides the groups.
        groups: Of the training set, with its domains, neither of them empty.
        count: Of positions, even.
    """
    assert groups.domain is not None
    halves: list[Tensor] = []
    for own in (groups.domain.cpu(), ~groups.domain.cpu()):
        part = Groups(groups.number.cpu()[own], groups.instances)
        places = grouped_order(seed_of("domain", seed, len(halves)), epoch, part, count // 2)
        halves.append(own.nonzero().flatten()[places])
    return torch.stack(halves, dim=1).flatten()


class Mixture(NamedTuple):
    """Which samples have labels, and how many without one come with each of them.

    Args:
        labelled: ``[N]`` bool.
        ratio: Unlabelled samples for each labelled one of a batch.
    """

    labelled: Tensor
    ratio: int

    @classmethod
    def of(cls, labels: Tensor | None, ratio: int | None) -> Mixture | None:
        """Of labels ``[N]``, -1 = none; None: batches are what comes.

        Raises:
            ConfigError: If there are not samples of both kinds.
        """
        if ratio is None:
            return None
        labelled = torch.zeros(0, dtype=torch.bool) if labels is None else labels.cpu() >= 0
        count = int(labelled.sum())
        if not 0 < count < len(labelled):
            raise ConfigError(
                f"data.unlabelled_per_labelled={ratio}: wanted training samples with labels and without, got {count:,} "
                f"and {len(labelled) - count:,}; set data.labels to the share that keeps its labels, "
                "data.drop_unlabelled=false, or data.unlabelled_per_labelled=null"
            )
        return cls(labelled, ratio)


def mixed_order(seed: int, epoch: int, mixture: Mixture, count: int) -> Tensor:
    """An order that shows ``ratio`` unlabelled samples behind each of ``count`` labelled ones: ``[count (1 + ratio)]``.

    So any share of a batch has both kinds in the same proportion, however many ranks there are. Unlabelled samples are
    read in an order of their own, several times where an epoch wants more than there are.

    Args:
        seed, epoch: All that decides it, besides the mixture.
        mixture: Of the training set.
        count: Of labelled samples, at most all.
    """
    own, others = (kind.nonzero().flatten() for kind in (mixture.labelled, ~mixture.labelled))
    wanted = count * mixture.ratio
    seeds = [seed_of("unlabelled", seed, i) for i in range(-(-wanted // len(others)))]
    beside = torch.cat([others[order(one, epoch, len(others))] for one in seeds])[:wanted].view(count, mixture.ratio)
    return torch.cat([own[order(seed, epoch, len(own))][:count, None], beside], dim=1).flatten()


def balanced_order(groups: Groups, draws: np.random.RandomState, length: int | None = None) -> Tensor:
    """As many positions as samples (or ``length``), each group as often as any other but for the cut at the end.

    ``UnifLabelSampler`` in util.py of facebookresearch/deepcluster: ``length // groups + 1`` of each, drawn with
    replacement where the group has no more than that, then all of them shuffled. NumPy keeps this legacy stream for
    good.
    """
    number = _with_own(groups.number.cpu())
    members = number.argsort(stable=True).numpy()
    ends = number.unique(return_counts=True)[1].cumsum(0)[:-1].numpy()
    length = len(members) if length is None else length
    share = length // (len(ends) + 1) + 1
    drawn = [draws.choice(part, share, replace=len(part) <= share) for part in np.split(members, ends)]
    order = np.concatenate(drawn)
    draws.shuffle(order)
    return torch.from_numpy(order[:length])


def _with_own(number: Tensor) -> Tensor:
    """-1 becomes a number that no other sample has."""
    return torch.where(number < 0, number.max() + 1 + torch.arange(len(number)), number)


@dataclass(frozen=True)
class Request:
    """One rank's rows of one global micro-batch, in plain numbers because it travels to worker processes."""

    epoch: int
    micro: int  # position of the micro-batch in the epoch
    slot: int  # of the first row: its position in the epoch's global order; the other rows follow it
    index: list[int]


class Plan:
    """Which rows this rank reads when; keeps no position.

    Global micro-batch ``i`` of ``b`` rows is ``order[i * b : (i + 1) * b]``; rank ``r`` of ``W`` owns its contiguous
    rows ``[r * b / W, (r + 1) * b / W)``. The tail that fills no optimizer step is dropped. The order is that of
    :func:`order`, of :func:`sharded_order` for a source with shards, of :func:`grouped_order`, of
    :func:`alternating_order` for groups of two domains, of :func:`mixed_order` for a mixture, or of
    :func:`shared_order` for roots with shares. A longer epoch reads
    the set several times, each time in another order, and a batch never holds samples of two of these times.

    Args:
        samples: Size of the training set.
        batch_size: Samples per optimizer step, over all ranks and micro-batches; of a mixture the labelled ones.
        seed: Of the order.
        accumulate: Micro-batches per optimizer step.
        rank, world: This process, of how many.
        device: Where the order is kept: where the samples are.
        shards: Which samples are stored together; None: nothing depends on it.
        steps: Optimizer steps of an epoch; None: as many as the samples fill.
        mixture: Labelled and unlabelled samples, where their proportion is given.
        shares: Roots, where their proportion is given.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seed: int,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        shards: Shards | None = None,
        steps: int | None = None,
        mixture: Mixture | None = None,
        shares: Shares | None = None,
    ) -> None:
        parts = accumulate * world
        if batch_size % parts:
            fits = -(-batch_size // parts) * parts
            raise ConfigError(
                f"data.batch_size={batch_size} (samples per step over all devices) does not divide by "
                f"trainer.accumulate={accumulate} x {world} processes; try data.batch_size={fits}"
            )
        self.counted = samples if mixture is None else int(mixture.labelled.sum())  # that an epoch shows once
        if self.counted < batch_size:
            kind = "" if mixture is None else "labelled "
            most = parts * _power_of_two(self.counted // parts)  # which queues and groups of batch norms divide by
            fix = f"try data.batch_size={most}" if self.counted >= parts else f"trainer.accumulate={accumulate} and " \
                f"{world} processes need {parts} samples or more"
            raise ConfigError(
                f"the training set has {self.counted} {kind}samples, fewer than data.batch_size={batch_size}: not one "
                f"step; {fix}"
            )
        if mixture is not None and shards is not None:
            raise ConfigError(
                f"data.unlabelled_per_labelled={mixture.ratio}: labelled samples lie all over the shards of "
                "data=stream; use data=packed or data=folder"
            )
        if shares is not None:
            check(shares, None if mixture is None else mixture.ratio)
        self.samples = samples
        self.seed = seed
        self.parts = parts
        self.mixture = mixture
        self.rows = batch_size // accumulate * (1 if mixture is None else 1 + mixture.ratio)  # of a global micro-batch
        self.whole = self.counted // batch_size * accumulate  # micro-batches that the samples fill
        self.length = self.whole if steps is None else steps * accumulate
        share = self.rows // world
        self.first, self.share = rank * share, share
        self.device = torch.device(device)
        self.shards = shards
        self.shares = shares
        self.groups: Groups | None = None
        self._order: tuple[int, Tensor] | None = None

    def group(self, groups: Groups | None) -> None:
        """Read by groups from the next epoch on; None: as without.

        Raises:
            ConfigError: If the source is read well only a few shards at a time, labelled samples come in a mixture
                with others, or this rank's rows are odd in number and should come from two domains.
            ValueError: If there is not one group for each sample, ``instances`` is not positive, or a domain is empty.
        """
        if groups is not None:
            self._check_shards(groups)
            if self.mixture is not None:
                raise ConfigError("this method reads samples by groups; set data.unlabelled_per_labelled=null")
            if self.shares is not None:
                raise ConfigError("this method reads samples by groups, not by roots; set data.source.shares=null")
            if len(groups.number) != self.samples or (groups.instances is not None and groups.instances < 1):
                raise ValueError(
                    f"groups: got numbers for {len(groups.number)} samples and {groups.instances} instances; "
                    f"wanted {self.samples} numbers and 1 instance or more"
                )
            if groups.domain is not None:
                self._check_domains(groups.domain, groups.instances)
        self.groups = groups
        self._order = None

    def _check_shards(self, groups: Groups) -> None:
        if self.shards is None:
            return
        option = "sampling" if groups.instances is None else "instances"
        without = f", or method.{option}=null" if groups.domain is None else ""
        raise ConfigError(
            "this method reads samples by groups, which lie all over the shards of data=stream; "
            f"use data=packed or data=folder{without}"
        )

    def _check_domains(self, domain: Tensor, instances: int | None) -> None:
        first = int(domain.sum())
        if len(domain) != self.samples or not 0 < first < self.samples or instances is None:
            raise ValueError(
                f"groups: got {first} samples of the first domain, {len(domain) - first} of the second and "
                f"{instances} instances; wanted some of each, {self.samples} together, and 1 instance or more"
            )
        if self.share % 2:
            size = self.share * self.parts
            raise ConfigError(
                f"data.batch_size={size}: half of every micro-batch of a process comes from one domain and half from "
                f"the other, which wants an even number, and {size} over processes x trainer.accumulate={self.parts} "
                f"gives {self.share}; try data.batch_size={size + self.parts}"
            )

    def index(self, epoch: int, micro: int) -> tuple[Tensor, int]:
        """This rank's sample positions ``[share]`` of a micro-batch, and the slot of the first."""
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self._epoch(epoch).to(self.device))
        slot = micro * self.rows + self.first
        return self._order[1][slot : slot + self.share], slot

    def _epoch(self, epoch: int) -> Tensor:
        times = -(-self.length // self.whole)
        seeds = [self.seed, *(seed_of("again", self.seed, i) for i in range(1, times))]
        return torch.cat([self._once(seed, epoch) for seed in seeds])[: self.rows * self.length]

    def _once(self, seed: int, epoch: int) -> Tensor:
        """The set, or as much of it as an epoch reads, in whole batches."""
        length = min(self.length, self.whole)
        if self.groups is not None:
            ordered = grouped_order if self.groups.domain is None else alternating_order
            return ordered(seed, epoch, self.groups, self.rows * length)
        if self.mixture is not None:
            return mixed_order(seed, epoch, self.mixture, self.rows // (1 + self.mixture.ratio) * length)
        if self.shares is not None:
            return shared_order(seed, epoch, self.shares, self.rows * length)
        if self.shards is None:
            return order(seed, epoch, self.samples)[: self.rows * length]
        return sharded_order(seed, epoch, self.shards, self.rows, length)

    def beginning(self, rows: int) -> list[int]:
        """Positions of the samples that epoch 0 begins with, at most so many."""
        return self._epoch(0)[:rows].tolist()

    def requests(self, epoch: int, micro: int) -> Iterator[Request]:
        """All micro-batches from a position on, through all epochs: workers go on while the trainer evaluates."""
        while True:
            for i in range(micro, self.length):
                index, slot = self.index(epoch, i)
                yield Request(epoch, i, slot, index.tolist())
            epoch, micro = epoch + 1, 0


def _largest_divisor(n: int, limit: int) -> int:
    return next(d for d in range(min(n, limit), 0, -1) if n % d == 0)


def _power_of_two(n: int) -> int:
    return 1 << (max(n, 1).bit_length() - 1)
