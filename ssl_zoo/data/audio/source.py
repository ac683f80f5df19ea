"""Recordings as a source: all of them in memory, or files that workers decode."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.augmentations.audio.log_mel import LogMel
from ssl_zoo.augmentations.audio.waves import Waves
from ssl_zoo.data.audio.decode import Reader
from ssl_zoo.data.fingerprint import Block, chosen, content, digest, numbers


class AudioSource:
    """Base of sources whose samples are waveforms ``[C, L]`` float32 of unequal length."""

    sample_rate: int  # Hz
    channels: int
    modality = "audio"
    baseline_name = "log-mel statistics"

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"sample_rate": self.sample_rate, "channels": self.channels}

    def collate(self, samples: Sequence[Tensor]) -> Waves:
        return Waves.of(samples)

    def baseline(self, view: Tensor) -> Tensor:
        """Mean and deviation over time of each mel band: ``[B, C, T]``, or log-mel ``[B, C, M, F]`` -> ``[B, 2CM]``."""
        bands = LogMel(self.sample_rate).to(view.device)(view) if view.ndim == 3 else view
        return torch.cat([bands.mean(-1), bands.std(-1, correction=0)], 1).flatten(1)


class Recordings(AudioSource):
    """Recordings in memory.

    Args:
        waves: ``[C, L]`` each, at least one.
        labels: ``[N]`` int64, -1 = none; None: unlabelled.
        classes: Their names.
        sample_rate: In Hz.
        origin: Words that determine the waves, where these were computed; None: their values are looked at.
        decisions: What was decided about the files, a line each.
    """

    in_memory = True
    damage_limit = 0

    def __init__(
        self,
        waves: Sequence[Tensor],
        labels: Tensor | None,
        classes: list[str] | None,
        sample_rate: int,
        origin: str | None = None,
        decisions: Sequence[str] = (),
    ) -> None:
        self.values = torch.cat(list(waves), 1)  # [C, sum of L]: no room for the padding of a few long ones
        self.lengths = torch.tensor([x.shape[1] for x in waves])
        self.first = self.lengths.cumsum(0) - self.lengths
        self.labels = labels
        self.classes = None if labels is None else classes
        self.sample_rate = sample_rate
        self.channels = len(self.values)
        self.origin = origin
        self.decisions = list(decisions)

    def __len__(self) -> int:
        return len(self.lengths)

    def fetch(self, index: Tensor) -> Waves:
        index = index.to(self.lengths.device)
        lengths, first = self.lengths[index], self.first[index]
        place = torch.arange(int(lengths.max()), device=lengths.device)
        inside = place < lengths[:, None]  # [B, L]
        values = self.values[:, torch.where(inside, first[:, None] + place, 0)] * inside
        return Waves(values.transpose(0, 1), lengths)

    def load(self, index: int, hint: Any = None) -> Tensor:
        first, length = int(self.first[index]), int(self.lengths[index])
        return self.values[:, first : first + length].cpu()

    def to(self, device: torch.device) -> Recordings:
        moved = copy.copy(self)
        moved.values, moved.lengths = self.values.to(device), self.lengths.to(device)
        moved.first = self.first.to(device)
        moved.labels = None if self.labels is None else self.labels.to(device)
        return moved

    def fingerprint(self) -> str:
        stored: Block = content(self.values) if self.origin is None else self.origin
        return digest("recordings", numbers(self.lengths), numbers(self.labels), stored)


class Files(AudioSource):
    """Sound files, decoded when asked for.

    Args:
        paths: Absolute, or relative to where the program runs.
        names: The same below the root of the data, wherever that lies.
        labels: ``[N]`` int64, -1 = none; None: unlabelled.
        classes: Their names.
        reader: How files become waveforms.
        damage_limit: So many damaged files are replaced.
        decisions: What was decided about them, a line each.
    """

    in_memory = False

    def __init__(
        self,
        paths: Sequence[str],
        names: Sequence[str],
        labels: Tensor | None,
        classes: list[str] | None,
        reader: Reader,
        damage_limit: int,
        decisions: Sequence[str] = (),
    ) -> None:
        self.paths = list(paths)
        self.names = list(names)
        self.labels = labels
        self.classes = None if labels is None else classes
        self.reader = reader
        self.sample_rate = reader.sample_rate
        self.channels = reader.channels
        self.damage_limit = damage_limit
        self.decisions = list(decisions)

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int, hint: Any = None) -> Tensor:
        return self.reader(self.paths[index])

    def fetch(self, index: Tensor) -> Waves:
        raise TypeError("sound files are read with load(i)")

    def to(self, device: torch.device) -> Files:
        return self

    def fingerprint(self) -> str:
        names = digest(*self.names)
        sizes = [_size(self.paths[i]) for i in chosen(names, len(self))]
        return digest("sound files", names, numbers(self.labels), " ".join(map(str, sizes)))


def _size(path: str) -> int:
    """Bytes of a file; -1 if it is gone or may not be looked at."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
