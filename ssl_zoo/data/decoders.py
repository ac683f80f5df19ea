"""What runs in a data worker, and the endless stream of its results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ssl_zoo.augmentations.pipeline import EvalView, ViewPipeline
from ssl_zoo.augmentations.rng import Draw, Rows, stream_key
from ssl_zoo.data.damage import readable
from ssl_zoo.data.sampler import Request
from ssl_zoo.data.source import Source
from ssl_zoo.errors import ConfigError

STREAM = "train"


class TrainTask(Dataset):
    """Load the rows of a request, and do to each what workers do for its views, or make the whole of them.

    Args:
        source: Training samples.
        views: A view pipeline on the CPU.
        seed: Of the draws, the same as on the device.
        finish: Whether to make whole views, or only what the pipeline leaves to workers.
    """

    def __init__(self, source: Source, views: ViewPipeline, seed: int, finish: bool) -> None:
        self.source = source
        self.views = views
        self.seed = seed
        self.finish = finish

    def __getitem__(self, request: Request) -> dict[str, Any]:
        slots = torch.arange(request.slot, request.slot + len(request.index))
        epoch, slots = self.views.drawn_at(request.epoch, slots, torch.tensor(request.index))
        draws = Rows(Draw(stream_key(self.seed, STREAM, epoch), slots))
        made, index, damaged, reports = self._stack(len(request.index)), [], [], []
        for row, wanted in enumerate(request.index):
            draw = draws.row(row)
            loaded = readable(self.source, wanted, self.views.hint(draw))
            damaged += loaded.damaged
            if loaded.sample is None:
                return {"damaged": damaged}
            index.append(loaded.index)
            made.add(self._make(loaded.sample, draw))
            reports.append(draw.reports)
        return {
            "views": made.views,
            "reports": {name: torch.cat([report[name] for report in reports]) for name in reports[0]},
            "index": torch.tensor(index),
            "damaged": damaged,
        }

    def _stack(self, rows: int) -> Any:
        return self.views.stack(rows) if self.finish or self.views.cuts else Collated(self.source.collate)

    def _make(self, sample: Any, draw: Draw) -> Any:
        if self.finish:
            return self.views.full(sample, draw)
        return self.views.crop(sample, draw) if self.views.cuts else sample


class Collated:
    """Samples, of which the source makes one batch at the end."""

    def __init__(self, collate: Callable[[Sequence[Any]], Any]) -> None:
        self.collate = collate
        self._samples: list[Any] = []

    def add(self, sample: Any) -> None:
        self._samples.append(sample)

    @property
    def views(self) -> Any:
        return self.collate(self._samples)


class EvalTask(Dataset):
    """Load a list of samples and make their evaluation view.

    In place of a damaged file stands the next readable sample, without a label, so that every sample is there once and
    none is judged by another.
    """

    def __init__(self, source: Source, view: EvalView) -> None:
        self.source = source
        self.view = view

    def __getitem__(self, index: list[int]) -> dict[str, Any]:
        made, damaged, labels = self.view.stack(len(index)), [], []
        for wanted in index:
            loaded = readable(self.source, wanted, self.view.hint())
            damaged += loaded.damaged
            if loaded.sample is None:
                return {"damaged": damaged}
            made.add([self.view.one(loaded.sample)])
            known = self.source.labels is not None and loaded.index == wanted
            labels.append(int(self.source.labels[wanted]) if known else -1)  # type: ignore[index]
        label, positions = torch.tensor(labels), torch.tensor(index)
        return {"views": made.views[0], "label": label, "index": positions, "damaged": damaged}


def _same(item: Any) -> Any:
    return item


def stream(task: Dataset, requests: Iterable[Any], workers: int, pin: bool = False) -> Iterator[dict[str, Any]]:
    """``task[request]`` for every request, in order, made by ``workers`` processes (0: this one)."""
    if workers == 0:
        return (task[request] for request in requests)
    loader = DataLoader(
        task,
        batch_size=None,  # a request is a whole batch
        sampler=requests,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_same,
        pin_memory=pin,
        # Otherwise the loader takes its seed from torch's global generator, which belongs to the training step.
        generator=torch.Generator(),
    )
    return guarded(iter(loader), workers)


def guarded(items: Iterator[dict[str, Any]], workers: int) -> Iterator[dict[str, Any]]:
    """``items``; a worker that the system has ended becomes an error that says what to change."""
    try:
        yield from items
    except RuntimeError as error:
        if "DataLoader worker" not in str(error) or "Traceback" in str(error):
            raise
        raise ConfigError(
            f"a data worker was ended by the system ({str(error).splitlines()[0]}), most often for want of memory or "
            f"of shared memory (/dev/shm); try data.workers={workers // 2}, or a smaller data.batch_size"
        ) from None


def auto_workers(workers: int | str, in_memory: bool, local_processes: int, cores: int) -> int:
    """``data.workers``; ``auto``: none for what lies in memory, else one a core, at most 16, for all processes."""
    if workers == "auto":
        return 0 if in_memory else max(min(cores // max(local_processes, 1), 16), 1)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise ConfigError(f"data.workers={workers}: wanted auto, or 0 and more processes")
    return workers

