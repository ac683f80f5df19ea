"""What travels from the data to a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.errors import ConfigError


@dataclass(frozen=True)
class DataInfo:
    """What a method may need to know of its data; injected as ``data_info`` and saved in the checkpoint.

    The facts of the source are attributes too: ``info.channels``.
    """

    samples: int  # training samples, after data.subset
    classes: int | None  # None: unlabelled
    batch_size: int  # rows of one micro-batch over all devices
    facts: Mapping[str, Any] = field(default_factory=dict)  # what networks must know of a sample; plain values

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "facts":  # what copying and pickling ask for
            raise AttributeError(name)
        if name not in self.facts:
            known = ", ".join(self.facts) or "nothing"
            raise ConfigError(
                f"the samples of this data have no {name} (known of them: {known}); choose data that has it, or a "
                "method and a backbone that do not ask for it"
            )
        return self.facts[name]


BLOCKING = ("cpu", "mps")  # devices on which a copy that is on its way may be read before it has arrived


class RawBatch:
    """A batch as the loader gives it, before the views are made.

    No dataclass: with ``trainer.precision=16-true`` Lightning converts what is floating in one before the views are
    made, which would leave samples with the 8 bits of bfloat16.

    Args:
        samples: A batch as the source gives it; or a list with one for each view, where workers have prepared them or
            made the whole of them.
        index: ``[B]`` positions in the training set.
        label: ``[B]``, or None.
        slot: Of the first row: its position in the epoch's global order; the other rows follow it.
        epoch, micro: Counted from 0.
        reports: What operations in workers said of the views.
        finished: Whether ``samples`` are whole views.
    """

    def __init__(
        self, samples: Any, index: Tensor, label: Tensor | None, slot: int, epoch: int, micro: int,
        reports: dict[str, Tensor] | None = None, finished: bool = False,
    ) -> None:  # fmt: skip
        self.samples = samples
        self.index = index
        self.label = label
        self.slot = slot
        self.epoch = epoch
        self.micro = micro
        self.reports = reports or {}
        self.finished = finished

    def to(self, device: torch.device | str) -> RawBatch:
        """The same on a device, on its way there where the device can be worked for meanwhile."""
        non_blocking = torch.device(device).type not in BLOCKING

        def moved(view: Any) -> Any:
            return view.to(device, non_blocking=non_blocking)

        samples = [moved(x) for x in self.samples] if isinstance(self.samples, list) else moved(self.samples)
        label = None if self.label is None else moved(self.label)
        reports = {name: moved(report) for name, report in self.reports.items()}
        index = moved(self.index)
        return RawBatch(samples, index, label, self.slot, self.epoch, self.micro, reports, self.finished)


@dataclass
class Batch:
    """A batch as a method sees it: normalised views, global ones first."""

    views: list[Any]
    index: Tensor  # [B] position in the (subset of the) training set
    label: Tensor | None  # [B], or soft [B, C]; -1 = none
    rng: Any  # BatchRNG: sample(name) one draw per row, shared(name) one for the whole global batch
    extra: dict[str, Any] = field(default_factory=dict)
