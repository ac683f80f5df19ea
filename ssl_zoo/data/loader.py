"""Loaders: the training stream, which can be resumed anywhere, and evaluation, which shows every sample once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.data.batch import RawBatch
from ssl_zoo.data.damage import Damage
from ssl_zoo.data.decoders import EvalTask, TrainTask, stream
from ssl_zoo.data.sampler import Groups, Plan
from ssl_zoo.data.source import Source
from ssl_zoo.errors import ConfigError


class TrainLoader:
    """Endless epochs of :class:`RawBatch`, one pass for each ``iter()``.

    The position counts what was handed out, not what workers have prepared, and in samples over all ranks, so that a
    resumed run may use another number of devices or workers. Nothing moves before the first ``next()``: an iterator
    that is made and thrown away costs no epoch. A pass that is left early is not continued; the next pass is the next
    epoch.

    Args:
        source: Training samples ``0 .. n - 1``.
        plan: Who reads what when.
        task: What workers do with a request; None: rows are fetched from memory, whole.
        workers: Processes for ``task``; 0: this one.
        pin: Whether batches of workers are put into page-locked memory.
        damage: Where damaged files are noted; None: in a list of its own.
    """

    def __init__(
        self,
        source: Source,
        plan: Plan,
        task: TrainTask | None = None,
        workers: int = 0,
        pin: bool = False,
        damage: Damage | None = None,
    ) -> None:
        self.source = source
        self.plan = plan
        self.task = task
        self.workers = workers
        self.pin = pin
        self.damage = damage or Damage(source.damage_limit, len(source))
        self.epoch = 0
        self.consumed = 0  # samples over all ranks in this epoch
        self._resumed = False
        self._wait = 0.0
        self._stream: Iterator[dict[str, Any]] | None = None
        self._ahead: tuple[int, int] | None = None  # (epoch, micro) of what the stream gives next

    def __len__(self) -> int:
        """Micro-batches of an epoch, on every rank."""
        return self.plan.length

    def __iter__(self) -> Iterator[RawBatch]:
        self._begin()
        while self.consumed < len(self) * self.plan.rows:
            began = time.perf_counter()
            raw = self._read(self.epoch, self.consumed // self.plan.rows)
            self.consumed += self.plan.rows
            if self.consumed == len(self) * self.plan.rows:
                self.damage.tell()  # before the last batch of an epoch is given: nobody may ask for what comes after it
            self._wait += time.perf_counter() - began
            yield raw

    def _begin(self) -> None:
        """Continue where a checkpoint was taken, or go on to the next epoch if this one was begun."""
        complete = self.consumed >= len(self) * self.plan.rows
        if complete or self.consumed and not self._resumed:
            self.epoch, self.consumed = self.epoch + 1, 0
        self._resumed = False

    def peek(self, epoch: int, count: int) -> Iterator[RawBatch]:
        """The first ``count`` micro-batches of any epoch (-1: one before the first), at most; the position stays."""
        return (self._read(epoch, micro) for micro in range(min(count, len(self))))

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "consumed": self.consumed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at a position that :meth:`state_dict` gave."""
        if state["consumed"] % self.plan.rows:
            raise ConfigError(
                f"cannot continue after {state['consumed']} samples of epoch {state['epoch']} with micro-batches of "
                f"{self.plan.rows}; use the data.batch_size and trainer.accumulate of the interrupted run"
            )
        self.epoch, self.consumed = state["epoch"], state["consumed"]
        self._resumed = True

    def take_wait(self) -> float:
        """Seconds that the training loop has spent in here since the last call."""
        waited, self._wait = self._wait, 0.0
        return waited

    def group(self, groups: Groups | None) -> None:
        """Read by groups from the next epoch on; what workers have prepared of it is thrown away."""
        self.plan.group(groups)
        self._stream = self._ahead = None

    def close(self) -> None:
        """End the workers; tell what was found damaged in an epoch that was cut short."""
        self._stream = self._ahead = None
        self.damage.tell()

    def _read(self, epoch: int, micro: int) -> RawBatch:
        if self.task is None:
            index, slot = self.plan.index(epoch, micro)
            return self._batch(self.source.fetch(index), index, slot, epoch, micro)
        if self._ahead != (epoch, micro):
            self._stream = stream(self.task, self.plan.requests(epoch, micro), self.workers, self.pin)
        assert self._stream is not None
        item = next(self._stream)
        self._ahead = (epoch, micro + 1) if micro + 1 < len(self) else (epoch + 1, 0)
        self.damage.add(item["damaged"])
        slot = micro * self.plan.rows + self.plan.first
        return self._batch(item["views"], item["index"], slot, epoch, micro, item["reports"])

    def _batch(
        self, samples: Any, index: Tensor, slot: int, epoch: int, micro: int, reports: dict[str, Tensor] | None = None
    ) -> RawBatch:
        labels = self.source.labels
        label = None if labels is None else labels[index.to(labels.device)]
        finished = self.task is not None and self.task.finish
        return RawBatch(samples, index, label, slot, epoch, micro, reports, finished)


class EvalLoader:
    """``(view, label [B] or None, index [B])`` for every sample once, split over the ranks.

    Ranks get contiguous shares whose sizes differ by one at most: no sample is doubled to fill a batch.

    Args:
        source: Samples ``0 .. n - 1``.
        view: The evaluation view.
        batch_size: Rows of this rank's batches.
        rank, world: This process, of how many.
        workers: Processes that decode, for a source of files.
        device: Where views of an in-memory source are made.
        rows: Only these samples, ``[n]`` positions; ``index`` still counts in ``source``.
        damage: Where damaged files are noted; None: in a list of its own.
    """

    def __init__(
        self,
        source: Source,
        view: Any,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        device: torch.device | str = "cpu",
        rows: Tensor | None = None,
        damage: Damage | None = None,
    ) -> None:
        self.source = source
        self.view = view
        self.batch_size = batch_size
        self.workers = workers
        self.device = torch.device(device)
        every = torch.arange(len(source)) if rows is None else rows.cpu()
        self.samples = len(every)  # over all ranks
        self.rows = every[rank * len(every) // world : (rank + 1) * len(every) // world]
        self.damage = damage or Damage(source.damage_limit, len(source))

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    @torch.no_grad()
    def _from_memory(self, index: Tensor) -> tuple[Any, Tensor | None, Tensor]:
        labels = self.source.labels
        label = None if labels is None else labels[index.to(labels.device)].cpu()
        return self.view(self.source.fetch(index).to(self.device)), label, index

    def __iter__(self) -> Iterator[tuple[Any, Tensor | None, Tensor]]:
        batches = self.rows.split(self.batch_size) if len(self.rows) else ()
        if self.source.in_memory:
            self.view.to(self.device)
            yield from map(self._from_memory, batches)
            return
        requests = [index.tolist() for index in batches]
        for item in stream(EvalTask(self.source, self.view), requests, min(self.workers, len(requests))):
            self.damage.add(item["damaged"])
            yield item["views"], None if self.source.labels is None else item["label"], item["index"]
        self.damage.tell()


def check_accumulate(trainer: Any, accumulate: int, batch_size: int) -> None:
    """A trainer of the user's own may add up other micro-batches than a step's samples were divided into."""
    taken = accumulate if trainer is None else trainer.accumulate_grad_batches
    if taken != accumulate:
        raise ConfigError(
            f"Trainer(accumulate_grad_batches={taken}) with data.accumulate={accumulate}: a step would have "
            f"{batch_size // accumulate * taken} samples, and data.batch_size={batch_size}; "
            f"set accumulate_grad_batches={accumulate}, or build the data with accumulate={taken}"
        )
